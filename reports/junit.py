"""`junit.xml`: one test case for each check and each threshold, so that a CI server shows what failed.

Of a sweep: one for each run. Makes text from values; no files. Called by `reports.rundir` and by sweeps. A required
check that was never evaluated is an error (it must not look like a pass), another one is skipped.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

import msgspec

from reports.summary import Check, Summary, Threshold, checks_in_order
from reports.text import number_text, printable, printable_lines


def junit_xml(summary: Summary) -> str:
    suite = ET.Element("testsuite")
    name = printable(summary.scenario, 200)
    totals = {"failures": 0, "errors": 0, "skipped": 0}
    for check in checks_in_order(summary.checks):
        totals_key = _check_case(suite, name, check)
        if totals_key:
            totals[totals_key] += 1
    for threshold in summary.thresholds:
        totals_key = _threshold_case(suite, name, threshold)
        if totals_key:
            totals[totals_key] += 1
    suite.attrib.update(
        name=f"{name} seed {summary.seed}",
        tests=str(len(summary.checks) + len(summary.thresholds)),
        time=f"{summary.wall_s:.3f}",
        **{key: str(value) for key, value in totals.items()},
    )
    properties = ET.Element("properties")
    for key, text in (
        ("seed", str(summary.seed)),
        ("verdict", summary.verdict),
        ("trace_hash", summary.trace_hash),
        ("reproduce", summary.reproduce),
    ):
        ET.SubElement(properties, "property", name=key, value=printable(text))
    suite.insert(0, properties)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(suite: ET.Element, classname: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=classname, name=printable(name, 300), time="0")


def _check_case(suite: ET.Element, scenario: str, check: Check) -> str | None:
    """Which total it counts in; None for a pass."""
    case = _case(suite, f"{scenario}.checks", check.name)
    if check.status == "pass":
        return None
    detail = printable_lines(check.detail)
    if check.status == "fail":
        message = f"{check.failures or 1} of {check.checked} evaluations failed"
        ET.SubElement(case, "failure", type="check", message=message).text = detail
        return "failures"
    if check.required:
        ET.SubElement(case, "error", type="unknown", message="required, but never evaluated").text = detail
        return "errors"
    ET.SubElement(case, "skipped", message="had nothing to check")
    return "skipped"


def _threshold_case(suite: ET.Element, scenario: str, threshold: Threshold) -> str | None:
    case = _case(suite, f"{scenario}.thresholds", threshold.expr)
    if threshold.status == "pass":
        return None
    if threshold.status == "fail":
        message = printable(threshold.detail, 300) or f"actual value: {number_text(threshold.actual)}"
        ET.SubElement(case, "failure", type="threshold", message=message)
        return "failures"
    message = printable(threshold.detail, 300) or "nothing to measure"
    ET.SubElement(case, "error", type="unknown", message=message)
    return "errors"


class SweepCase(msgspec.Struct, frozen=True):
    """One run of a sweep. `text`: what went wrong, empty for a pass; `verdict`: pass, fail, unknown or error."""

    scenario: str
    seed: int
    verdict: str
    wall_s: float
    text: str = ""


def sweep_xml(cases: Iterable[SweepCase]) -> str:
    """One suite for each scenario, one test case for each seed."""
    suites: dict[str, ET.Element] = {}
    totals: dict[str, dict[str, int]] = {}
    root = ET.Element("testsuites")
    for case in cases:
        name = printable(case.scenario, 200)
        if name not in suites:
            suites[name] = ET.SubElement(root, "testsuite", name=name)
            totals[name] = {"tests": 0, "failures": 0, "errors": 0}
        element = ET.SubElement(
            suites[name], "testcase", classname=name, name=f"seed {case.seed}", time=f"{case.wall_s:.3f}"
        )
        totals[name]["tests"] += 1
        if case.verdict == "pass":
            continue
        kind, total = ("failure", "failures") if case.verdict == "fail" else ("error", "errors")
        totals[name][total] += 1
        message = printable(case.text or "a required check was never evaluated", 300)
        ET.SubElement(element, kind, type=case.verdict, message=message)
    for name, suite in suites.items():
        suite.attrib.update({key: str(value) for key, value in totals[name].items()})
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"
