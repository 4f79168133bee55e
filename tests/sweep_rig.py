"""Stand-ins for runs, for the tests of sweeps: outcomes that a seed decides, runs that raise, processes that die.

Each is a function of a case that a spawned process can import by its name. Holds no state.
"""

from __future__ import annotations

import os
from typing import Final

from fleet.sweep.attempt import Kind, Outcome
from fleet.sweep.case import Case, Source, source_of

CALM: Final = ("duration=10m",)  # no faults: a run of a fraction of a second

NOWHERE: Final = Source("nowhere", b"{}", "", "", "nowhere", ("nowhere",))


def calm() -> Source:
    """The smallest real scenario."""
    return source_of("baseline", CALM, 2)


def cases(count: int, source: Source = NOWHERE) -> list[Case]:
    return [Case(source, seed) for seed in range(1, count + 1)]


def passes(case: Case, verdict: str = "pass", kind: Kind | None = None) -> Outcome:
    return Outcome(
        scenario=case.source.name,
        seed=case.seed,
        verdict=verdict,  # type: ignore[arg-type]
        kind=kind,
        first="" if kind is None else f"seed {case.seed}",
        trace_hash=f"{case.seed:032x}",
        probes={"gap_seen": case.seed},
        evaluated={"convergence": 1},
        command=case.command(),
    )


def fails_sometimes(case: Case) -> Outcome:
    """Every fourth seed fails in one way, every sixth in another."""
    if case.seed % 4 == 0:
        return passes(case, "fail", Kind("convergence", "expected N, found N"))
    if case.seed % 6 == 0:
        return passes(case, "fail", Kind("quiet", "expected silence"))
    return passes(case)


def dies_at_three(case: Case) -> Outcome:
    if case.seed == 3:
        os._exit(9)
    return fails_sometimes(case)


def never_twice_the_same(case: Case) -> Outcome:
    """Tells processes and runs apart, which no run may."""
    outcome = passes(case)
    return Outcome(scenario=outcome.scenario, seed=outcome.seed, verdict="pass", trace_hash=str(id(outcome)))
