"""One night: what failed before is tried again, a bug that is known to be there is looked for, then random runs until
time is up, with the harness watched all along.

Holds counts and kinds, no runs; what a failed run leaves behind is handed on and kept in the corpus. Time is given.
Called by `fleet soak` and by tests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from fleet.soak.corpus import FAILING, FIXED, Corpus, Entry
from fleet.soak.draws import Again, Budget, Draws, Reference
from fleet.soak.drift import Drift, Sample, judged
from fleet.soak.worker import one_run, rss_mb
from fleet.sweep.attempt import Kind, Outcome
from fleet.sweep.case import Case, Runnable
from fleet.sweep.mutants import Caught, hunt
from fleet.sweep.mutants import one_run as one_hunt
from fleet.sweep.pool import Executor
from fleet.sweep.stream import in_order
from fleet.sweep.sweep import Failures, Sweep
from reports.summary import EXIT_FAIL, EXIT_HARNESS, EXIT_INTERRUPTED, EXIT_PASS, EXIT_UNKNOWN

CANARY_SEEDS: Final = 60
PARENT: Final = 0  # as the number of a process: the one that hands out the runs

Run = Callable[[Runnable], Outcome]


@dataclass(frozen=True, slots=True)
class Called:
    """What names a night. `number`: from 1 on, in the order of a directory's nights; `found`: its time, in UTC."""

    number: int
    seed: int
    found: str
    release: str


@dataclass(slots=True)
class News:
    """What became of the corpus. Kinds, in the order in which they were seen."""

    retried: int = 0
    failing: list[Kind] = field(default_factory=list)  # still
    fixed: list[Kind] = field(default_factory=list)  # since the last night
    returned: list[Kind] = field(default_factory=list)  # had been fixed
    new: list[Kind] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)  # folders


@dataclass(slots=True)
class Night:
    """What came of it so far. `reference_events_per_s`: the best of all runs of the reference, in CPU time; `rss_mb`:
    the most that a worker held after one; `phase`: what goes on."""

    called: Called
    sweep: Sweep = field(default_factory=lambda: Sweep(lines_of_all=False))
    news: News = field(default_factory=News)
    canary_plant: str = ""
    canary: Caught | None = None
    drift: Drift = field(default_factory=Drift)
    samples: list[Sample] = field(default_factory=list)
    phase: str = "corpus"

    @property
    def reference_events_per_s(self) -> float:
        return max((sample.events_per_s for sample in self.samples), default=0.0)

    @property
    def rss_mb(self) -> float:
        return max((sample.rss_mb for sample in self.samples), default=0.0)

    def harness_problems(self) -> list[str]:
        """Why what the night says of the product cannot be relied on; in words."""
        found = []
        if self.canary is not None and not self.canary.seeds:
            found.append(
                f"the night could not find a bug that is known to be there: {self.canary_plant}, planted in "
                f"{CANARY_SEEDS} runs, and no check noticed"
            )
        found += [f"the canary's runs: {error.rstrip().splitlines()[-1]}" for error in self._canary_errors()]
        if self.drift.failed:
            found.append(f"the harness drifted: {self.drift.detail}")
        if self.sweep.errors:
            found.append(f"{self.sweep.errors:,} runs ended in an error of the harness")
        return found

    def _canary_errors(self) -> list[str]:
        return self.canary.errors if self.canary is not None else []

    def exit_code(self) -> int:
        if self.sweep.interrupted:
            return EXIT_INTERRUPTED
        if self.harness_problems():
            return EXIT_HARNESS
        if self.sweep.failed:
            return EXIT_FAIL
        return EXIT_UNKNOWN if not self.sweep.runs or self.sweep.checks_never_evaluated() else EXIT_PASS


OnFailure = Callable[[Failures, Outcome], None]
OnProgress = Callable[[Night, int], bool]  # the night so far, and runs that have ended in this phase; True: end it


