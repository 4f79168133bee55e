"""The pages of `fleet compare` and `fleet capacity` in a browser; all three pages on paper; hostile names in them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from capacity_sample import sample_plan
from compare_rig import whole
from page_rig import Browser, measured, on_paper

from reports.capacity import Capacity
from reports.capacity_html import render as capacity_html
from reports.capacity_text import WIDTH, capacity_csv, capacity_lines
from reports.compare_html import comparison_html
from reports.html import render as report_html
from reports.result import RunResult

Sample = Callable[..., RunResult]
DARK = "--blink-settings=preferredColorScheme=0"
PAGE_LIGHT, PAGE_DARK = "rgb(245, 246, 248)", "rgb(18, 22, 28)"
WHITE = "rgb(255, 255, 255)"
PLOTS = {"compare": 3, "capacity": 2}


def page_of(kind: str, hostile: RunResult | None = None) -> str:
    if kind == "capacity":
        return capacity_html(sample_plan(hostile.summary.scenario if hostile is not None else ""))
    return comparison_html(*whole(hostile=hostile))


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", ["compare", "capacity"])
def test_nothing_sticks_out_in_light_and_dark(browser: Browser, kind: str, width: int) -> None:
    page = page_of(kind)
    assert measured(browser, page, width, PLOTS[kind]) == PAGE_LIGHT
    assert measured(browser, page, width, PLOTS[kind], DARK) == PAGE_DARK


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", ["compare", "capacity"])
def test_nothing_sticks_out_whatever_the_names(browser: Browser, hostile: RunResult, kind: str, width: int) -> None:
    page = page_of(kind, hostile)
    assert "<img" not in page and "<script" not in page and "\x1b" not in page and "\u202e" not in page
    measured(browser, page, width, PLOTS[kind])


@pytest.mark.parametrize("kind", ["compare", "capacity", "report"])
def test_nothing_is_cut_on_paper_which_is_white_in_the_dark_too(
    browser: Browser, sample: Sample, tmp_path: Path, kind: str
) -> None:
    page = report_html(sample(failing=True)) if kind == "report" else page_of(kind)
    assert on_paper(browser, page, DARK) == ("", WHITE)
    path = tmp_path / "page.pdf"
    browser(page, f"--print-to-pdf={path}", "--no-pdf-header-footer")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", path.read_bytes())) <= 9


def test_the_check_of_paper_can_fail(browser: Browser) -> None:
    page = page_of("capacity").replace("@media print and (prefers-color-scheme: dark)", "@media print and (width: 1px)")
    wide = page.replace("</main>", '<p style="width: 900px">too wide</p></main>')
    out, under = on_paper(browser, wide, DARK)
    assert out == "P" and under != WHITE


def test_hostile_names_are_harmless_in_a_plan_for_terminals_and_spreadsheets(hostile: RunResult) -> None:
    plan = sample_plan(hostile.summary.scenario)
    lines = [line.plain for line in capacity_lines(plan)]
    assert max(map(len, lines)) <= WIDTH
    assert not any(mark in line for line in lines for mark in "\x1b\u202e\n")
    text = capacity_csv(plan)
    assert "\x1b" not in text and "\u202e" not in text
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert not any(cell.startswith(("=", "+", "@")) for cell in cells)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Capacity) == plan


def test_a_plan_without_what_draws_has_a_page_without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = capacity_html(sample_plan())
    assert "<svg" not in page and "Told and seen" in page
