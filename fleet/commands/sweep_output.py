"""What `fleet sweep` shows: the line of progress, and the result for people. Prints; decides nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from fleet.sweep.sweep import Sweep

SEEDS_SHOWN: Final = 40


def describe(state: tuple[Sweep, int], elapsed_s: float) -> str:
    """At most 100 columns."""
    result, finished = state
    rate = finished / elapsed_s if elapsed_s > 0 else 0.0
    left_s = (result.planned - result.runs) / rate if rate else 0.0
    bad = f", {result.bad} BAD of {len(result.failures)} kinds" if result.bad else ""
    return f"{result.runs:,} of {result.planned:,} runs ({rate:.1f}/s), about {left_s / 60:.0f} min left{bad}"


def show(result: Sweep, workers: int, where: Path) -> None:
    """For people: the verdict, each kind of failure, what was never reached."""
    from fleet.sweep.directory import folder, seeds_by_scenario

    busy = result.run_wall_s / (result.wall_s * workers) if result.wall_s else 0.0
    counts = [f"{result.passed:,} passed"]
    counts += [f"{result.failed:,} failed"] if result.failed else []
    counts += [f"{result.unknown:,} unknown"] if result.unknown else []
    counts += [f"{result.errors:,} harness errors"] if result.errors else []
    typer.echo(f"{result.runs:,} runs: {', '.join(counts)}; {result.doubled:,} ran twice, {result.mismatches} differed")
    typer.echo(
        f"   {result.wall_s:,.0f} s, {workers} at once, {busy:.0%} busy, {result.rss_mb_max:.0f} MB at most each, "
        f"{result.synced:,} updates synced, {result.virtual_s / 86400:,.1f} virtual days"
    )
    for failures in result.failures.values():
        typer.echo(f"\n✗ {failures.kind}")
        for scenario, seeds in seeds_by_scenario(failures).items():
            typer.echo(f"   {scenario}, {seeds_told(seeds)}")
        typer.echo("   " + failures.first.rstrip().splitlines()[-1])
        if failures.also:
            typer.echo(f"   also failed: {', '.join(sorted(failures.also))}")
        typer.echo(f"   {failures.command}")
        typer.echo(f"   {where / folder(failures)}")
    if result.failures:
        typer.echo("")
    if result.lacking:
        typer.echo("required checks that looked at nothing, and in how many of the runs that are unknown for that:")
        typer.echo(f"   {', '.join(f'{name} {runs}' for name, runs in sorted(result.lacking.items()))}")
    never = result.checks_never_evaluated()
    if never:
        typer.echo(f"checks that are required and never looked at anything: {', '.join(never)}")
    missed = result.probes_never_hit()
    if missed:
        typer.echo(f"probes never hit ({len(missed)}): {', '.join(missed)}")


def seeds_told(seeds: list[int]) -> str:
    from fleet.sweep.directory import seeds_in_words

    more = ", …" if len(seeds) > SEEDS_SHOWN else ""
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}: {seeds_in_words(seeds[:SEEDS_SHOWN])}{more}"
