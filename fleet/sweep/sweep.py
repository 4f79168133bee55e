"""A sweep: many cases, some of them twice, and what they say together.

Keeps counts, not runs: what a failed run leaves behind is handed on (`on_failure`) and forgotten. The result depends on
the cases alone, not on where and in which order they ran; times do. Called by `fleet sweep` and by tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from fleet.probes import PROBES
from fleet.sweep.attempt import HARNESS, Kind, Outcome, attempt
from fleet.sweep.case import Case
from fleet.sweep.pool import Executor
from fleet.sweep.stream import Attempt, in_order
from reports.summary import EXIT_FAIL, EXIT_HARNESS, EXIT_INTERRUPTED, EXIT_PASS, EXIT_UNKNOWN

NOT_DETERMINISTIC: Final = "two runs of the same plan have different trace hashes"


class Line(msgspec.Struct, frozen=True):
    """One run, for the JUnit file. `kind`: number of its kind of failure, -1 when it did not fail."""

    scenario: str
    seed: int
    verdict: str
    wall_s: float
    kind: int = -1


@dataclass(slots=True)
class Failures:
    """All failures of one kind, in the order of the cases. `first`: of the first one, in words."""

    number: int
    kind: Kind
    first: str
    command: str
    runs: list[tuple[str, int]] = field(default_factory=list)
    also: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return f"{self.kind}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to do besides running. `twice_every`: each case whose number is a multiple of it runs twice, 0: none;
    `stop_after`: so many bad runs, in the order of the cases; 0: never."""

    twice_every: int = 20
    stop_after: int = 0


@dataclass(slots=True)
class Sweep:
    """What came of it. `probes`: scenario -> in how many of its runs each probe was hit; `evaluated`: in how many runs
    each check looked at something; `lacking`: in how many one that it required did not; `doubled`: cases that ran
    twice; `lines`: of all runs, or (`lines_of_all` False) of the bad ones."""

    planned: int = 0
    runs: int = 0
    passed: int = 0
    failed: int = 0
    unknown: int = 0
    errors: int = 0
    doubled: int = 0
    mismatches: int = 0
    synced: int = 0
    virtual_s: float = 0.0
    run_wall_s: float = 0.0
    cpu_s: float = 0.0
    rss_mb_max: float = 0.0
    wall_s: float = 0.0
    interrupted: bool = False
    stopped: bool = False
    failures: dict[Kind, Failures] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    probes: dict[str, Counter[str]] = field(default_factory=dict)
    evaluated: Counter[str] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)
    required: dict[str, None] = field(default_factory=dict)
    lines_of_all: bool = True

    @property
    def bad(self) -> int:
        return self.failed + self.errors

    def probes_hit(self) -> Counter[str]:
        hit: Counter[str] = Counter()
        for counts in self.probes.values():
            hit.update(counts)
        return hit

    def probes_never_hit(self) -> list[str]:
        hit = self.probes_hit()
        return [name for name in PROBES if not hit[name]]

    def checks_never_evaluated(self) -> list[str]:
        """Of those that a scenario requires."""
        return [name for name in self.required if not self.evaluated[name]]

    def exit_code(self) -> int:
        """A harness that failed says nothing about what it tests, and an unknown is no pass."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.errors:
            return EXIT_HARNESS
        if self.failed:
            return EXIT_FAIL
        return EXIT_UNKNOWN if self.unknown or not self.runs or self.checks_never_evaluated() else EXIT_PASS

    def take(self, outcome: Outcome) -> Failures | None:
        """Counts one run; returns the failures that it belongs to."""
        self.runs += 1
        self.synced += outcome.synced
        self.virtual_s += outcome.virtual_s
        self._measure(outcome)
        self.probes.setdefault(outcome.scenario, Counter()).update(name for name, n in outcome.probes.items() if n)
        self.evaluated.update(outcome.evaluated.keys())
        failures = None
        if outcome.verdict == "pass":
            self.passed += 1
        elif outcome.verdict == "unknown":
            self.unknown += 1
            self.lacking.update(name for name in outcome.required if name not in outcome.evaluated)
        else:
            failures = self._count(outcome)
        if failures is not None or self.lines_of_all:
            number = failures.number if failures is not None else -1
            self.lines.append(Line(outcome.scenario, outcome.seed, outcome.verdict, outcome.wall_s, number))
        return failures

    def _measure(self, outcome: Outcome) -> None:
        self.run_wall_s += outcome.wall_s
        self.cpu_s += outcome.cpu_s
        self.rss_mb_max = max(self.rss_mb_max, outcome.rss_mb_max)

    def _count(self, outcome: Outcome) -> Failures:
        if outcome.verdict == "error":
            self.errors += 1
        else:
            self.failed += 1
        kind = outcome.kind or Kind(outcome.verdict, "")
        found = self.failures.get(kind)
        if found is None:
            found = Failures(len(self.failures), kind, outcome.first, outcome.command)
            self.failures[kind] = found
        found.runs.append((outcome.scenario, outcome.seed))
        found.also.update(outcome.also)
        return found

    def take_again(self, first: Outcome, again: Outcome) -> Outcome | None:
        """The second run of the same case; an outcome to count where the two differ."""
        self._measure(again)
        self.doubled += 1
        if again.trace_hash == first.trace_hash and again.verdict == first.verdict:
            return None
        self.mismatches += 1
        if first.verdict == "error":
            return None  # counted already
        found = f"{NOT_DETERMINISTIC}: {first.trace_hash} ({first.verdict}) and {again.trace_hash} ({again.verdict})"
        return msgspec.structs.replace(
            first, verdict="error", kind=Kind(HARNESS, NOT_DETERMINISTIC), also=[], first=found, result=None
        )


OnFailure = Callable[[Failures, Outcome], None]
OnProgress = Callable[[Sweep, int], bool]  # the sweep so far, and runs that have ended; True: end it


def sweep(
    executor: Executor,
    cases: Sequence[Case],
    wanted: Wanted,
    *,
    required: Sequence[str] = (),
    on_failure: OnFailure = lambda failures, outcome: None,
    on_progress: OnProgress = lambda so_far, finished: False,
    function: Attempt = attempt,
) -> Sweep:
    """Runs all cases. `required`: checks that must have looked at something in one run at least; `on_failure`: gets
    each bad run with the failures that it belongs to, in the order of the cases."""
    result = Sweep(planned=len(cases), required=dict.fromkeys(required))
    twice = [wanted.twice_every > 0 and index % wanted.twice_every == 0 for index in range(len(cases))]
    tasks = [case for index, case in enumerate(cases) for _ in range(1 + twice[index])]

    def tick(finished: int) -> bool:
        result.interrupted = on_progress(result, finished)
        return result.interrupted

    outcomes = in_order(executor, tasks, function, tick)
    for index, outcome in enumerate(_pairs(outcomes, twice, result)):
        failures = result.take(outcome)
        if failures is not None:
            on_failure(failures, outcome)
        if wanted.stop_after and result.bad >= wanted.stop_after and index + 1 < len(cases):
            result.stopped = True
            break
    return result


def _pairs(outcomes: Iterator[Outcome], twice: Sequence[bool], result: Sweep) -> Iterator[Outcome]:
    """One outcome for each case: of one that ran twice, the first, or that the two differ."""
    for is_double in twice:
        first = next(outcomes, None)
        if first is None:
            return
        if is_double:
            again = next(outcomes, None)
            if again is None:
                return
            first = result.take_again(first, again) or first
        yield first
