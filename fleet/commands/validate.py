"""`fleet validate`: checks scenarios without running them. Writes nothing; every problem at once, one a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.protocol.errors import InputError
from fleet.commands.common import EXIT_INPUT, show_problems

if TYPE_CHECKING:
    from fleet.scenario.model import Scenario

ORDER = 20


def register(app: typer.Typer) -> None:
    app.command("validate")(validate)


def validate(
    scenarios: Annotated[
        list[str], typer.Argument(help="Files, or names of shipped scenarios.", metavar="SCENARIO...")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set devices.home.count=5. Repeatable."),
    ] = None,
    devices: Annotated[
        int | None, typer.Option("--devices", metavar="N", help="So many in all; groups keep their proportions.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check scenarios without running them.

    Prints every problem as FILE:LINE:COLUMN: KEY: what is wrong (what to do). Exits with 2 if there is one.
    """
    from agent.protocol.listing import problem_values
    from fleet.scenario.load import load

    results: list[dict[str, Any]] = []
    failed = False
    for name in scenarios:
        try:
            scenario = load(name, overrides or (), devices)
        except InputError as error:
            failed = True
            results.append({"file": name, "ok": False, "problems": list(map(problem_values, error.problems))})
            if not as_json:
                show_problems(error.problems, err=False)
            continue
        results.append({"file": name, "ok": True, "problems": [], **_values(scenario)})
        if not as_json:
            typer.echo(_line(name, scenario))
    if as_json:
        typer.echo(json.dumps(results, indent=2))
    if failed:
        raise typer.Exit(EXIT_INPUT)


def _values(scenario: Scenario) -> dict[str, Any]:
    return {
        "name": scenario.name,
        "devices": scenario.device_count,
        "duration_s": scenario.duration_us / 1e6,
        "faults": [fault.name or fault.kind for fault in scenario.faults],
    }


def _line(name: str, scenario: Scenario) -> str:
    from fleet.scenario.units import format_duration

    devices = f"{scenario.device_count} device{'s' if scenario.device_count != 1 else ''}"
    faults = ", ".join(fault.name or fault.kind for fault in scenario.faults) or "no faults"
    return f"{name}: ok: {devices}, {format_duration(scenario.duration_us)}, {faults}"
