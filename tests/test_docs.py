"""What the documents say holds: commands run, scenarios are valid, paths exist. Called by pytest only.

A fenced block marked `console run` is executed line by line (`$ command`) in a copy of `scenarios/` in a temporary
directory; each command must exit with 0, or with N where its line ends in `# exit N`. A block marked only `console` is
not run, but its commands must exist. A `yaml` block that begins with `name:` must be a valid scenario. `python` blocks
with prompts (`>>>`) are executed in order, those of one document in one namespace, and what they print is compared.
"""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from emulators import KEY_ID, REGION, SECRET

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENTS: Final = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
BIN: Final = Path(sys.executable).parent
COMMANDS: Final = ("fleet", "fleet-agent", "fleet-cloud")
_FENCE: Final = re.compile(r"^```(\w*)[ ]*([^\n`]*)\n(.*?)^```[ ]*$", re.M | re.S)
_ROOM: Final = re.compile(
    r"(?<![\w./-])(?:\.ci|agent|benchmarks|cloud|docs|fleet|reports|scenarios|tests)/[\w./-]*[\w/]"
)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    place: str  # file:line
    language: str
    mark: str
    text: str

    @property
    def commands(self) -> list[str]:
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]


def blocks(name: str, text: str) -> list[Block]:
    return [
        Block(f"{name}:{text.count(chr(10), 0, match.start()) + 1}", match[1], match[2].strip(), match[3])
        for match in _FENCE.finditer(text)
    ]


def all_blocks(language: str) -> list[Block]:
    found = [block for name in DOCUMENTS for block in blocks(name, (ROOT / name).read_text("utf-8"))]
    return [block for block in found if block.language == language]


def by_place(block: Block) -> str:
    return block.place


def paths(text: str) -> Iterator[str]:
    """Paths of this project in links, in `code` and in blocks. Where a run writes (`runs/`) is not among them."""
    for match in _LINK.finditer(text):
        target = match[1].partition("#")[0]
        if target and "://" not in target:
            yield target
    fenced = "\n".join(match[3] for match in _FENCE.finditer(text))
    inline = "\n".join(re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)))
    for match in _ROOM.finditer(f"{fenced}\n{inline}"):
        yield match[0]


def run(command: str, folder: Path, more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100", **(more or {})}
    shell = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


def expected_exit(command: str) -> int:
    match = re.search(r"# exit (\d+)\s*$", command)
    return int(match[1]) if match else 0


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "scenarios", tmp_path / "scenarios", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def check_commands(block: Block, folder: Path, more: Mapping[str, str] | None = None) -> None:
    for command in block.commands:
        done = run(command, folder, more)
        said = f"{block.place}: $ {command}\n{done.stdout}{done.stderr}"
        assert done.returncode == expected_exit(command), said
        assert "Traceback" not in done.stderr, said


def check_paths(name: str, text: str) -> None:
    base = (ROOT / name).parent
    missing = [path for path in paths(text) if not ((base / path).exists() or (ROOT / path).exists())]
    assert not missing, f"{name} names what does not exist: {', '.join(missing)}"


RUNNABLE: Final = [block for block in all_blocks("console") if block.mark == "run"]
SESSIONS: Final = sorted({block.place.partition(":")[0] for block in all_blocks("python") if ">>> " in block.text})
SCENARIOS: Final = [block for block in all_blocks("yaml") if block.text.startswith("name:")]


@pytest.mark.parametrize("block", RUNNABLE, ids=by_place)
def test_a_block_that_says_so_runs(block: Block, workplace: Path, request: pytest.FixtureRequest) -> None:
    """A block that makes a table gets an emulator, as the document says, and a name that nobody else has."""
    assert block.commands, f"{block.place}: nothing to run"
    emulator = {}
    if "fleet-cloud provision" in block.text:
        emulator = {
            "FLEET_ENDPOINT_URL": request.getfixturevalue("moto"),
            "FLEET_TABLE": f"documents-{RUNNABLE.index(block)}-{os.getpid()}",
            **{"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION},
        }
    check_commands(block, workplace, emulator)


def check_session(name: str, text: str) -> None:
    said: list[str] = []
    examples = "".join(block.text for block in blocks(name, text) if block.language == "python")
    test = doctest.DocTestParser().get_doctest(examples, {}, name, name, 0)
    assert test.examples
    failed = doctest.DocTestRunner(verbose=False).run(test, out=said.append).failed
    assert not failed, "".join(said)


@pytest.mark.parametrize("name", SESSIONS)
def test_the_examples_in_python_print_what_the_document_says(name: str) -> None:
    check_session(name, (ROOT / name).read_text("utf-8"))


@pytest.mark.parametrize("block", SCENARIOS, ids=by_place)
def test_a_scenario_in_the_documents_is_valid(block: Block, workplace: Path) -> None:
    (workplace / "scenarios/example.yaml").write_text(block.text)
    done = run("fleet validate scenarios/example.yaml", workplace)
    assert done.returncode == 0, f"{block.place}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_in_the_documents_exists(name: str) -> None:
    check_paths(name, (ROOT / name).read_text("utf-8"))


def mentioned() -> list[str]:
    """`fleet validate`, `fleet-agent schema`: each command with its verb, once, wherever the documents show it."""
    pattern = re.compile(rf"(?:^\$ |`|[|&;] )({'|'.join(COMMANDS)}) ([a-z][a-z-]+)", re.M)
    texts = [(ROOT / name).read_text("utf-8") for name in DOCUMENTS]
    return sorted({f"{match[1]} {match[2]}" for text in texts for match in pattern.finditer(text)})


@pytest.mark.parametrize("command", mentioned())
def test_a_command_in_the_documents_exists(command: str, tmp_path: Path) -> None:
    done = run(f"{command} --help", tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    texts = [(ROOT / name).read_text("utf-8") for name in DOCUMENTS]
    named = {match for text in texts for match in re.findall(r"(?:^\$ |`)make ([a-z]+)", text, re.M)}
    assert {"run", "test"} <= named <= targets


# The checks above can fail:


def test_a_command_with_another_exit_code_is_caught(workplace: Path) -> None:
    (block,) = blocks("x.md", "```console run\n$ exit 3\n```\n")
    with pytest.raises(AssertionError, match="exit 3"):
        check_commands(block, workplace)
    (block,) = blocks("x.md", "```console run\n$ exit 3  # exit 3\n```\n")
    check_commands(block, workplace)


@pytest.mark.parametrize(
    "text",
    ["[a](docs/nowhere.md)", "see `fleet/nothing.py`", "```console\n$ fleet run scenarios/nothing.yaml\n```\n"],
)
def test_a_path_that_does_not_exist_is_caught(text: str) -> None:
    with pytest.raises(AssertionError, match=r"no(where|thing)"):
        check_paths("README.md", text)


def test_an_example_that_prints_something_else_is_caught() -> None:
    check_session("x.md", "```python\n>>> x = 1\n```\n```python\n>>> x + 1\n2\n```\n")
    with pytest.raises(AssertionError, match="Expected"):
        check_session("x.md", "```python\n>>> 1 + 1\n3\n```\n")


def test_the_documents_have_what_is_checked() -> None:
    assert RUNNABLE
    assert SESSIONS
    assert SCENARIOS
    assert mentioned()
