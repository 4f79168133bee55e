"""What the command lines import before they do anything: a person waits for it on every `--help`."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = frozenset({"agent.session", "fleet.world", "jinja2", "matplotlib", "pydantic", "ruamel", "simpy", "sqlite3"})
FOR_SCENARIOS = frozenset({"pydantic", "ruamel"})
BY_TYPER = frozenset({"pydantic"})  # some of its releases look at a command's parameters with it


def imported(module: str, *arguments: str) -> set[str]:
    """The modules that are there when `main` of `module` has ended; packages by their names."""
    code = (
        f"import sys; from {module} import main; sys.argv[1:] = {list(arguments)!r}\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('IMPORTED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.rsplit("IMPORTED", 1)[1].split()
    return {name for name in HEAVY if any(other == name or other.startswith(f"{name}.") for other in names)}


@pytest.mark.parametrize(
    ("module", "arguments", "allowed"),
    [
        ("agent.cli", ["--version"], frozenset()),
        ("agent.cli", ["--help"], frozenset()),
        ("cloud.cli", ["--help"], frozenset()),
        ("fleet.cli", ["--version"], frozenset()),
        ("fleet.cli", ["--help"], frozenset()),
        ("fleet.cli", ["run", "--help"], BY_TYPER),
        ("fleet.cli", ["replay", "--help"], BY_TYPER),
        ("fleet.cli", ["validate", "baseline"], FOR_SCENARIOS),
    ],
)
def test_a_command_imports_what_is_heavy_only_when_it_works_with_it(
    module: str, arguments: list[str], allowed: frozenset[str]
) -> None:
    assert imported(module, *arguments) <= allowed


def test_the_scan_sees_what_is_imported() -> None:
    assert imported("fleet.cli", "validate", "baseline") == FOR_SCENARIOS
