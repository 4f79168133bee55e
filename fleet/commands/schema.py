"""`fleet schema`: prints the JSON Schema of the scenario format. Reads and writes nothing else."""

from __future__ import annotations

import json

import typer

ORDER = 60


def register(app: typer.Typer) -> None:
    app.command("schema")(schema)


def schema() -> None:
    """Print the JSON Schema (draft-07) of the scenario format, for editors.

    Save it and point your editor at it: with the YAML language server, begin the scenario with

      # yaml-language-server: $schema=scenario.schema.json
    """
    from fleet.scenario.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
