"""What the documents say of the source as a whole: rooms and modules, import rules, checks, planted bugs, streams.

Reads files of this checkout and the registries of the code; runs nothing. Called by docs.generate.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from docs.markdown import code, sentence, table
from fleet.oracle import statements
from fleet.plants import PLANTS
from fleet.scenario.build import _CHECKS_OF_FAULTS, CHECKS_OF_COMMANDS
from fleet.scenario.expect import ALWAYS_REQUIRED

ROOT: Final = Path(__file__).resolve().parent.parent
ROOMS: Final = ("agent", "cloud", "fleet", "reports")
# IEEE 754 fixes these to the last bit; of all others of `math` a library may round the last bit as it likes.
EXACT: Final = frozenset(("fsum", "floor", "ceil", "sqrt", "inf", "pi", "isfinite", "trunc"))


def _sources(folder: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def modules() -> str:
    """Every module with the first sentence that it says of itself."""
    parts = []
    for room in ROOMS:
        rows = []
        for path, tree in _sources(room):
            text = ast.get_docstring(tree)
            if text and not path.endswith("/__init__.py"):
                rows.append([f"[{path.partition('/')[2]}](../{path})", sentence(text)])
        parts.append(f"### {room}/\n\n" + table(["module", "what it is for"], rows))
    return "\n\n".join(parts)


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def import_rules() -> str:
    """The contracts that the linter keeps."""
    rows = []
    for contract in _project()["tool"]["importlinter"]["contracts"]:
        source = ", ".join(code(name) for name in contract["source_modules"])
        forbidden = ", ".join(code(name) for name in contract["forbidden_modules"])
        ignored = contract.get("ignore_imports", [])
        allowed = ", ".join(code(entry.partition(" -> ")[2]) for entry in ignored if not entry.endswith(".**"))
        rows.append([contract["name"], source, forbidden + (f" but {allowed}" if allowed else "")])
    return table(["rule", "imports by", "forbidden"], rows)


def installs() -> str:
    """What each extra brings from outside."""
    project = _project()["project"]
    extras = {"(base)": project["dependencies"], **project["optional-dependencies"]}
    rows = [
        [code(extra), ", ".join(code(line) for line in lines) or "nothing more"]
        for extra, lines in extras.items()
        if extra != "dev"
    ]
    return table(["extra", "brings"], rows)


def checks() -> str:
    """The statements of all checks."""
    return table(["check", "what must hold"], [[code(name), text] for name, text in statements().items()])


def required_checks() -> str:
    """What a scenario requires that names no checks."""
    rows = [["any", ", ".join(code(name) for name in ALWAYS_REQUIRED)]]
    rows += [[code(kind), ", ".join(code(name) for name in names)] for kind, names in _CHECKS_OF_FAULTS.items()]
    rows.append([code("commands"), ", ".join(code(name) for name in CHECKS_OF_COMMANDS)])
    return table(["a scenario with", "requires"], rows)


def plants() -> str:
    """The planted bugs, each with the scenario that shows it and the checks that may catch it there."""
    rows = [
        [code(plant.name), plant.where, plant.statement, code(plant.scenario), ", ".join(map(code, plant.caught_by))]
        for plant in PLANTS.values()
    ]
    return table(["plant", "in the", "what it does", "shown by", "caught by"], rows)


def streams() -> str:
    """Every place that makes a stream of random numbers, with the expressions that name it."""
    rows = []
    for room in ROOMS:
        for path, tree in _sources(room):
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "rng":
                    _, entity, purpose = node.args
                    rows.append([code(path), code(ast.unparse(entity)), code(ast.unparse(purpose))])
    return table(["module", "entity", "purpose"], rows)


def inexact_functions() -> str:
    """Uses of functions whose last bit is the mathematical library's, in what a seed must repeat."""
    rows = []
    for room in ("agent", "cloud", "fleet"):
        for path, tree in _sources(room):
            names = {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "math"
            }
            inexact = sorted(names - EXACT)
            if inexact:
                rows.append([code(path), ", ".join(code(f"math.{name}") for name in inexact)])
    return table(["module", "functions"], rows)
