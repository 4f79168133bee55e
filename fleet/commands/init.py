"""`fleet init`: writes a scenario to start from and its schema. Never overwrites a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.protocol.errors import InputError, Problem

ORDER = 50


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(directory: Annotated[Path, typer.Argument(help="Where to; made if it is not there.", metavar="DIR")]) -> None:
    """Write a scenario to start from, with its schema."""
    from fleet.scenario.shipped import ROOT, SCHEMAS

    sources = (ROOT / "starter" / "scenario.yaml", SCHEMAS / "fleet.json5")
    targets = [directory / source.name for source in sources]
    problems = [
        Problem(str(target), 0, 0, "", "exists already", "choose another directory, or move the file away")
        for target in targets
        if target.exists() or target.is_symlink()
    ]
    if problems:
        raise InputError(problems)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for source, target in zip(sources, targets, strict=True):
            with target.open("x", encoding="utf-8") as file:
                file.write(source.read_text(encoding="utf-8"))
    except OSError as error:
        place = str(error.filename or directory)
        raise InputError([Problem(place, 0, 0, "", f"cannot be written: {error.strerror}")]) from None
    for target in targets:
        typer.echo(f"wrote {target}")
    typer.echo(f"next: fleet validate {targets[0]}; fleet run {targets[0]}")
