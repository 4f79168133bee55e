"""`fleet capacity`: what a scenario's fleet needs of the cloud at several sizes, and what breaks first."""

from __future__ import annotations

import json
import re
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agent.protocol.errors import InputError, Problem
from fleet.commands.common import EXIT_INPUT, EXIT_INTERRUPTED, cut_short_at_will
from fleet.commands.interrupt import interruptible
from fleet.native.start import prepare

if TYPE_CHECKING:
    from fleet.capacity.study import Study, Wanted
    from reports.capacity import Capacity

ORDER = 25
SIMULATE_UP_TO: Final = 2_000
SIZES_MAX: Final = 6
DEVICES_MAX: Final = 10_000_000


def register(app: typer.Typer) -> None:
    app.command("capacity")(capacity)


def capacity(
    scenario: Annotated[str, typer.Argument(help="A file, or the name of a shipped scenario.", metavar="SCENARIO")],
    devices: Annotated[
        str, typer.Option("--devices", metavar="N,N,...", help="Sizes of the fleet, at most six.")
    ] = "1000,10000,100000,1000000",
    simulate_up_to: Annotated[
        int,
        typer.Option("--simulate-up-to", metavar="N", min=1, help="Larger sizes are extrapolated. Takes time, memory."),
    ] = SIMULATE_UP_TO,
    preset: Annotated[
        str, typer.Option("--preset", metavar="NAME", help="Quotas; default: the scenario's, else aws-iot-default.")
    ] = "",
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", min=0, help="Another seed than the scenario's.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set duration=10m. Repeatable."),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search/--no-search", help="Look for back-off settings that would help.")
    ] = True,
    parts: Annotated[
        str,
        typer.Option("--parts", metavar="N,N,...", help="Devices of the parts that tell of larger sizes."),
    ] = "",
    measure: Annotated[
        str, typer.Option("--measure", metavar="N,...", help="Sizes to extrapolate and to simulate: told, and seen.")
    ] = "",
    price: Annotated[
        list[str] | None,
        typer.Option("--price", metavar="ITEM=DOLLARS", help="Your own price of an item of the bill. Repeatable."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, help="Processes that simulate at once.")] = 1,
    runs: Annotated[
        Path | None, typer.Option("--runs", metavar="DIR", help="Keep each run there, and take those that are there.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to write; default: in runs/.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print capacity.json instead of tables.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the last line.")] = False,
) -> None:
    """Tell what a fleet needs of the cloud: load, quotas reached, recovery after an outage, cost, what breaks first.

    Sizes up to --simulate-up-to are simulated, larger ones extrapolated, with the error at the largest simulated one,
    or at a larger one that --measure names.
    Writes capacity.json, capacity.csv and capacity.html; the last line on stdout is their directory."""
    prepare()
    from fleet.capacity.study import Wanted

    sizes, measured = parse_sizes(devices), parse_sizes(measure, "--measure")
    wanted = Wanted(
        scenario,
        tuple(sorted({*sizes, *measured})),
        simulate_up_to,
        seed,
        preset,
        tuple(overrides or ()),
        parse_sizes(parts, "--parts"),
        measured,
        parse_prices(price or []),
    )

    plan = made(wanted, runs, jobs, search=search, quiet=quiet)
    plan.reproduce = command(wanted, devices, search)
    directory = out or Path("runs") / f"capacity-{plan.scenario}-s{plan.seed}-{datetime.now(UTC):%Y%m%dT%H%M%S}Z"
    write(plan, directory)
    show(plan, directory, as_json=as_json, quiet=quiet)


