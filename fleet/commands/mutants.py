"""`fleet mutants`: shows that the checks can fail: each planted bug is run until one notices, with a table of seeds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from agent.protocol.errors import InputError, Problem
from fleet.commands.common import EXIT_HARNESS, EXIT_INTERRUPTED, cut_short_at_will

if TYPE_CHECKING:
    from fleet.sweep.mutants import CaseOf, Caught

ORDER = 28


def register(app: typer.Typer) -> None:
    app.command("mutants")(mutants)


def mutants(
    seeds: Annotated[
        int, typer.Option("--seeds", "--budget", metavar="N", min=1, help="Seeds for each, before it has survived.")
    ] = 20,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Only this planted bug. Repeatable.")
    ] = None,
    mixes: Annotated[
        list[str] | None,
        typer.Option(
            "--mix",
            metavar="own|fixed|swarm",
            help="own: the scenario where it is caught soonest; fixed: all that ship, in turn; swarm: these, and each "
            "seed draws what goes wrong. Repeatable, for a table that compares.",
        ),
    ] = None,
    scenarios: Annotated[
        list[str] | None,
        typer.Option(
            "--scenario", metavar="NAME", help="For fixed and swarm: this one, not all that ship. Repeatable."
        ),
    ] = None,
    devices: Annotated[int, typer.Option("--devices", metavar="N", min=1, help="In each run.")] = 20,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, help="Runs at once; default: one for each core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the last line.")] = False,
) -> None:
    """Run every planted bug until a check notices, and print how many seeds that took and which check it was.

    Exits with 0 when all are caught, 1 when one survives, 2 on bad input, 4 when the harness failed in a run, 130 when
    interrupted.
    """
    from fleet.plants import PLANTS, unknown_plant
    from fleet.sweep.mutants import MIXES, Mixes

    unknown = [unknown_plant(name) for name in only or () if name not in PLANTS]
    chosen = list(dict.fromkeys(mixes or ("own",)))
    hint = f"one of {', '.join(MIXES)}"
    unknown += [Problem("--mix", 0, 0, mix, "no such mix", hint) for mix in chosen if mix not in MIXES]
    if unknown:
        raise InputError(unknown)
    case_of = Mixes(devices, scenarios or ()).case
    complete, found = run_all(list(only or PLANTS), chosen, case_of, seeds, jobs, quiet=quiet or as_json)
    table = by_plant(found)
    with cut_short_at_will():
        if as_json:
            typer.echo(json.dumps(as_values(found, chosen), indent=2))
        else:
            show(table, chosen, found, quiet=quiet)
    if not complete:
        raise typer.Exit(EXIT_INTERRUPTED)
    if any(row.errors for row in found):
        raise typer.Exit(EXIT_HARNESS)
    raise typer.Exit(0 if all(any(row.seeds for row in one.values()) for one in table.values()) else 1)


def run_all(
    plants: Sequence[str], mixes: Sequence[str], case_of: CaseOf, seeds: int, jobs: int | None, *, quiet: bool
) -> tuple[bool, list[Caught]]:
    """Whether it came to its end, and what was found."""
    from fleet.commands.interrupt import interruptible
    from fleet.commands.progress import ProgressLine
    from fleet.sweep.mutants import hunt
    from fleet.sweep.pool import cores, opened

    found: list[Caught] = []
    wanted = len(plants) * len(mixes)
    started = time.monotonic()

    def describe(finished: int, elapsed_s: float) -> str:
        return f"{len(found)} of {wanted} done, {finished} runs, {elapsed_s:.0f} s"

    with opened(jobs or cores()) as pool, interruptible() as interrupt, ProgressLine(quiet, describe=describe) as line:

        def tick(finished: int) -> bool:
            line(lambda: finished)
            return interrupt.asked

        for row in hunt(pool, plants, mixes, case_of, seeds, tick):
            found.append(row)
        if not quiet:
            typer.echo(f"{wanted} hunts, {time.monotonic() - started:.0f} s with {pool.workers} at once", err=True)
    return len(found) == wanted, found


def by_plant(found: Sequence[Caught]) -> dict[str, dict[str, Caught]]:
    """plant -> mix -> what became of it, in order of name."""
    table: dict[str, dict[str, Caught]] = {}
    for row in sorted(found, key=lambda one: one.plant):
        table.setdefault(row.plant, {})[row.mix] = row
    return table


def as_values(found: Sequence[Caught], mixes: Sequence[str]) -> dict[str, Any]:
    from fleet.sweep.mutants import in_numbers

    rows = msgspec.to_builtins(sorted(found, key=lambda row: (row.plant, row.mix)))
    return {"plants": rows, "mixes": {mix: in_numbers([row for row in found if row.mix == mix]) for mix in mixes}}


def show(table: dict[str, dict[str, Caught]], mixes: Sequence[str], found: Sequence[Caught], *, quiet: bool) -> None:
    """One line for each plant; with several mixes, the seeds of each beside each other."""
    from fleet.sweep.mutants import in_numbers

    width = max(map(len, table), default=0)
    if not quiet:
        typer.echo(f"{'PLANTED BUG':{width}}  " + "  ".join(f"{mix.upper():>8}" for mix in mixes) + "  CAUGHT BY")
        for name, one in table.items():
            cells = [str(one[mix].seeds or "survives") if mix in one else "-" for mix in mixes]
            caught = next((row for row in one.values() if row.seeds), None)
            checks = "" if caught is None else ", ".join(caught.checks) + ("" if caught.expected else " (unexpected)")
            typer.echo(f"{name:{width}}  " + "  ".join(f"{cell:>8}" for cell in cells) + f"  {checks}")
            for row in one.values():
                for error in row.errors:
                    typer.echo(f"   harness error in {row.mix}: {error.rstrip().splitlines()[-1]}")
    for mix in mixes:
        n = in_numbers([row for row in found if row.mix == mix])
        typer.echo(
            f"{mix}: {n['caught']} caught, {n['survive']} survive; seeds: median {n['seeds_median']:g}, "
            f"most {n['seeds_most']}, {n['seeds_in_all']} in all; {n['cpu_s']:,.0f} s of CPU"
        )
