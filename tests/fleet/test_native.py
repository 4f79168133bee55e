"""What is compiled is used whole, only for the source that it was compiled from, and changes nothing but the time."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from run_rig import ROOT, busy_plan, run_plan

from fleet.native import build, finder, modules, place

SOME: Final = ("fleet.rng", "fleet.trace")
START: Final = """
import sys
from pathlib import Path
from fleet.native import place
place.folder = lambda: Path(sys.argv[1])
from fleet.native.start import prepare
{before}
print(prepare())
import fleet.trace
print(fleet.trace.__file__)
{after}
"""
HASH: Final = """
from fleet.run import execute, versions
from fleet.scenario.plan import Plan
print(versions()["core"])
print(execute(Plan.load(sys.argv[2])).summary.trace_hash)
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("native") / "fleet_native"
    build.build(2, target, SOME)
    return target


def started(folder: Path, *arguments: str, before: str = "", after: str = "", interpreted: str = "") -> list[str]:
    environment = {**os.environ, finder.SWITCH: interpreted, "PYTHONPATH": str(ROOT)}
    code = START.format(before=before, after=after)
    command = [sys.executable, "-c", code, str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_compiled_modules_are_imported_and_give_the_hash_of_the_interpreted_ones(
    compiled: Path, tmp_path: Path
) -> None:
    plan = busy_plan(tmp_path)
    (tmp_path / "plan.json").write_bytes(plan.encode())
    used, file, core, trace_hash = started(compiled, str(tmp_path / "plan.json"), after=HASH)
    assert (used, core) == ("True", "compiled") and Path(file).is_relative_to(compiled)
    assert trace_hash == run_plan(plan).summary.trace_hash


@pytest.mark.parametrize(
    "before",
    ["import fleet.rng", "place.source_digest = lambda: 'another'", "sys.implementation.cache_tag = 'another-1'"],
    ids=["imported already", "another source", "another Python"],
)
def test_what_does_not_fit_is_not_used_at_all(compiled: Path, before: str) -> None:
    used, file = started(compiled, before=before)
    assert used == "False" and Path(file) == ROOT / "fleet" / "trace.py"


def test_the_environment_can_say_no(compiled: Path) -> None:
    assert started(compiled, interpreted="1")[0] == "False"
    assert started(compiled, interpreted="0")[0] == "True"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"python": 1, "source": [], "modules": null}'])
def test_a_damaged_manifest_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    assert place.read_manifest(tmp_path) is None
    (tmp_path / place.MANIFEST).write_text(text)
    assert place.read_manifest(tmp_path) is None


def test_a_changed_byte_of_any_room_is_another_source(tmp_path: Path) -> None:
    for room in place.ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text("x = 1\n")
    digests = {place.source_digest(tmp_path)}
    for room in place.ROOMS:
        (tmp_path / room / "a.py").write_text("x = 2\n")
        digests.add(place.source_digest(tmp_path))
    (tmp_path / "agent" / "a.py").rename(tmp_path / "agent" / "b.py")
    digests.add(place.source_digest(tmp_path))
    assert len(digests) == len(place.ROOMS) + 2


def test_without_a_compiler_the_reason_is_said_and_what_is_there_stays(
    compiled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(compiled.rglob("*"))
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(place, "folder", lambda: compiled)
    monkeypatch.setattr(build, "MODULES", ("fleet.rng",))
    monkeypatch.setattr(build, "build", lambda jobs, target: REAL_BUILD(jobs, target, ("fleet.rng",)))
    monkeypatch.setattr(sys, "argv", ["build"])
    assert build.main() == 1
    told = capsys.readouterr().err
    assert "runs interpreted" in told and "no-such-compiler" in told and "Traceback" not in told
    assert sorted(compiled.rglob("*")) == before


REAL_BUILD: Final = build.build


def test_what_is_compiled_already_is_not_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write_manifest(tmp_path, place.source_digest(), list(modules.MODULES))
    monkeypatch.setattr(place, "folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "argv", ["build"])
    assert build.main() == 0 and "already" in capsys.readouterr().out
    assert json.loads((tmp_path / place.MANIFEST).read_text())["modules"] == list(modules.MODULES)


def classes(paths: Iterator[Path] | list[Path]) -> Iterator[tuple[str, list[str]]]:
    """(name, names of bases) of every class, nested ones too."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                yield node.name, [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]


def test_what_interpreted_classes_inherit_from_is_open_to_them() -> None:
    ours = [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in modules.MODULES]
    native = {name: bases for name, bases in classes(ours)}
    others = [path for room in place.ROOMS for path in (ROOT / room).rglob("*.py") if path not in ours]
    # Names of ours that also name something else: trio's, sqlite3's, and the agent's own executor's.
    wanted = {base for _, bases in classes(others) for base in bases if base in native} - {
        "Connection",
        "Executor",
        "Stream",
    }
    while more := {base for name in wanted for base in native[name] if base in native} - wanted:
        wanted |= more
    assert wanted - modules.OPEN == set(), "add them to fleet.native.modules.OPEN"


def test_a_marked_class_is_the_one_that_is_named() -> None:
    text = f'"""A module."""\n\n{build.FUTURE}\n\n@thing\nclass Store:\n    pass\n\n\nclass Shelf:\n    pass\n'
    marked = build.opened(text)
    assert marked.count(build.MARK) == 1 and marked.index(build.MARK) < marked.index("class Store")
    assert "from mypy_extensions import mypyc_attr" in marked and build.opened("x = 1\n") == "x = 1\n"