def made(wanted: Wanted, runs: Path | None, jobs: int, *, search: bool, quiet: bool) -> Capacity:
    """Raises InputError, and Exit when somebody interrupts it."""
    from fleet.capacity.runs import Stopped
    from fleet.capacity.study import Study

    def step(words: str) -> None:
        if not quiet:
            typer.echo(f"simulating {words}", err=True)

    with interruptible() as interrupt:
        study = Study(wanted, step, lambda: interrupt.asked, runs, jobs)
        check(study)
        try:
            return studied(study, search=search)
        except Stopped:
            typer.echo("interrupted: nothing was written", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None


def parse_sizes(text: str, option: str = "--devices") -> tuple[int, ...]:
    """Rising, each once; none of an option that was not given. Raises InputError."""
    if not text and option != "--devices":
        return ()
    hint = f"such as {option} 1000,10000,100000"
    sizes = set()
    for part in text.split(","):
        plain = part.strip().replace("_", "")
        if not plain.isdecimal() or not 0 < int(plain) <= DEVICES_MAX:
            message = f"expected whole numbers from 1 to {DEVICES_MAX:,}, found {part.strip()!r}"
            raise InputError([Problem(option, 0, 0, text, message, hint)])
        sizes.add(int(plain))
    if len(sizes) > SIZES_MAX:
        raise InputError([Problem(option, 0, 0, text, f"{len(sizes)} sizes, at most {SIZES_MAX}", hint)])
    return tuple(sorted(sizes))


def parse_prices(texts: list[str]) -> tuple[tuple[str, str], ...]:
    """(item, dollars) of each. Raises InputError."""
    found = {}
    for text in texts:
        name, _, dollars = text.partition("=")
        if not re.fullmatch(r"\d{1,9}(\.\d{1,12})?", dollars):
            raise InputError([Problem("--price", 0, 0, text, f"expected dollars, found {dollars!r}", f"{name}=0.25")])
        found[name] = dollars
    return tuple(sorted(found.items()))


def check(study: Study) -> None:
    """Whatever can be wrong is said before anything is run. Raises InputError."""
    from reports.cost import prices_of

    wanted = study.wanted
    least = study.least()
    given = [("--devices", wanted.sizes[0]), ("--simulate-up-to", wanted.simulate_up_to)]
    given += [("--parts", devices) for devices in wanted.parts[:1]]
    for option, size in given:
        if size < least:
            message = f"fewer devices than groups ({least}) of the scenario"
            raise InputError([Problem(option, 0, 0, str(size), message, "each group keeps at least one device")])
    if wanted.parts and wanted.parts[0] >= wanted.sizes[-1]:
        message = f"no part is smaller than the largest size, {wanted.sizes[-1]:,}"
        raise InputError([Problem("--parts", 0, 0, str(wanted.parts[0]), message, "parts are parts of a fleet")])
    plan = study.plan(max(least, min(wanted.simulate_up_to, wanted.sizes[0])))
    items = prices_of("" if plan.quotas is None else plan.quotas.preset)
    for name, dollars in wanted.prices:
        if name not in items:
            hint = f"its items are {', '.join(items)}"
            raise InputError([Problem("--price", 0, 0, f"{name}={dollars}", f"no item {name!r} in this bill", hint)])


def studied(study: Study, *, search: bool) -> Capacity:
    """Raises fleet.capacity.runs.Stopped."""
    from fleet.capacity.search import searched
    from fleet.capacity.told import told

    study.run_all()
    plan = told(study)
    if search and plan.floor_s:
        plan.back_offs = searched(study, study.wanted.sizes[-1], plan.floor_s, study.least())
    return plan


def command(wanted: Wanted, devices: str, search: bool) -> str:
    """What to type to get the same plan."""
    parts = ["fleet", "capacity", wanted.scenario, "--devices", devices]
    parts += ["--simulate-up-to", str(wanted.simulate_up_to)]
    for option, sizes in (("--parts", wanted.parts), ("--measure", wanted.measured)):
        parts += [option, ",".join(map(str, sizes))] if sizes else []
    for name, dollars in wanted.prices:
        parts += ["--price", f"{name}={dollars}"]
    parts += ["--preset", wanted.preset] if wanted.preset else []
    parts += ["--seed", str(wanted.seed)] if wanted.seed is not None else []
    for change in wanted.changes:
        parts += ["--set", change]
    return shlex.join(parts if search else [*parts, "--no-search"])


def write(plan: Capacity, directory: Path) -> None:
    """The three files."""
    import msgspec

    from reports.capacity_html import render
    from reports.capacity_text import capacity_csv

    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.joinpath("capacity.json").write_bytes(
            msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n"
        )
        directory.joinpath("capacity.csv").write_text(capacity_csv(plan), encoding="utf-8")
        directory.joinpath("capacity.html").write_text(render(plan), encoding="utf-8")
    except OSError as error:
        typer.echo(f"{directory}: cannot be written: {error.strerror}", err=True)
        raise typer.Exit(EXIT_INPUT) from None


def show(plan: Capacity, directory: Path, *, as_json: bool, quiet: bool) -> None:
    import msgspec

    from reports.capacity_text import capacity_lines
    from reports.terminal import print_lines

    with cut_short_at_will():
        if as_json:
            typer.echo(json.dumps(json.loads(msgspec.json.encode(plan)), indent=2))
        elif not quiet:
            print_lines(capacity_lines(plan), sys.stdout)
        typer.echo(str(directory))
