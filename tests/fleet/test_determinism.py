"""Same plan, same trace hash: in one process, in fresh ones, under any PYTHONHASHSEED, on every supported Python."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from golden import golden_hashes, golden_plan
from run_rig import ROOT, busy_plan, run_plan

from fleet.run import Request, execute
from fleet.scenario.shipped import scenario_paths

VERSIONS: Final = ("3.11", "3.12", "3.13")
HASH: Final = "import sys; from fleet.run import execute; from fleet.scenario.plan import Plan\n" + (
    "print(execute(Plan.load(sys.argv[1])).summary.trace_hash)"
)
GOLDEN: Final = "import json; from golden import golden_plan; from fleet.run import execute\n" + (
    "from fleet.scenario.shipped import scenario_paths\n"
    "print(json.dumps({n: execute(golden_plan(n)).summary.trace_hash for n in scenario_paths()}))"
)


def in_a_process(python: str, code: str, *arguments: str, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(
        [python, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_same_plan_gives_the_same_hash_twice_in_one_process(tmp_path: Path) -> None:
    plan = busy_plan(tmp_path)
    first, second = run_plan(plan), run_plan(plan)
    assert first.summary.trace_hash == second.summary.trace_hash
    assert first.checkpoints == second.checkpoints and first.timeline == second.timeline
    assert first.summary.counts == second.summary.counts and first.summary.probes == second.summary.probes


def test_another_seed_gives_another_hash(tmp_path: Path) -> None:
    hashes = {run_plan(busy_plan(tmp_path, seed)).summary.trace_hash for seed in range(1, 5)}
    assert len(hashes) == 4 and all(re.fullmatch("[0-9a-f]{32}", one) for one in hashes)


def test_the_hash_does_not_depend_on_the_process_or_the_hash_seed(tmp_path: Path) -> None:
    plan = busy_plan(tmp_path)
    (tmp_path / "plan.json").write_bytes(plan.encode())
    here = run_plan(plan).summary.trace_hash
    seeds = ("0", "1", "random")
    assert [in_a_process(sys.executable, HASH, str(tmp_path / "plan.json"), hash_seed=one) for one in seeds] == [
        here
    ] * 3


def test_tracing_to_a_file_and_watching_change_nothing(tmp_path: Path) -> None:
    plan = busy_plan(tmp_path)
    seen: list[int] = []
    watched = execute(
        plan, Request(trace_path=tmp_path / "t.jsonl.gz"), lambda look: seen.append(look().now_us), lambda: False
    )
    assert watched.summary.trace_hash == run_plan(plan).summary.trace_hash and seen == sorted(seen) and seen


def test_every_shipped_scenario_has_a_golden_hash_and_they_differ() -> None:
    hashes = golden_hashes()
    assert list(hashes) == list(scenario_paths()) and len(set(hashes.values())) == len(hashes)


@pytest.mark.parametrize("name", scenario_paths())
def test_another_seed_of_a_shipped_scenario_is_another_plan(name: str) -> None:
    first, second = golden_plan(name, 1), golden_plan(name, 2)
    assert [w.name for w in first.workloads] == [w.name for w in second.workloads]
    assert [d.boot_at_us for d in first.devices] != [d.boot_at_us for d in second.devices]


def interpreter(version: str) -> str | None:
    """On PATH, or installed by pyenv."""
    found = shutil.which(f"python{version}")
    if found is not None and runs(found, version):
        return found
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = sorted(root.glob(f"{version}.*/bin/python"), key=lambda path: path.parts[-3])
    return next((str(path) for path in candidates if runs(str(path), version)), None)


def runs(python: str, version: str) -> bool:
    """pyenv's shims are on PATH whether or not they lead anywhere."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


def environment_of(python: str, version: str, cache: Path) -> str:
    """A virtual environment with what a run needs, made once for each state of pyproject.toml."""
    state = hashlib.blake2b((ROOT / "pyproject.toml").read_bytes(), digest_size=8).hexdigest()
    place = cache / f"fleet-python-{version}-{state}"
    if not (place / "complete").exists():
        subprocess.run([python, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, f"{ROOT}[fleet]"], check=True)
        subprocess.run([*pip[:-1], "uninstall", "--yes", "fleet-sync"], check=True)  # the checkout is what is tested
        (place / "complete").touch()
    return str(place / "bin" / "python")


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_every_supported_python_gives_the_golden_hashes(version: str, tmp_path: Path, ci: bool) -> None:
    """FLEET_TEST_ENVIRONMENTS names a directory that keeps the environments from one run of the tests to the next."""
    if version == "{}.{}".format(*sys.version_info):
        python = sys.executable
    else:
        found = interpreter(version)
        if found is None:
            missing = f"no python{version} on PATH or under pyenv: its hashes were not compared"
            if ci:
                pytest.fail(missing)
            pytest.skip(missing)
        kept = os.environ.get("FLEET_TEST_ENVIRONMENTS")
        python = environment_of(found, version, Path(kept) if kept else tmp_path)
    expected = str(golden_hashes()).replace("'", '"')
    assert in_a_process(python, GOLDEN, hash_seed="random") == expected
