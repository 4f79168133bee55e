"""The workflows for GitHub Actions: each `fleet` line in them is one that the command line takes, and nothing comes
from outside but the two standard actions. Called by pytest only; nothing is run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

import pytest
import typer
from ruamel.yaml import YAML
from typer.core import TyperGroup

from fleet.cli import build_app
from fleet.commands.sweep import parse_seeds
from fleet.scenario.shipped import scenario_paths
from fleet.scenario.units import parse_positive_duration

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / ".github/workflows"
WORKFLOWS: Final = ("nightly.yml", "pull-request.yml")
ACTIONS: Final = ("actions/checkout@v4", "actions/setup-python@v5")
EXPRESSION: Final = re.compile(r"\$\{\{[^}]*'([^']*)'\s*\}\}")  # of `${{ inputs.length || '5h' }}`: what stands for it
# Set by the steps' own shell.
SHELL: Final = {"FIRST": "900", "LAST": "929"}


@dataclass(frozen=True)
class Workflow:
    text: str
    values: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [step for job in self.values["jobs"].values() for step in job["steps"]]

    def commands(self) -> Iterator[list[str]]:
        """What follows `fleet` in each of its lines, with the variables in their places."""
        known = {name: EXPRESSION.sub(r"\1", str(value)) for name, value in self.values.get("env", {}).items()}
        for step in self.steps:
            for line in step.get("run", "").splitlines():
                words = shlex.split(Template(line).safe_substitute({**known, **SHELL}))
                if words and Path(words[0]).name == "fleet":
                    yield words[1:]


def parsed(text: str) -> Workflow:
    return Workflow(text, YAML(typ="safe", pure=True).load(text))


def workflow(name: str) -> Workflow:
    return parsed((FOLDER / name).read_text("utf-8"))


class Refused(Exception):
    """What the command line says of words that it does not take."""


def accepted(words: list[str]) -> dict[str, Any]:
    """The command's parameters, as the command line reads them. Raises Refused."""
    app = typer.main.get_command(build_app())
    assert isinstance(app, TyperGroup)
    name, *arguments = words
    if name not in app.commands:
        raise Refused(f"no command {name}")
    try:
        return app.commands[name].make_context(name, arguments).params
    except Exception as error:
        if "UsageError" not in {kind.__name__ for kind in type(error).__mro__}:  # its module differs between releases
            raise
        raise Refused(str(error)) from None


def test_every_workflow_is_looked_at() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(WORKFLOWS)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_fleet_command_is_one_that_the_command_line_takes(name: str) -> None:
    commands = list(workflow(name).commands())
    assert commands
    for words in commands:
        values = accepted(words)
        assert "$" not in " ".join(words), f"a variable that nothing sets: {words}"
        if words[0] == "sweep":
            assert set(values["scenarios"]) <= set(scenario_paths())
            first, last = parse_seeds(values["seeds"])
            assert last - first == 29
        else:
            assert words[0] == "soak" and parse_positive_duration(values["length"]) >= 3600 * 1_000_000


def test_a_pull_request_runs_as_many_fixed_seeds_as_fresh_ones() -> None:
    sweeps = [accepted(words) for words in workflow("pull-request.yml").commands()]
    assert [values["swarm"] for values in sweeps] == [False, True]
    assert len({values["out"] for values in sweeps}) == 2


@pytest.mark.parametrize("name", WORKFLOWS)
def test_nothing_comes_from_outside_but_the_two_standard_actions(name: str) -> None:
    found = workflow(name)
    assert [step["uses"] for step in found.steps if "uses" in step] == list(ACTIONS)
    assert "://" not in found.text and not re.search(r"\b(curl|wget|pip install|apt)\b", found.text)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_somebody_else_can_name_reaches_no_shell_as_text(name: str) -> None:
    """A title or a branch may hold a command: values come in as variables of the environment."""
    for step in workflow(name).steps:
        assert "${{" not in step.get("run", "")


def test_the_paths_and_targets_are_those_of_the_project() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for name in WORKFLOWS:
        lines = [line for step in workflow(name).steps for line in step.get("run", "").splitlines()]
        (make,) = [shlex.split(line) for line in lines if line.startswith("make ")]
        assert make[1:] == [".venv/.for-run", ".venv/.native"]
        assert all(f"{target.replace('.venv', '$(VENV)')}:" in makefile for target in make[1:])


# The checks above can fail:


@pytest.mark.parametrize(
    "line",
    ["fleet soak --fore 8h", "fleet sweeep outage", "fleet sweep outage --jobs 0", "fleet sweep --seeds 1..3"],
)
def test_a_command_that_is_not_taken_is_caught(line: str) -> None:
    (words,) = parsed(f"jobs: {{a: {{steps: [{{run: '{line}'}}]}}}}").commands()
    with pytest.raises(Refused):
        accepted(words)
