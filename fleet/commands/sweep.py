"""`fleet sweep`: many seeds of one or more scenarios on all cores; what failed, once for each kind of failure."""

from __future__ import annotations

import re
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.protocol.errors import InputError, Problem
from fleet.commands.common import EXIT_HARNESS, EXIT_INPUT, cut_short_at_will

if TYPE_CHECKING:
    from fleet.sweep.attempt import Outcome
    from fleet.sweep.case import Case
    from fleet.sweep.pool import Executor
    from fleet.sweep.sweep import Failures, Sweep, Wanted

ORDER = 25
SEEDS_MAX: Final = 10_000_000
_SEEDS: Final = re.compile(r"(\d{1,18})(?:\.\.(\d{1,18}))?")


def register(app: typer.Typer) -> None:
    app.command("sweep")(sweep)


def sweep(
    scenarios: Annotated[
        list[str], typer.Argument(help="Files, or names of shipped scenarios.", metavar="SCENARIO...")
    ],
    seeds: Annotated[str, typer.Option("--seeds", metavar="A..B", help="Seeds from A to B, or one.")] = "1..100",
    swarm: Annotated[
        bool, typer.Option("--swarm", help="Each seed draws which faults there are, and all their numbers.")
    ] = False,
    devices: Annotated[
        int | None, typer.Option("--devices", metavar="N", help="So many in all; groups keep their proportions.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key. Repeatable.")
    ] = None,
    plant: Annotated[str, typer.Option("--plant", metavar="NAME", help="Switch one planted bug on.")] = "",
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, help="Runs at once; default: one for each core.")
    ] = None,
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="ADDRESS", help="Run on the workers of a dask.distributed scheduler.")
    ] = "",
    twice: Annotated[
        int,
        typer.Option("--twice-every", metavar="N", min=0, help="Run each N-th case twice and compare; 0: none."),
    ] = 20,
    stop_after: Annotated[
        int, typer.Option("--stop-after", metavar="N", min=0, help="End after N bad runs; 0: never.")
    ] = 0,
    memory: Annotated[
        str,
        typer.Option("--memory", metavar="SIZE", help="Address space of one process: 4gb; default: any."),
    ] = "",
    run_limit: Annotated[
        str, typer.Option("--run-limit", metavar="TIME", help="A run that takes longer is ended, and is an error.")
    ] = "30m",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to; default: in runs/.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json instead of the result.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the last line.")] = False,
) -> None:
    """Run many seeds on all cores, and say once what fails in the same way.

    Failures of one kind, the same check and the same shape, are one line, with the seeds and with the command that
    reproduces the first. Some cases run twice, and must give the same trace. Probes that no run hit are listed. The
    last line on stdout is the directory: summary.json, junit.xml, and run directories and plans of failed runs.

    Exits with 0 passed, 1 failed, 2 bad input, 3 unknown, 4 the harness failed in a run, 130 interrupted.
    """
    from fleet.plants import PLANTS, unknown_plant
    from fleet.scenario.units import parse_positive_duration, parse_size
    from fleet.sweep.case import Case, required_of, source_of
    from fleet.sweep.sweep import Wanted

    if plant and plant not in PLANTS:
        raise InputError([unknown_plant(plant)])
    first, last = parse_seeds(seeds)
    memory_bytes = option("--memory", memory, parse_size) if memory else 0
    timeout_s = option("--run-limit", run_limit, parse_positive_duration) / 1e6
    sources = [source_of(name, overrides or (), devices) for name in dict.fromkeys(scenarios)]
    name = sources[0].name if len(sources) == 1 else "scenarios"
    about = {"scenarios": [source.name for source in sources], "seeds": f"{first}..{last}", "swarm": swarm}
    order = Order(
        cases=[Case(source, seed, swarm, plant) for seed in range(first, last + 1) for source in sources],
        required=() if plant else tuple(required_of(sources)),
        wanted=Wanted(twice, stop_after),
        workers=Workers(jobs, cluster, memory_bytes, timeout_s),
        directory=out or place_for(f"{name}-sweep", first),
        about={**about, "devices": devices, "plant": plant, "cluster": cluster},
    )
    raise typer.Exit(carry_out(order, as_json=as_json, quiet=quiet))


