"""`fleet soak`: random scenarios and seeds until time is up; what failed before first; the harness itself watched."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agent.protocol.errors import InputError, Problem
from fleet.commands.common import EXIT_HARNESS, cut_short_at_will
from fleet.commands.sweep import Workers, option

if TYPE_CHECKING:
    from fleet.soak.draws import Draws
    from fleet.soak.night import Called, Night
    from fleet.sweep.attempt import Outcome
    from fleet.sweep.sweep import Failures

ORDER = 30
OUT: Final = Path("runs/soak")
CORPUS: Final = "corpus"


def register(app: typer.Typer) -> None:
    app.command("soak")(soak)


def soak(
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="How long to go on: 10m, 8h.")] = "8h",
    scenarios: Annotated[
        Path | None,
        typer.Option(
            "--scenarios", metavar="DIR", help="Draw from the *.yaml of this directory; default: all shipped."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Corpus, history, nights: the same directory each night.")
    ] = OUT,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, help="Runs at once; default: one for each core.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", min=0, help="Of the night: what it draws; default: the time.")
    ] = None,
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="Address space of one process: 4gb; default: any.")
    ] = "",
    run_limit: Annotated[
        str, typer.Option("--run-limit", metavar="TIME", help="A run that takes longer is ended, and is an error.")
    ] = "30m",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the night's summary.json instead of the result.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the last line.")] = False,
) -> None:
    """Run random scenarios and seeds until time is up, night after night, and keep what fails.

    First come the plans that failed before, kept as files, one for each kind of failure; one that no longer fails goes
    to fixed/ and is tried again every seventh night. Then a planted bug, another one each night, which must be found.
    Then random runs, as they are written and as a swarm, some of them twice, and between them always the same one, by
    which the memory and the speed of the harness are watched. The last line on stdout is the night's directory; the
    trend over the nights is in trend.txt, trend.svg and history.jsonl of --out. Ctrl-C ends the night with its report.

    Exits with 0 passed, 1 failed (also an old plan that still does), 2 bad input, 3 unknown, 4 the harness failed: an
    error in a run, two runs that differ, a canary that was not found, memory or speed that drifts, 130 interrupted.
    """
    from fleet.scenario.units import parse_positive_duration, parse_size
    from fleet.soak.draws import Draws, names_in

    seconds = option("--for", length, parse_positive_duration) / 1e6
    memory_bytes = option("--memory", memory, parse_size) if memory else 0
    timeout_s = option("--run-limit", run_limit, parse_positive_duration) / 1e6
    now = datetime.now(UTC)
    chosen = seed if seed is not None else int(now.timestamp())
    order = Order(
        draws=Draws(names_in(scenarios), chosen),
        seconds=seconds,
        workers=Workers(jobs, "", memory_bytes, timeout_s, tasks_max=0),
        out=out,
        seed=chosen,
        now=now,
    )
    raise typer.Exit(carry_out(order, as_json=as_json, quiet=quiet))


@dataclass(frozen=True, slots=True)
class Order:
    """A night as it was asked for."""

    draws: Draws
    seconds: float
    workers: Workers
    out: Path
    seed: int
    now: datetime


def carry_out(order: Order, *, as_json: bool, quiet: bool) -> int:
    """The night, its directory, the history, what is shown; returns the exit code."""
    from agent.protocol.version import __version__
    from fleet.probes import PROBES
    from fleet.soak import records
    from fleet.soak.corpus import Corpus
    from fleet.soak.night import Called
    from fleet.sweep import directory as kept
    from reports import nights
    from reports.rundir import RunDirError, default_directory

    out = order.out
    try:
        rows = nights.read_history(out)
        where = default_directory(out / "nights", "night", order.seed, order.now)
        where.mkdir(parents=True)
    except OSError as error:
        raise InputError([Problem("--out", 0, 0, str(out), f"cannot be used: {error.strerror}")]) from None
    number = rows[-1].night + 1 if rows else 1
    called = Called(number, order.seed, f"{order.now:%Y-%m-%dT%H:%M:%SZ}", __version__)
    try:
        night, jobs = perform(order, called, where, quiet=quiet)
        rows.append(records.row(night, jobs, Corpus(out / CORPUS)))
        kept.write(where, night.sweep, records.about(night, jobs), records.more(night))
        nights.append(out, rows[-1])
        trend = nights.write_trend(out, rows, PROBES)
    except (RunDirError, OSError) as error:
        typer.echo(f"{where}: {error}", err=True)
        return EXIT_HARNESS
    with cut_short_at_will():
        if as_json:
            typer.echo((where / "summary.json").read_text("utf-8"))
        elif not quiet:
            show(night, jobs, where)
            typer.echo("\n" + "\n".join(trend))
        typer.echo(str(where))
    return night.exit_code()


def perform(order: Order, called: Called, where: Path, *, quiet: bool) -> tuple[Night, int]:
    """Runs it and keeps what fails; the night, and how many runs went on at once."""
    from fleet.commands.interrupt import interruptible
    from fleet.commands.progress import ProgressLine
    from fleet.soak.corpus import Corpus
    from fleet.soak.draws import Budget
    from fleet.soak.night import Soak
    from fleet.sweep import directory as kept

    def keep(failures: Failures, outcome: Outcome) -> None:
        kept.keep(where, failures, outcome)
        if len(failures.runs) == 1 and not quiet:
            typer.echo(f"{outcome.scenario} seed {outcome.seed}: {failures.kind}", err=True)

    with (
        order.workers.opened() as pool,
        interruptible() as interrupt,
        ProgressLine(quiet, describe=describe) as line,
    ):

        def progress(night: Night, finished: int) -> bool:
            line(lambda: (night, finished, order.seconds))
            return interrupt.asked

        budget = Budget(order.seconds, pool.workers)
        corpus = Corpus(order.out / CORPUS)
        work = Soak(pool, order.draws, corpus, budget, time.monotonic, keep, progress)
        return work.night(called), pool.workers


def describe(state: tuple[Night, int, float], elapsed_s: float) -> str:
    """At most 100 columns."""
    night, finished, seconds = state
    bad = f", {night.sweep.bad} BAD of {len(night.sweep.failures)} kinds" if night.sweep.bad else ""
    if night.phase == "corpus":
        return f"plans that failed before: {finished} tried again{bad}"
    if night.phase == "canary":
        return f"canary {night.canary_plant}: {finished} runs{bad}"
    return f"{night.sweep.runs:,} runs, {elapsed_s / 60:.0f} of {seconds / 60:.0f} min{bad}"


def show(night: Night, jobs: int, where: Path) -> None:
    """For people: what the harness did, then what the runs say."""
    from fleet.commands.sweep_output import show as show_runs

    news, canary = night.news, night.canary
    show_runs(night.sweep, jobs, where)
    typer.echo(
        f"corpus: {news.retried} tried again, {len(news.failing)} still fail, {len(news.fixed)} fixed, "
        f"{len(news.returned)} came back, {len(news.new)} new"
    )
    for title, kinds in (("fixed", news.fixed), ("came back", news.returned), ("new", news.new)):
        for kind in kinds:
            typer.echo(f"   {title}: {kind}")
    for folder in news.unreadable:
        typer.echo(f"   cannot be read by this release, set aside: {folder}")
    if canary is not None and canary.seeds:
        typer.echo(f"canary: {night.canary_plant} found by {', '.join(canary.checks)} in {canary.seeds} runs")
    drift = night.drift
    typer.echo(
        f"harness: {drift.status}, {drift.detail}; {drift.rss_first_mb:.0f} then {drift.rss_last_mb:.0f} MB, "
        f"{drift.events_per_s_first:,.0f} then {drift.events_per_s_last:,.0f} events/s, {drift.samples} samples"
    )
    for problem in night.harness_problems():
        typer.echo(f"✗ {problem}")
