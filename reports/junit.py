"""`junit.xml`: one test case for each check and each threshold, so that a CI server shows what failed.

Makes text from values; no files. Called by `reports.rundir`. A required check that was never evaluated is an error
(it must not look like a pass), another one is skipped.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

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
        message = f"actual value: {number_text(threshold.actual)}"
        ET.SubElement(case, "failure", type="threshold", message=message)
        return "failures"
    ET.SubElement(case, "error", type="unknown", message="nothing to measure")
    return "errors"
