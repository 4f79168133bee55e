"""fleet.native.interpreter: which Python the Makefile takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.native import interpreter

Found = tuple[int, bool, str] | None


def chosen(candidates: dict[str, list[Found]]) -> str | None:
    """What is taken of candidates that measure so, round by round."""
    rounds: dict[str, Iterator[Found]] = {name: iter(found) for name, found in candidates.items()}
    return interpreter.fastest(list(candidates), lambda name: next(rounds[name]))


def often(found: Found) -> list[Found]:
    return [found] * interpreter.ROUNDS


@pytest.mark.parametrize(
    ("second", "taken"),
    [
        (often((80, True, "/b")), "system"),
        (often((99, True, "/b")), "python3"),  # noise
        (often((80, False, "/b")), "python3"),  # it could not compile the core
        (often(None), "python3"),  # another version, or no venv
        (often((10, True, "/a")), "python3"),  # the same one by another name
        ([(300, True, "/b"), (80, True, "/b"), (300, True, "/b")], "system"),  # slow while something else ran
    ],
)
def test_the_faster_build_that_can_compile_is_taken(second: list[Found], taken: str) -> None:
    assert chosen({"python3": often((100, True, "/a")), "system": second}) == taken


def test_one_that_can_compile_goes_before_a_faster_one_that_cannot() -> None:
    assert chosen({"python3": often((50, False, "/a")), "system": often((100, True, "/b"))}) == "system"


def test_none_is_taken_where_none_will_do() -> None:
    assert chosen({"python3": often(None), "system": often(None)}) is None
    assert interpreter.measured("no-such-python") is None


def test_as_a_script_it_prints_one_of_the_candidates() -> None:
    script = Path(interpreter.__file__)
    run = subprocess.run([sys.executable, script, "no-such-python", sys.executable], capture_output=True, text=True)
    assert (run.stdout, run.returncode) == (f"{sys.executable}\n", 0), run.stderr