@dataclass(slots=True)
class Soak:
    """Everything that a night needs. `run`, `hunted`: what a worker does with a case, and with one of the canary's;
    `memory`: what this process holds, in MB."""

    executor: Executor
    draws: Draws
    corpus: Corpus
    budget: Budget
    clock: Callable[[], float]
    on_failure: OnFailure = lambda failures, outcome: None
    on_progress: OnProgress = lambda night, finished: False
    run: Run = one_run
    hunted: Callable[[Case], Outcome] = one_hunt
    memory: Callable[[], float] = rss_mb

    def night(self, called: Called) -> Night:
        """Raises InputError when the corpus is damaged, before anything runs."""
        night = Night(called)
        due = self._readable(night, list(self.corpus.due(called.number)))
        started = self.clock()
        for phase in (self._retry(due), self._look_for_canary, self._run_until_the_end):
            phase(night)
            if night.sweep.interrupted:
                break
        night.drift = judged(night.samples)
        night.sweep.wall_s = self.clock() - started
        return night

    def _tick(self, night: Night) -> Callable[[int], bool]:
        def tick(finished: int) -> bool:
            night.sweep.interrupted = self.on_progress(night, finished)
            return night.sweep.interrupted

        return tick

    # ---------------------------------------------------------------- what failed before

    def _readable(self, night: Night, entries: Iterable[Entry]) -> list[Entry]:
        due = []
        for entry in entries:
            if entry.is_readable():
                due.append(entry)
            else:
                night.news.unreadable.append(str(self.corpus.set_aside(entry).folder))
        return due

    def _retry(self, due: list[Entry]) -> Callable[[Night], None]:
        def phase(night: Night) -> None:
            kept = [entry.kept() for entry in due]
            for entry, outcome in zip(due, in_order(self.executor, kept, self.run, self._tick(night)), strict=False):
                self._settle(night, entry, outcome)

        return phase

    def _settle(self, night: Night, entry: Entry, outcome: Outcome) -> None:
        news, was = night.news, entry.place
        news.retried += 1
        if outcome.verdict in ("fail", "error"):
            self._count_bad(night, outcome)
        place = self.corpus.settle(entry, outcome, night.called.number).place
        if place == FAILING:
            (news.failing if was == FAILING else news.returned).append(outcome.kind or entry.about.kind)
        elif was != FIXED:
            news.fixed.append(entry.about.kind)

    def _count_bad(self, night: Night, outcome: Outcome) -> None:
        failures = night.sweep.take(outcome)
        if failures is not None:
            self.on_failure(failures, outcome)

    # ---------------------------------------------------------------- a bug that is known to be there

    def _look_for_canary(self, night: Night) -> None:
        night.phase, night.canary_plant = "canary", self.draws.canary()
        plants, draw = [night.canary_plant], self.draws.canary_case
        for row in hunt(self.executor, plants, ["own"], draw, CANARY_SEEDS, self._tick(night), self.hunted):
            night.canary = row

    # ---------------------------------------------------------------- random runs

    def _run_until_the_end(self, night: Night) -> None:
        night.phase = "runs"
        given: deque[Case] = deque()

        def cases() -> Iterator[Case]:
            for case in self.draws.cases(self.budget, self.clock):
                given.append(case)
                yield case

        reference: Outcome | None = None
        last: Outcome | None = None
        for outcome in in_order(self.executor, cases(), self.run, self._tick(night)):
            case = given.popleft()
            if isinstance(case, Reference):
                self._sample(night, outcome)
                if reference is None:
                    self._take(night, outcome)
                reference = self._compare(night, reference, outcome)
            elif isinstance(case, Again):
                self._compare(night, last, outcome)
            else:
                self._take(night, outcome)
                last = outcome

    def _take(self, night: Night, outcome: Outcome) -> None:
        night.sweep.required.update(dict.fromkeys(outcome.required))
        failures = night.sweep.take(outcome)
        if failures is None:
            return
        self.on_failure(failures, outcome)
        called = night.called
        if len(failures.runs) == 1 and self.corpus.add(outcome, called.number, called.found, called.release):
            night.news.new.append(failures.kind)

    def _compare(self, night: Night, first: Outcome | None, again: Outcome) -> Outcome:
        """Two runs of one case: the same trace, or an error of the harness. Returns the first."""
        if first is None:
            return again
        differs = night.sweep.take_again(first, again)
        if differs is not None:
            self._count_bad(night, differs)
        return first

    def _sample(self, night: Night, outcome: Outcome) -> None:
        if outcome.verdict != "error" and outcome.cpu_s > 0:
            night.samples.append(Sample(outcome.process, outcome.rss_mb, outcome.events / outcome.cpu_s))
            night.samples.append(Sample(PARENT, self.memory()))
