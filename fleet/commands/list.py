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
    rows = [["LINK", "DELAY", "JITTER", "UP", "DOWN", "LOSS", "BURST", "QUEUE", "OFFLINE"]]
    for name, link in LINKS.items():
        delay = f"{link['delay']}, p99 {link['delay_p99']}" if "delay_p99" in link else link["delay"]
        offline = link.get("offline")
        away = f"{offline['median']}, p99 {offline['p99']}, every {offline['every']}" if offline else ""
        rest = [str(link.get(key, "")) for key in ("jitter", "rate_up", "rate_down", "loss", "burst", "queue")]
        rows.append([name, delay, *rest, away])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo(" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    typer.echo("\nUse one with `link: NAME`, or change it: `link: {profile: lte, loss: 3%}`. Rates are in bit/s.")
