"""The scenarios and schemas that come with Fleet: found beside the packages, in a checkout and in a wheel alike.

Reads only the directory `scenarios/`. Used by fleet.scenario.load and by `fleet list` and `fleet init`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2] / "scenarios"
SCHEMAS: Final = ROOT / "schemas"


def scenario_paths() -> dict[str, Path]:
    """Name -> file, in order of name."""
    return {path.stem: path for path in sorted(ROOT.glob("*.yaml"))}


def schema_path(name: str) -> Path | None:
    """The shipped schema `fleet.json5`, also as `schemas/fleet.json5`."""
    plain = name.removeprefix("schemas/")
    path = SCHEMAS / plain
    return path if Path(plain).name == plain and path.is_file() else None


def header(path: Path) -> str:
    """The comment at the head of a scenario: what it proves."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines).strip()
