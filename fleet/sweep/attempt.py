"""Runs one case and says what came of it: verdict, the kind of failure, what was hit. What sweeps, shrinking and soak
are made of.

`attempt` never raises for what a run does: an exception in the world, in a check or in the plan is the verdict `error`,
which no sweep counts as a pass. Runs in worker processes; what it returns is small unless the run failed.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from fleet.run import Request, execute
from fleet.scenario.plan import Plan
from fleet.sweep.case import Runnable
from fleet.world.world import Progress
from reports.result import RunResult, Violation
from reports.summary import Threshold

THRESHOLD: Final = "threshold"
HARNESS: Final = "harness"
_MASKS: Final = (
    (re.compile(r"\b[a-z][a-z0-9-]*-\d{4,}\b"), "DEVICE"),
    (re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{16,}\b"), "ID"),
    (re.compile(r"\d+(\.\d+)?"), "N"),
)


class Kind(msgspec.Struct, frozen=True, order=True):
    """Failures of one kind have one cause, as a rule: the check that failed first, and the shape of what it found."""

    check: str
    shape: str

    def __str__(self) -> str:
        return f"{self.check}: {self.shape}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one run. `evaluated`: how often each check looked; `also`: other checks that failed; `command`: what
    reproduces it; `plan`: of a run that failed; `result`: all that is known of it, unless it was not asked for.
    `events`: in its trace. `process`, `rss_mb`: who ran it, and how much memory that one held afterwards, where
    somebody measured it."""

    scenario: str
    seed: int
    verdict: Literal["pass", "fail", "unknown", "error"]
    trace_hash: str = ""
    kind: Kind | None = None
    also: list[str] = []
    first: str = ""  # the violation, or the error, in words
    probes: dict[str, int] = {}
    evaluated: dict[str, int] = {}
    required: list[str] = []
    synced: int = 0
    events: int = 0
    virtual_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    rss_mb_max: float = 0.0
    process: int = 0
    rss_mb: float = 0.0
    command: str = ""
    plan: bytes = b""
    result: RunResult | None = None


def masked(text: str) -> str:
    """What is the same in two failures of one kind: names of devices, identifiers and numbers are not."""
    for pattern, word in _MASKS:
        text = pattern.sub(word, text)
    return text


def kind_of(violations: Sequence[Violation], thresholds: Sequence[Threshold] = ()) -> Kind | None:
    """By the violation that came first; what is only seen at the end of a run follows from others, as a rule."""
    if violations:
        first = min(violations, key=lambda one: one.t_s)
        where = f"{masked(first.item)}: " if first.item else ""
        return Kind(first.check, f"{where}expected {masked(first.expected)}, found {masked(first.found)}")
    failed = [one.expr for one in thresholds if one.status == "fail"]
    return Kind(THRESHOLD, failed[0]) if failed else None


def in_words(violation: Violation) -> str:
    where = [f"t={violation.t_s:.6f}s"]
    where += [f"device {violation.device}"] if violation.device else []
    where += [f"item {violation.item}"] if violation.item else []
    return f"{', '.join(where)}: expected {violation.expected}, found {violation.found}"


def attempt(case: Runnable, *, hashed: bool = True, until_failure: bool = False, keep: bool = True) -> Outcome:
    """One run of a case. `until_failure`: it ends soon after a check has failed, as much as can be judged is judged;
    `keep`: a failed run's whole result is in the outcome."""
    command = case.command()
    plan = None
    try:
        plan = case.plan()
        return run_plan(plan, case.yaml, command=command, hashed=hashed, until_failure=until_failure, keep=keep)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a power cut of the simulated world is no Exception: none may come out here
        return failed(case, error, plan)


def failed(case: Runnable, error: BaseException, plan: Plan | None = None) -> Outcome:
    """The harness failed in this case, or the process that ran it is gone. `plan`: when it is known."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "its process"
    text = f"{type(error).__name__}: {error}".strip(": \n")
    return Outcome(
        scenario=case.scenario,
        seed=case.seed,
        verdict="error",
        kind=Kind(HARNESS, f"{masked(text)} in {place}"),
        first="".join(traceback.format_exception(error)) if frames else text,
        command=case.command(),
        plan=plan.encode() if plan is not None else b"",
    )


def run_plan(
    plan: Plan,
    yaml: Callable[[], str] = str,
    *,
    command: str = "",
    hashed: bool = True,
    until_failure: bool = False,
    keep: bool = True,
) -> Outcome:
    """Runs a plan: verdict and kind of failure. Raises what the world raises. `yaml`: gives the scenario, if it has to
    be written down."""
    failures = 0

    def look(progress: Callable[[], Progress]) -> None:
        nonlocal failures
        failures = progress().failures

    if until_failure:
        result = execute(plan, Request(command), look, lambda: failures > 0, hashed=hashed)
    else:
        result = execute(plan, Request(command), hashed=hashed)
    summary = result.summary
    kind = kind_of(result.violations, summary.thresholds)
    verdict = summary.verdict
    bad = verdict == "fail"
    if bad and keep:
        result.scenario_yaml = yaml()
    first = min(result.violations, key=lambda one: one.t_s, default=None)
    return Outcome(
        scenario=plan.scenario,
        seed=plan.seed,
        verdict=verdict,
        trace_hash=summary.trace_hash,
        kind=kind,
        also=[one.check for one in result.violations if kind is not None and one.check != kind.check],
        first=in_words(first) if first is not None else kind.shape if kind is not None else "",
        probes=summary.probes,
        evaluated={check.name: check.checked for check in summary.checks if check.checked},
        required=plan.checks,
        synced=summary.counts.updates_synced,
        events=result.events,
        virtual_s=summary.virtual_s,
        wall_s=summary.wall_s,
        cpu_s=summary.cpu_s,
        rss_mb_max=summary.rss_mb_max,
        command=command,
        plan=result.plan_json if bad else b"",
        result=result if bad and keep else None,
    )
