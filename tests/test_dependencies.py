"""What each room imports, what each extra installs, and what the wheel holds agree. Called by pytest only.

The rooms' imports of each other are import-linter's part (pyproject.toml); this is about packages from outside.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
OWN: Final = ("agent", "cloud", "fleet", "reports", "scenarios", "benchmarks", "docs")
# Distributions whose import has another name.
IMPORTS: Final = {
    "cfn-lint": "cfnlint",
    "fleet-sync": "agent",
    "hdrhistogram": "hdrh",
    "paho-mqtt": "paho",
    "prometheus-client": "prometheus_client",
    "python-ulid": "ulid",
    "ruamel.yaml": "ruamel.yaml",
}
# Room -> the extras that bring what it may import, as design has it; "" is the base install.
ROOMS: Final = {
    "agent": ("",),
    "cloud": ("", "cloud"),
    "fleet": ("", "cloud", "fleet", "moto", "cluster"),
    "reports": ("", "cloud", "fleet", "report"),
    "benchmarks": ("", "cloud", "fleet", "report", "dev"),
    "tests": ("", "cloud", "fleet", "report", "dev"),
}
# Used by command, or by pytest and mypy when they find it: nobody imports these.
TOOLS: Final = ("hatchling", "import-linter", "mypy", "pytest-timeout", "pytest-xdist", "ruff")


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]


def declared(extra: str) -> list[str]:
    """Distributions that an extra itself names."""
    lines = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    return [re.match(r"[\w.-]+", line).group() for line in lines]  # type: ignore[union-attr]


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@cache
def outside(folder: str) -> dict[str, str]:
    """Imported module -> a file that imports it, without the standard library and this project."""
    found: dict[str, str] = {}
    helpers = {path.stem for path in (ROOT / "tests").iterdir() if path.is_dir() or path.suffix == ".py"}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in imported(ast.parse(path.read_text("utf-8"))):
            top = name.split(".")[0]
            if top not in OWN and top not in sys.stdlib_module_names and top not in helpers:
                found.setdefault(name, str(path.relative_to(ROOT)))
    return found


def covers(distribution: str, module: str) -> bool:
    name = IMPORTS.get(distribution, distribution.replace("-", "_"))
    if distribution == "pydantic" and module.startswith("pydantic_core"):
        return True  # pydantic's other half: it pins the version and documents its use
    if distribution == "boto3" and module.startswith("botocore"):
        return True  # the same
    return module == name or module.startswith(name + ".") or name.startswith(module + ".")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_its_extras_install(room: str) -> None:
    allowed = [distribution for extra in ROOMS[room] for distribution in declared(extra)]
    missing = {m: path for m, path in outside(room).items() if not any(covers(name, m) for name in allowed)}
    assert not missing


def test_the_protocol_imports_only_msgspec_and_itself() -> None:
    assert {module.split(".")[0] for module in outside("agent/protocol")} == {"msgspec"}
    for path in sorted((ROOT / "agent/protocol").rglob("*.py")):
        own = [m for m in imported(ast.parse(path.read_text("utf-8"))) if m.split(".")[0] in OWN]
        assert all(module.startswith("agent.protocol") for module in own), path


def test_what_the_cloud_shares_beside_the_protocol_imports_nothing_of_this_project() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    allowed = {line.partition(" -> ")[2] for contract in contracts for line in contract.get("ignore_imports", [])}
    shared = {module for module in allowed if not module.startswith("agent.protocol")}
    assert shared == {"agent.transport.paho_loop"}
    for module in shared:
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text("utf-8"))
        assert not [name for name in imported(tree) if name.split(".")[0] in OWN], module


@pytest.mark.parametrize("extra", ["", "cloud", "fleet", "report", "moto", "cluster", "dev"])
def test_nothing_is_installed_that_nobody_uses(extra: str) -> None:
    modules = {module for room, extras in ROOMS.items() if extra in extras for module in outside(room)}
    unused = [
        name
        for name in declared(extra)
        if name not in TOOLS
        and name != "fleet-sync"
        and not name.startswith("types-")
        and not any(covers(name, module) for module in modules)
    ]
    assert not unused


def test_every_dependency_has_an_upper_bound() -> None:
    lines = [
        *project()["dependencies"],
        *(line for extra in project()["optional-dependencies"].values() for line in extra),
    ]
    assert not [
        line for line in lines if not re.search(r">=[\d.]+,<[\d.]+$", line) and not line.startswith("fleet-sync")
    ]


def test_the_wheel_holds_every_file_of_its_rooms_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        scripts = archive.read(entry).decode()
    wanted = {
        path.relative_to(ROOT).as_posix()
        for room in ("agent", "cloud", "fleet", "reports", "scenarios")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == wanted
    assert {"scenarios/schemas/fleet.json5", "agent/protocol/py.typed"} <= names
    assert "fleet-agent = agent.cli:main" in scripts


@pytest.mark.parametrize("script", ["fleet", "fleet-agent", "fleet-cloud"])
def test_a_console_script_names_a_function_that_exists(script: str) -> None:
    module, _, function = project()["scripts"][script].partition(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text("utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("package", ["agent.cli", "cloud.cli"])
def test_the_light_command_lines_import_nothing_heavy(package: str) -> None:
    extras = [*declared("fleet"), *declared("cloud")]
    heavy = [IMPORTS.get(name, name) for name in extras if name != "fleet-sync"]
    code = f"import sys, {package}; print([name for name in {heavy!r} if name.split('.')[0] in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
