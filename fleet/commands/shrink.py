"""`fleet shrink`: the smallest plan that still fails in the same way, as a scenario, a picture and a command; and from
when on a failure could not be avoided."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet.commands.common import EXIT_HARNESS, EXIT_INPUT, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from fleet.shrink.target import Target
    from fleet.sweep.pool import Executor

ORDER = 26


def register(app: typer.Typer) -> None:
    app.command("shrink")(shrink)


def shrink(
    run: Annotated[Path, typer.Argument(help="A run directory, or a plan.json.", metavar="RUN_DIR|PLAN")],
    for_: Annotated[str, typer.Option("--for", metavar="TIME", help="What is smallest by then is the result.")] = "10m",
    budget: Annotated[
        int, typer.Option("--budget", metavar="N", min=1, help="Replays, at most; the same result on any machine.")
    ] = 3000,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, help="Replays at once; default: one for each core.")
    ] = None,
    run_limit: Annotated[
        str, typer.Option("--run-limit", metavar="TIME", help="A replay that takes longer is ended, and is no failure.")
    ] = "5m",
    when: Annotated[
        bool,
        typer.Option("--when", help="Do not shrink; tell from which moment on the failure could not be avoided."),
    ] = False,
    points: Annotated[int, typer.Option("--points", metavar="N", min=2, help="With --when: moments at first.")] = 9,
    runs: Annotated[int, typer.Option("--runs", metavar="N", min=1, help="With --when: runs for each moment.")] = 20,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to; default: beside the plan.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the last line.")] = False,
) -> None:
    """Find the smallest plan that still fails in the same way: the same check, the same shape.

    Drops faults, devices, workloads and time, then makes numbers smaller and rounder; each step is a replay. Writes
    plan.min.json, plan.min.yaml (the same as a scenario) and plan.min.svg (who sent what, until it failed) beside the
    plan; the last line on stdout is the first of them. With --when it writes plan.when.svg instead: the share of runs
    that fail all the same when everything is drawn anew from a moment on.

    Exits with 0 when there is a result, 2 on bad input and when the plan does not fail, 4 when its run is another one
    than was recorded or the harness failed, 130 when interrupted (the smallest so far is kept).
    """
    from fleet.commands.sweep import option
    from fleet.scenario.units import parse_positive_duration
    from fleet.shrink.target import target_of
    from reports.rundir import RunDirError

    limits = Limits(
        option("--for", for_, parse_positive_duration) / 1e6,
        budget,
        jobs,
        option("--run-limit", run_limit, parse_positive_duration) / 1e6,
        points,
        runs,
    )
    try:
        target = target_of(run, out)
    except RunDirError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_INPUT) from None
    raise typer.Exit(carry_out(target, limits, when=when, as_json=as_json, quiet=quiet))


@dataclass(frozen=True, slots=True)
class Limits:
    """What the search may use. `jobs` None: one for each core."""

    for_s: float
    budget: int
    jobs: int | None
    run_limit_s: float
    points: int
    runs: int


def carry_out(target: Target, limits: Limits, *, when: bool, as_json: bool, quiet: bool) -> int:
    """Runs it and shows what came of it; the exit code."""
    from fleet.commands.interrupt import interruptible
    from fleet.commands.progress import ProgressLine
    from fleet.commands.shrink_output import describe
    from fleet.shrink.whole import Interrupted, NothingToShrink, NotTheSame
    from fleet.sweep.pool import cores, opened

    jobs = limits.jobs or cores()
    try:
        with (
            opened(jobs, timeout_s=limits.run_limit_s) as pool,
            interruptible() as interrupt,
            ProgressLine(quiet or as_json, describe=describe) as line,
        ):

            def stopped(told: str) -> bool:
                line(lambda: told)
                return interrupt.asked

            work = _when if when else _shrink
            return work(pool, target, limits, stopped, as_json, quiet)
    except NothingToShrink as error:
        typer.echo(str(error), err=True)
        return EXIT_INPUT
    except NotTheSame as error:
        typer.echo(str(error), err=True)
        return EXIT_HARNESS
    except Interrupted:
        typer.echo("interrupted: there is nothing to keep yet", err=True)
        return EXIT_INTERRUPTED
    except OSError as error:
        typer.echo(f"{target.directory}: {error.strerror or error}; nothing was kept", err=True)
        return EXIT_HARNESS


def _shrink(
    pool: Executor, target: Target, limits: Limits, stopped: Callable[[str], bool], as_json: bool, quiet: bool
) -> int:
    from fleet.commands.shrink_output import Result, progress, show
    from fleet.shrink.explicit import in_words
    from fleet.shrink.shrink import Shrink, size_of
    from fleet.shrink.target import write
    from fleet.shrink.whole import failure_of, shrink, watched

    started = time.monotonic()
    interrupted = False

    def enough(work: Shrink) -> bool:
        nonlocal interrupted
        interrupted = stopped(progress(work, before))
        return interrupted or time.monotonic() - started > limits.for_s

    before = size_of(target.plan)
    failure = failure_of(pool, target.plan, target.trace_hash, lambda: stopped("does it fail, and the same each time?"))
    shrunk = shrink(pool, target.plan, failure, budget=limits.budget, stopped=enough)
    plan_path, yaml_path = target.path("min.json"), target.path("min.yaml")
    write(plan_path, shrunk.plan.encode())
    written = in_words(shrunk.plan, target.path("min.schema.json5").name)
    if written is not None:
        write(yaml_path, written.yaml.encode())
        if written.schema:
            write(target.directory / written.schema, shrunk.plan.schema_text.encode())
    else:
        yaml_path.unlink(missing_ok=True)  # of an earlier shrink
    result = Result(
        shrunk=shrunk,
        before=before,
        after=size_of(shrunk.plan),
        wall_s=time.monotonic() - started,
        jobs=pool.workers,
        yaml=written.yaml if written is not None else "",
        plan_path=plan_path,
        yaml_path=yaml_path if written is not None else None,
        svg_path=target.path("min.svg"),
    )
    write(result.svg_path, result.picture(watched(pool, shrunk).story).encode())
    show(result, as_json=as_json, quiet=quiet)
    return EXIT_INTERRUPTED if interrupted else 0


def _when(
    pool: Executor, target: Target, limits: Limits, stopped: Callable[[str], bool], as_json: bool, quiet: bool
) -> int:
    from fleet.commands.shrink_output import show_when
    from fleet.shrink.target import write
    from fleet.shrink.when import Localised, localise
    from fleet.shrink.whole import Shrunk, failure_of, watched
    from reports.moment import picture

    interrupted = False
    started = time.monotonic()

    def enough(found: Localised, count: int) -> bool:
        nonlocal interrupted
        interrupted = stopped(f"{count:,} runs, {len(found.points)} moments known")
        return interrupted or time.monotonic() - started > limits.for_s

    failure = failure_of(pool, target.plan, target.trace_hash, lambda: stopped("does it fail, and the same each time?"))
    found = localise(
        pool,
        target.plan,
        failure.kind,
        failure.end_us,
        points=limits.points,
        runs=limits.runs,
        early=failure.early,
        stopped=enough,
    )
    story = watched(pool, Shrunk(target.plan, failure, True, 0)).story
    path = target.path("when.svg")
    points = [(point.at_us, point.ratio) for point in found.points]
    write(path, picture(points, found.moment_us, failure.end_us, f"{failure.kind}", target.plan.scenario).encode())
    show_when(target.plan, failure, found, story, path, as_json=as_json, quiet=quiet)
    return EXIT_INTERRUPTED if interrupted else 0
