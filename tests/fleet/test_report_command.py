"""`fleet report`: from a run directory alone, the same bytes again; pictures; what is missing is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from run_rig import BUSY, ROOT
from scenario_rig import write
from typer.testing import CliRunner, Result

from fleet.cli import build_app
from reports.rundir import load_run

MADE = ("report.html", "junit.xml", "timeline.csv", "devices.csv")
FAILING = BUSY + "expect: {thresholds: [counts.local_writes == 0]}\n"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), list(arguments))


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a planted bug, which a check has seen."""
    folder = tmp_path_factory.mktemp("failed")
    scenario = write(folder, BUSY, "busy.yaml")
    result = invoke("run", str(scenario), "--seed", "3", "--plant", "echo", "--out", str(folder / "run"), "-q")
    assert result.exit_code == 1, result.output
    return folder / "run"


def test_a_report_is_built_again_to_the_byte(failed: Path) -> None:
    before = {name: (failed / name).read_bytes() for name in MADE}
    for name in MADE[:2]:
        (failed / name).unlink()
    result = invoke("report", str(failed))
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == str(failed)
    assert "FAIL" in result.stdout
    assert {name: (failed / name).read_bytes() for name in MADE} == before


def test_a_failed_run_tells_the_story_of_its_first_bad_event(failed: Path) -> None:
    run = load_run(failed)
    page = (failed / "report.html").read_text("utf-8")
    first = min(run.violations, key=lambda violation: violation.t_s)
    assert run.story and f"<b>{first.check}</b>" in page and "First bad event" in page
    assert 'tr class="fail"' in page and first.device in page


def test_plots_are_written_as_pictures_when_asked(failed: Path, tmp_path: Path) -> None:
    result = invoke("report", str(failed), "--png", str(tmp_path / "plots"), "-q")
    assert (result.exit_code, result.stdout) == (0, f"{failed}\n")
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"online.png", "backlog.png", "windows.png", "latency-up.png", "distribution-up.png"} <= names


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    result = invoke("report", str(tmp_path))
    assert result.exit_code == 2 and "not the directory of a finished run" in result.output
    (tmp_path / "file").write_text("x")
    assert invoke("report", str(tmp_path / "file")).exit_code == 2


def test_pictures_that_cannot_be_written_end_with_4(failed: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    result = invoke("report", str(failed), "--png", str(tmp_path / "taken" / "plots"))
    assert result.exit_code == 4 and "cannot write" in result.output


WITHOUT = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("matplotlib", "pandas", "numpy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ("matplotlib", "pandas") else found(name, package)
from fleet.cli import main
main()
"""


def without_the_extra(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`fleet` where plots and tables are not installed."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100
    )


def test_without_the_extra_a_run_has_a_plain_report_and_says_what_to_install(tmp_path: Path) -> None:
    scenario = write(tmp_path, BUSY, "busy.yaml")
    done = without_the_extra("run", str(scenario), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "pip install 'fleet-sync[report]'" in done.stderr
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "pip install &#39;fleet-sync[report]&#39;" in page or "pip install 'fleet-sync[report]'" in page
    assert "<svg" not in page and "no-acked-write-lost" in page and "Passed" in page
    refused = without_the_extra("report", str(tmp_path / "run"), "--png", str(tmp_path / "plots"))
    assert refused.returncode == 2 and "fleet-sync[report]" in refused.stderr
    assert invoke("report", str(tmp_path / "run"), "-q").exit_code == 0
    assert "<svg" in (tmp_path / "run" / "report.html").read_text("utf-8")
