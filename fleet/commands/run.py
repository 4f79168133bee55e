"""`fleet run`: one scenario, one seed, one verdict, one run directory. The last line on stdout is the directory."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agent.protocol.errors import InputError
from fleet.commands.common import EXIT_HARNESS, EXIT_INPUT
from fleet.commands.interrupt import interruptible
from fleet.commands.outcome import keep, show
from fleet.native.start import prepare

if TYPE_CHECKING:
    from fleet.backends.opening import Backend
    from fleet.run import Request
    from fleet.scenario.model import Scenario
    from fleet.scenario.plan import Plan
    from reports.result import RunResult

ORDER = 10
TRACE_FILE: Final = "trace.jsonl.gz"


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    scenario: Annotated[str, typer.Argument(help="A file, or the name of a shipped scenario.", metavar="SCENARIO")],
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", min=0, help="Another seed than the scenario's.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option("--devices", metavar="N", help="So many in all; groups keep their proportions.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set duration=10m. Repeatable."),
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="Where the table is: memory, moto or dynamodb.")
    ] = "memory",
    endpoint_url: Annotated[
        str, typer.Option("--endpoint-url", metavar="URL", help="An emulator on this machine, for --backend dynamodb.")
    ] = "",
    yes_aws: Annotated[
        bool, typer.Option("--yes-aws", help="The table is in AWS and costs money (--backend dynamodb, --table).")
    ] = False,
    table: Annotated[
        str, typer.Option("--table", metavar="NAME", help="A table in AWS, made for runs; only with --yes-aws.")
    ] = "",
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Relay workers in the simulated cloud.")
    ] = None,
    plant: Annotated[
        str, typer.Option("--plant", metavar="NAME", help="Switch one planted bug on, such as echo.")
    ] = "",
    swarm: Annotated[
        bool, typer.Option("--swarm", help="The seed draws which faults there are, as in `fleet sweep --swarm`.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run directory; default: in runs/.")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help=f"Write every event to {TRACE_FILE}.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json instead of the summary.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the last line.")] = False,
) -> None:
    """Run one scenario: real agents, real relay, a simulated world, faults, and a verdict.

    The last line on stdout is the run directory. Exits with 0 passed, 1 failed, 2 bad input, 3 unknown, 4 the harness
    failed, 130 interrupted."""
    prepare()
    from fleet.backends.opening import check
    from fleet.plants import PLANTS, unknown_plant
    from fleet.run import Request
    from fleet.scenario.build import build_plan
    from fleet.scenario.effective import effective_yaml
    from reports.rundir import RunDirError, check_out, default_directory

    if plant and plant not in PLANTS:
        raise InputError([unknown_plant(plant)])
    where = check(backend, endpoint_url, table, yes_aws=yes_aws)
    changes = [*(overrides or []), *([f"cloud.workers={workers}"] if workers is not None else [])]
    loaded = loaded_scenario(scenario, changes, devices, seed, swarm)
    plan = build_plan(loaded, seed, plant=plant)
    directory = out or default_directory(Path("runs"), plan.scenario, plan.seed, datetime.now(UTC))
    try:
        check_out(directory)
    except RunDirError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_INPUT) from None
    if where.table:
        _tell_cost(where, plan)
    request = Request(
        command(scenario, plan.seed, devices, changes, plant, where, swarm), effective_yaml(loaded), None, where
    )
    perform(plan, directory, request, trace=trace, as_json=as_json, quiet=quiet)


def loaded_scenario(name: str, changes: list[str], devices: int | None, seed: int | None, swarm: bool) -> Scenario:
    """As it is written, or as the swarm draws it for this seed. Raises InputError."""
    from fleet.scenario.load import load
    from fleet.sweep.case import scenario_of, source_of

    loaded = load(name, changes, devices)
    if not swarm:
        return loaded
    return scenario_of(source_of(name, changes, devices), loaded.seed if seed is None else seed, swarm=True)


def command(
    scenario: str,
    seed: int,
    devices: int | None,
    changes: list[str],
    plant: str,
    backend: Backend,
    swarm: bool = False,
) -> str:
    """What to type to get the same run."""
    parts = ["fleet", "run", scenario, "--seed", str(seed)]
    if devices is not None:
        parts += ["--devices", str(devices)]
    for change in changes:
        parts += ["--set", change]
    parts += ["--swarm"] if swarm else []
    if plant:
        parts += ["--plant", plant]
    if backend.kind != "memory":
        parts += ["--backend", backend.kind]
        parts += ["--endpoint-url", backend.endpoint_url] if backend.endpoint_url else []
        parts += ["--yes-aws", "--table", backend.table] if backend.table else []
    return shlex.join(parts)


def _tell_cost(backend: Backend, plan: Plan) -> None:
    """Of a run in AWS, before anything is written there. The table is looked at first: a refusal costs nothing."""
    from fleet.backends.cost import estimate
    from fleet.backends.opening import look

    place = look(backend, plan)
    typer.echo(f"{place}: {estimate(plan)}", err=True)


def perform(plan: Plan, directory: Path, request: Request, *, trace: bool, as_json: bool, quiet: bool) -> None:
    """Runs, writes the run directory, shows the summary, exits."""
    from fleet.backends.failure import BackendFailed
    from fleet.commands.progress import ProgressLine
    from fleet.native.heap import give_back
    from fleet.run import execute
    from reports.failure import story_of
    from reports.rundir import read_trace

    with tempfile.TemporaryDirectory(prefix="fleet-") as scratch, interruptible() as interrupt:
        traced = Path(scratch) / TRACE_FILE

        def attempt(request: Request) -> RunResult:
            try:
                with ProgressLine(quiet) as progress:
                    return execute(plan, request, progress, lambda: interrupt.asked)
            except BackendFailed as error:
                typer.echo(f"the emulator failed, nothing was kept: {error}", err=True)
                raise typer.Exit(EXIT_HARNESS) from None
            except OSError as error:
                if request.trace_path is None:
                    raise
                typer.echo(f"{traced}: cannot write the trace: {error.strerror}; nothing was kept", err=True)
                raise typer.Exit(EXIT_HARNESS) from None

        tracing = replace(request, trace_path=traced)
        result = attempt(tracing if trace else request)
        if result.summary.verdict == "fail" and not trace and not interrupt.asked and not request.backend.table:
            # A failed run is run again with its trace, so that there is something to look at.
            if not quiet:
                typer.echo(f"failed: running it again to write {TRACE_FILE}", err=True)
            again = attempt(tracing)
            if again.summary.interrupted:
                traced.unlink()  # half a trace of a whole run would mislead
            elif again.summary.trace_hash != result.summary.trace_hash:
                typer.echo(
                    f"the second run of the same plan has trace hash {again.summary.trace_hash}, the first "
                    f"{result.summary.trace_hash}: the harness is not deterministic, please report this",
                    err=True,
                )
                raise typer.Exit(EXIT_HARNESS)
        give_back()  # what the world held: the report needs room of its own
        kept = read_trace(Path(scratch)) if traced.exists() else None
        if traced.exists() and result.violations:
            result.story = story_of(result.violations, read_trace(Path(scratch)))
        keep(result, directory, kept)
    show(result, directory, as_json=as_json, quiet=quiet)
