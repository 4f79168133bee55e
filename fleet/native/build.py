"""Compiles the core for this interpreter: `python -m fleet.native.build`. Needs the extra `native` and a C compiler.

Works on a copy of the source, in which some classes are marked as open to subclasses that are not compiled. Replaces
what was compiled before only when all of it is done. Exit code 1, with the reason, where it cannot be.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fleet.native import place
from fleet.native.modules import MODULES, OPEN

MARK: Final = "@mypyc_attr(allow_interpreted_subclasses=True)"
FUTURE: Final = "from __future__ import annotations\n"
OPTIONS: Final = ("--follow-imports=silent", "--ignore-missing-imports")
# One library of all modules calls straight from one to the other; its files are compiled side by side, which
# setuptools does for whole libraries only.
SETUP: Final = """
from concurrent.futures import ThreadPoolExecutor

from mypyc.build import mypycify
from setuptools import setup
from setuptools.command.build_ext import build_ext


class SideBySide(build_ext):
    def build_extensions(self):
        compiler = self.compiler
        one = compiler.compile

        def compile(sources, **options):
            with ThreadPoolExecutor({jobs}) as pool:
                return [name for names in pool.map(lambda source: one([source], **options), sources) for name in names]

        compiler.compile = compile
        super().build_extensions()


setup(
    name="fleet-native",
    packages=[],
    py_modules=[],
    ext_modules=mypycify({arguments!r}, opt_level="2", debug_level="0", multi_file=True),
    cmdclass=dict(build_ext=SideBySide),
)
"""


class BuildError(Exception):
    """Why it could not be compiled."""


def build(jobs: int, target: Path, modules: Sequence[str] = MODULES) -> None:
    """Compiles `modules` and puts them into `target`. Raises BuildError."""
    source = place.source_digest()
    with tempfile.TemporaryDirectory(prefix="fleet-native-") as scratch:
        root, out = Path(scratch, "source"), Path(scratch, "out")
        _copy(root, modules)
        files = [f"{name.replace('.', '/')}.py" for name in modules]
        setup = root / "setup.py"
        setup.write_text(SETUP.format(arguments=[*OPTIONS, *files], jobs=jobs))
        command = [sys.executable, setup.name, "build_ext", "--build-lib", str(out)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(_reason(done.stdout + done.stderr))
        place.write_manifest(out, source, list(modules))
        _put(out, target)


def _copy(root: Path, modules: Sequence[str]) -> None:
    for room in place.ROOMS:
        shutil.copytree(place.ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in modules:
        path = root.joinpath(*name.split(".")).with_suffix(".py")
        path.write_text(opened(path.read_text()))


def opened(text: str) -> str:
    """The source of a module with the classes of OPEN marked."""
    lines = text.split("\n")
    body = ast.parse(text).body
    at = [node.lineno - 1 for node in body if isinstance(node, ast.ClassDef) and node.name in OPEN]
    for number in reversed(at):
        lines.insert(number, MARK)
    marked = "\n".join(lines)
    return marked.replace(FUTURE, f"{FUTURE}from mypy_extensions import mypyc_attr\n", 1) if at else marked


def _put(out: Path, target: Path) -> None:
    """Never a moment in which half of it is there: the manifest, without which nothing is used, comes with the rest."""
    old = target.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    fresh = target.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(out, fresh)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _reason(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() and "-Werror" not in line]
    return "\n".join((errors or lines)[-5:])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fleet.native.build", description="Compile the simulator's core.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at a time")
    jobs = parser.parse_args().jobs
    if place.read_manifest(place.folder()) == list(MODULES):
        print("The core is compiled already, from this source.")
        return 0
    print("Compiling the simulator's core (a minute or two)", flush=True)
    try:
        build(jobs, place.folder())
    except (BuildError, OSError) as error:
        print(f"The core could not be compiled; everything runs interpreted, slower:\n{error}", file=sys.stderr)
        return 1
    print(f"{len(MODULES)} modules compiled.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
