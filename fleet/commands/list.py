"""`fleet list`: the scenarios that ship, what each proves, and the link profiles. Runs nothing."""

from __future__ import annotations

import json
import textwrap
from typing import Annotated

import typer

ORDER = 40


def register(app: typer.Typer) -> None:
    app.command("list")(list_scenarios)


def list_scenarios(
    links: Annotated[bool, typer.Option("--links", help="List the link profiles instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the scenarios that ship, and what each proves."""
    if links:
        _links(as_json)
        return
    from fleet.scenario.load import load
    from fleet.scenario.shipped import header, scenario_paths
    from fleet.scenario.units import format_duration

    scenarios = [(load(path), path) for path in scenario_paths().values()]
    if as_json:
        values = [
            {
                "name": scenario.name,
                "path": str(path),
                "description": scenario.description,
                "proves": header(path),
                "devices": scenario.device_count,
                "duration_s": scenario.duration_us / 1e6,
                "faults": [fault.name or fault.kind for fault in scenario.faults],
            }
            for scenario, path in scenarios
        ]
        typer.echo(json.dumps(values, indent=2))
        return
    for scenario, path in scenarios:
        size = f"{scenario.device_count} devices, {format_duration(scenario.duration_us)}"
        typer.echo(f"{typer.style(scenario.name, bold=True)}  ({size})")
        typer.echo(textwrap.fill(header(path), 96, initial_indent="    ", subsequent_indent="    "))
    typer.echo("\nRun one with `fleet run NAME`; `fleet init DIR` writes one to start from.")


def _links(as_json: bool) -> None:
    from fleet.scenario.presets import LINKS

    if as_json:
        typer.echo(json.dumps(LINKS, indent=2))
        return
    for name, link in LINKS.items():
        offline = link.get("offline")
        parts = [f"{key} {value}" for key, value in link.items() if key != "offline"]
        if offline:
            parts.append(f"offline every {offline['every']}, median {offline['median']}, p99 {offline['p99']}")
        typer.echo(f"{name:<17} {', '.join(parts)}")