@dataclass(frozen=True, slots=True)
class Workers:
    """Where runs happen. `jobs` None: one for each core; `memory_bytes`: of one process, 0: no limit; `tasks_max`: runs
    of one process, 0: it stays, None: as many as a sweep has."""

    jobs: int | None
    cluster: str
    memory_bytes: int
    timeout_s: float
    tasks_max: int | None = None

    def opened(self) -> AbstractContextManager[Executor]:
        from fleet.sweep.pool import TASKS_PER_WORKER_MAX, cores, opened

        jobs = self.jobs or cores()
        tasks_max = TASKS_PER_WORKER_MAX if self.tasks_max is None else self.tasks_max
        return opened(jobs, self.cluster, memory_bytes=self.memory_bytes, timeout_s=self.timeout_s, tasks_max=tasks_max)


@dataclass(frozen=True, slots=True)
class Order:
    """A sweep as it was asked for, made of what was typed."""

    cases: list[Case]
    required: tuple[str, ...]
    wanted: Wanted
    workers: Workers
    directory: Path
    about: dict[str, Any]


def place_for(name: str, seed: int) -> Path:
    from reports.rundir import default_directory

    return default_directory(Path("runs"), name, seed, datetime.now(UTC))


def carry_out(order: Order, *, as_json: bool, quiet: bool) -> int:
    """Runs it, writes the directory, shows the result; returns the exit code."""
    from fleet.commands.sweep_output import show
    from fleet.sweep import directory as kept
    from reports.rundir import RunDirError, check_out

    where = order.directory
    try:
        check_out(where)
    except RunDirError as error:
        typer.echo(str(error), err=True)
        return EXIT_INPUT
    try:
        result, workers = perform(order, quiet=quiet)
        kept.write(where, result, {**order.about, "jobs": workers})
    except (RunDirError, OSError) as error:
        typer.echo(f"{where}: {error}", err=True)
        return EXIT_HARNESS
    with cut_short_at_will():
        if as_json:
            typer.echo((where / "summary.json").read_text("utf-8"))
        elif not quiet:
            show(result, workers, where)
        typer.echo(str(where))
    return result.exit_code()


def perform(order: Order, *, quiet: bool) -> tuple[Sweep, int]:
    """Runs it, keeps what failed; the result, and how many runs went on at once."""
    from fleet.commands.interrupt import interruptible
    from fleet.commands.progress import ProgressLine
    from fleet.commands.sweep_output import describe
    from fleet.sweep import directory as kept
    from fleet.sweep.sweep import sweep as run_all

    def keep(failures: Failures, outcome: Outcome) -> None:
        kept.keep(order.directory, failures, outcome)
        if len(failures.runs) == 1 and not quiet:
            typer.echo(f"{outcome.scenario} seed {outcome.seed}: {failures.kind}", err=True)

    started = time.monotonic()
    with (
        order.workers.opened() as pool,
        interruptible() as interrupt,
        ProgressLine(quiet, describe=describe) as line,
    ):

        def progress(so_far: Sweep, finished: int) -> bool:
            line(lambda: (so_far, finished))
            return interrupt.asked

        result = run_all(
            pool, order.cases, order.wanted, required=order.required, on_failure=keep, on_progress=progress
        )
        result.wall_s = time.monotonic() - started
        return result, pool.workers


def parse_seeds(text: str) -> tuple[int, int]:
    """`1..500` or `7`. Raises InputError."""
    match = _SEEDS.fullmatch(text.strip())
    hint = "such as --seeds 1..500"
    if match is None:
        raise InputError([Problem("--seeds", 0, 0, text, "expected A..B", hint)])
    first = int(match[1])
    last = int(match[2]) if match[2] is not None else first
    if last < first:
        raise InputError([Problem("--seeds", 0, 0, text, "the last seed comes before the first", hint)])
    if last - first >= SEEDS_MAX:
        raise InputError([Problem("--seeds", 0, 0, text, f"more than {SEEDS_MAX:,} seeds", hint)])
    return first, last


def option(name: str, text: str, parse: Any) -> int:
    try:
        value: int = parse(text)
    except ValueError as error:
        raise InputError([Problem(name, 0, 0, text, str(error))]) from None
    return value
