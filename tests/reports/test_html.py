"""The HTML report: one harmless file, as a real browser shows it. In CI the browser must be there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from page_rig import Browser, measured

from reports import plots
from reports.html import render
from reports.result import DeviceRow, FaultWindow, RunResult
from reports.rundir import write_report, write_run
from reports.summary import Summary

Sample = Callable[..., RunResult]
PLOTS_OF_A_SAMPLE = 1 + len(plots.STORY) + 2 + 2  # windows, the run in time, latencies, recoveries


def test_a_browser_shows_the_report_without_a_word_on_its_console(
    sample: Sample, browser: Browser, tmp_path: Path
) -> None:
    picture = tmp_path / "report.png"
    _, console = browser(render(sample(failing=True)), f"--screenshot={picture}", "--window-size=1280,2400")
    assert console == ""
    assert picture.stat().st_size > 100_000  # an empty page of this size has under 15 kB


def test_the_check_of_the_console_can_fail(sample: Sample, browser: Browser) -> None:
    broken = render(sample(rows=3)).replace("</main>", "<script>planted()</script></main>")
    _, console = browser(broken, "--dump-dom")
    assert "Content Security Policy" in console


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", ["ordinary", "hostile"])
def test_nothing_sticks_out_and_no_plot_is_missing(
    sample: Sample, hostile: RunResult, browser: Browser, width: int, kind: str
) -> None:
    page = render(hostile if kind == "hostile" else sample(failing=True))
    measured(browser, page, width, PLOTS_OF_A_SAMPLE)


SKETCH = b"""<svg xmlns="http://www.w3.org/2000/svg" width="900" height="300" viewBox="0 0 900 300">
<style>text { font-size: 99px }</style>
<script>document.title = "ran"</script><text x="9" y="99">a &amp; b</text></svg>"""


def test_a_sketch_in_the_run_directory_is_shown_and_nothing_in_it_runs(
    sample: Sample, browser: Browser, tmp_path: Path
) -> None:
    directory = write_run(sample(failing=True, rows=30), tmp_path / "run")
    assert "fleet shrink" in (directory / "report.html").read_text("utf-8")
    (directory / "plan.min.svg").write_bytes(SKETCH)
    (directory / "plan.when.svg").write_bytes(b" " * 500_000)
    write_report(directory)
    page = (directory / "report.html").read_text("utf-8")
    assert "<script" not in page and "too large" in page.lower() and len(page) < 2_000_000
    measured(browser, page, 400, images=1)


def test_hostile_text_is_escaped_everywhere(hostile: RunResult) -> None:
    page = render(hostile)
    assert "<img" not in page and "<script" not in page
    assert "\x1b" not in page and "\u202e" not in page
    assert "&lt;img src=x onerror=" in page


def test_the_page_asks_nothing_of_the_network(sample: Sample) -> None:
    page = render(sample(failing=True))
    outside = [url for url in re.findall(r'(?:src|href)="([^"]*)"', page) if not url.startswith(("#", "data:,"))]
    assert outside == []
    assert "@import" not in page and not re.search(r"url\((?!#)", page)


def test_a_run_of_days_with_many_faults_and_devices_stays_small(sample: Sample) -> None:
    result = sample(rows=17_280)
    result.faults = [
        FaultWindow(name=f"fault {i}", kind=f"kind {i % 9}", start_s=i * 100.0, end_s=i * 100.0 + 60)
        for i in range(1500)
    ]
    result.devices = [DeviceRow(device=f"home-{i}", reason="outbox not empty") for i in range(10_000)]
    page = render(result)
    assert len(page.encode()) < 2_000_000
    assert "and 9,800 more in devices.csv" in page
    assert "and 1,300 more in summary.json" in page


def test_an_empty_run_has_a_page() -> None:
    page = render(RunResult(summary=Summary(scenario="s", seed=1, verdict="unknown")))
    assert "Unknown" in page and "<svg" not in page and "None" in page


IMPORTS = """
import sys
import reports, reports.terminal, reports.histogram, reports.html, reports.rundir, reports.failure
heavy = sorted({"matplotlib", "jinja2", "numpy", "pandas", "hdrh"} & set(sys.modules))
sys.exit(f"imported too early: {heavy}" if heavy else 0)
"""


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    root = Path(plots.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
