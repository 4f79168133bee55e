"""One step of a shrink: a plan is run, and what came of it is told in few words. Runs in worker processes.

Nothing that a run does gets out of here: what the world raises is the verdict `error`, as in a sweep.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from fleet.scenario.plan import Plan
from fleet.sweep.attempt import HARNESS, Kind, in_words, masked, run_plan
from reports.result import Violation


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one plan. `kind`: of a failure; `violation`: the one that came first; `error`: of the harness."""

    verdict: Literal["pass", "fail", "unknown", "error"]
    kind: Kind | None = None
    violation: Violation | None = None
    first: str = ""
    trace_hash: str = ""
    virtual_s: float = 0.0


def step(plan: bytes, early: bool, hashed: bool) -> Step:
    """Runs a plan. `early`: only until a check has failed; `hashed`: with the trace's hash."""
    try:
        outcome = run_plan(Plan.decode(plan), hashed=hashed, until_failure=early)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a power cut of the simulated world is no Exception
        return broken(error)
    result = outcome.result
    violations = result.violations if result is not None else []
    first = min(violations, key=lambda one: one.t_s, default=None)
    return Step(
        verdict=outcome.verdict,
        kind=outcome.kind if outcome.verdict == "fail" else None,
        violation=first,
        first=in_words(first) if first is not None else outcome.first,
        trace_hash=outcome.trace_hash,
        virtual_s=outcome.virtual_s,
    )


def broken(error: BaseException) -> Step:
    """The run raised, or its process is gone: it died, or took too long."""
    text = f"{type(error).__name__}: {error}".strip(": \n")
    return Step(verdict="error", kind=Kind(HARNESS, masked(text)), first=text)
