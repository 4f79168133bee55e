"""`fleet live`: a scenario in real time, with real agents, relay and broker; same checks, same run directory."""

from __future__ import annotations

import shlex
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.protocol.errors import InputError
from fleet.commands.common import EXIT_HARNESS, EXIT_INPUT, EXIT_INTERRUPTED
from fleet.commands.outcome import keep, show

if TYPE_CHECKING:
    from fleet.live.setup import Asked
    from fleet.scenario.plan import Plan

ORDER = 15
Ca = Annotated[
    str, typer.Option("--ca", metavar="FILE", help="Who signed that broker's certificate; default: the system's.")
]
Cert = Annotated[
    str,
    typer.Option(
        "--cert", metavar="FILE", help="Client certificate for that broker; {device} in the name: each its own."
    ),
]
PrivateKey = Annotated[str, typer.Option("--key", metavar="FILE", help="Its key; likewise.")]


def register(app: typer.Typer) -> None:
    app.command("live")(live)


def live(
    scenario: Annotated[str, typer.Argument(help="A file, or the name of a shipped scenario.", metavar="SCENARIO")],
    devices: Annotated[
        int | None, typer.Option("--devices", metavar="N", help="So many in all; groups keep their proportions.")
    ] = None,
    broker: Annotated[
        str,
        typer.Option(
            "--broker",
            metavar="URL",
            help="A broker that is there, such as mqtt://broker.example:1883; also mqtts, ws, wss.",
        ),
    ] = "",
    ca: Ca = "",
    cert: Cert = "",
    key: PrivateKey = "",
    websocket: Annotated[
        bool, typer.Option("--websocket", help="No broker: devices connect to the relay itself, by WebSocket.")
    ] = False,
    table: Annotated[
        str, typer.Option("--table", metavar="URL", help="An emulator of DynamoDB on this machine; default: moto.")
    ] = "",
    speed: Annotated[
        float, typer.Option("--speed", metavar="X", help="Shortens waits: 20 runs an hour's plan in three minutes.")
    ] = 1.0,
    process_per_device: Annotated[
        bool, typer.Option("--process-per-device", help="Each agent in a process of its own.")
    ] = False,
    attach: Annotated[
        list[str] | None,
        typer.Option("--attach", metavar="DEVICE_ID", help="A device that comes by itself, to be checked. Repeatable."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", min=0, help="Another seed than the scenario's.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set duration=10m. Repeatable."),
    ] = None,
    plant: Annotated[
        str, typer.Option("--plant", metavar="NAME", help="Run all agents with a planted bug, such as echo.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run directory; default: in runs/.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json instead of the summary.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the last line.")] = False,
) -> None:
    """Run one scenario in real time: real agents in processes, a real relay and broker, real faults, the same checks.

    What is not given is started: mosquitto if it is installed, else the relay's own WebSocket; moto's server as the
    table. The plan is simulated too, and the report compares the two. Faults act on nothing but what was started. The
    last line on stdout is the run directory. Exits with 0 passed, 1 failed, 2 bad input, 3 unknown, 4 the harness
    failed, 130 interrupted.
    """
    from fleet.live.setup import Asked

    wanted = Asked(
        broker=broker,
        websocket=websocket,
        table=table,
        speed=speed,
        per_device=process_per_device,
        attach=attach or [],
        ca=ca,
        cert=cert,
        key=key,
    )
    _begin(scenario, devices, seed, overrides or [], plant, wanted, out, as_json=as_json, quiet=quiet)


def _begin(
    scenario: str,
    devices: int | None,
    seed: int | None,
    overrides: list[str],
    plant: str,
    wanted: Asked,
    out: Path | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Looks at all that can be looked at before anything is started."""
    from fleet.live.applied import applied
    from fleet.live.setup import checked
    from fleet.scenario.build import build_plan
    from fleet.scenario.effective import effective_yaml
    from fleet.scenario.load import load
    from reports.rundir import RunDirError, check_out, default_directory

    _check_plant(plant)
    loaded = load(scenario, overrides, devices)
    plan = build_plan(loaded, seed, plant=plant)
    asked, told = checked(wanted, applied(plan)[0])
    directory = out or default_directory(Path("runs"), f"{plan.scenario}-live", plan.seed, datetime.now(UTC))
    try:
        check_out(directory)
    except RunDirError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_INPUT) from None
    if told and not quiet:
        typer.echo(told, err=True)
    reproduce = command(scenario, plan.seed, devices, overrides, plant, wanted)
    _perform(plan, asked, directory, reproduce, effective_yaml(loaded), as_json=as_json, quiet=quiet)


def _check_plant(plant: str) -> None:
    from agent.protocol.errors import Problem
    from fleet.plants import PLANTS, types_with, unknown_plant
    from fleet.world.world import Types

    if not plant:
        return
    if plant not in PLANTS:
        raise InputError([unknown_plant(plant)])
    if types_with(plant).agent == Types().agent:
        hint = f"simulate it: fleet run --plant {plant}"
        raise InputError(
            [Problem("--plant", 0, 0, plant, "a bug of the relay; live, agents alone have planted ones", hint)]
        )


def command(scenario: str, seed: int, devices: int | None, changes: list[str], plant: str, asked: Asked) -> str:
    """What to type to get such a run; without a password."""
    from fleet.live.broker import hidden

    parts = ["fleet", "live", scenario, "--seed", str(seed)]
    parts += ["--devices", str(devices)] if devices is not None else []
    parts += ["--speed", f"{asked.speed:g}"] if asked.speed != 1.0 else []
    parts += ["--broker", hidden(asked.broker)] if asked.broker else []
    for option in ("ca", "cert", "key"):
        parts += [f"--{option}", getattr(asked, option)] if getattr(asked, option) else []
    parts += ["--websocket"] if asked.websocket else []
    parts += ["--table", asked.table] if asked.table else []
    parts += ["--process-per-device"] if asked.per_device else []
    for device in asked.attach:
        parts += ["--attach", device]
    for change in changes:
        parts += ["--set", change]
    parts += ["--plant", plant] if plant else []
    return shlex.join(parts)


def _perform(
    plan: Plan, asked: Asked, directory: Path, reproduce: str, scenario_yaml: str, *, as_json: bool, quiet: bool
) -> None:
    from fleet.commands.interrupt import interruptible
    from fleet.commands.progress import ProgressLine
    from fleet.live.hosts import socket_in
    from fleet.live.result import Interrupted, perform, prepared
    from fleet.live.run import LiveFailed

    with tempfile.TemporaryDirectory(prefix="fleet-live-") as folder, interruptible() as interrupt:
        socket_in(Path(folder))
        try:
            ready = prepared(plan, asked.speed, lambda: interrupt.asked, asked.attach)
            with ProgressLine(quiet) as progress:
                result = perform(
                    ready,
                    asked,
                    Path(folder),
                    reproduce=reproduce,
                    scenario_yaml=scenario_yaml,
                    on_progress=progress,
                    stopped=lambda: interrupt.asked,
                    say=lambda line: typer.echo(line, err=True),
                )
        except Interrupted:
            typer.echo("interrupted before anything was started", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except LiveFailed as error:
            typer.echo(f"the live run failed, nothing was kept: {error}", err=True)
            raise typer.Exit(EXIT_HARNESS) from None
    keep(result, directory)
    show(result, directory, as_json=as_json, quiet=quiet)
