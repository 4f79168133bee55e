"""Plots and what they are drawn from: well-formed, harmless, the same every time, true to the values."""

from __future__ import annotations

import math
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports import drawing, frames, plots
from reports.histogram import LatencyRecorder, quantile_us
from reports.result import FaultWindow, LatencySlot, Row, RunResult
from reports.summary import Summary

Sample = Callable[..., RunResult]


def drawn(result: RunResult) -> dict[str, str]:
    return {name: one.svg for name, one in plots.draw(result, 3600.0).items()}


def test_every_plot_is_well_formed_and_its_ids_are_its_own(sample: Sample) -> None:
    svgs = drawn(sample())
    named = {"windows", *plots.STORY, "distribution-up", "distribution-down", "recovery-devices", "recovery-backlog"}
    assert set(svgs) == named
    seen: set[str] = set()
    for svg in svgs.values():
        ET.fromstring(svg)
        ids = set(re.findall(r' id="([^"]+)"', svg))
        assert ids and not ids & seen
        seen |= ids
        for target in re.findall(r'(?:url\(#|href="#)([^)"]+)', svg):
            assert target in ids


def test_every_colour_of_a_plot_has_a_role(sample: Sample) -> None:
    """Else it would stay as it is on a dark page."""
    for svg in drawn(sample()).values():
        bare = re.sub(r"var\(--\w+, #[0-9a-f]{6}\)", "", svg)
        assert re.findall(r"(?:fill|stroke|color): ?#[0-9a-f]+", bare) == []
        for text in re.findall(r"<text[^>]*>", svg):
            assert "fill: var(" in text, text


def test_fault_windows_are_labelled_on_every_plot_over_time(sample: Sample) -> None:
    svgs = drawn(sample())
    for name in plots.STORY:
        for fault in ("region down", "tower 3", "power cut", "relay crash"):
            assert f">{fault}</text>" in svgs[name], (name, fault)
        assert "bursty loss" not in svgs[name]  # it acted throughout


def test_a_fault_that_acts_most_of_the_run_is_no_window_unless_there_is_no_other() -> None:
    window = FaultWindow(name="out", kind="broker-outage", start_s=1200.0, end_s=1800.0)
    background = FaultWindow(name="loss", kind="messages", start_s=180.0, end_s=3600.0)
    long = FaultWindow(name="away", kind="link-down", start_s=900.0, end_s=3300.0)
    assert drawing.bands([background, window, long], 4400.0) == [window]
    assert drawing.bands([background, long], 4400.0) == [background, long]
    assert drawing.bands([background, long], 4000.0) == [long]
    assert drawing.bands([background], 36_000.0) == [background]


DRAW = """
import sys, hashlib, msgspec
from reports import html
from reports.result import RunResult
page = html.render(msgspec.json.decode(sys.stdin.buffer.read(), type=RunResult))
print(hashlib.sha256(page.encode()).hexdigest())
"""


def test_the_same_values_give_the_same_page_in_any_process(sample: Sample) -> None:
    data = msgspec.json.encode(sample(failing=True, rows=60))
    pages = {
        subprocess.run(
            [sys.executable, "-c", DRAW],
            input=data,
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PATH": "", "TZ": zone},
            cwd=plots.__file__.rsplit("/", 2)[0],
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(pages) == 1


@pytest.mark.parametrize("name", ["$x_1$", "$\\frac{1$", "a_b $ c^2", "<b>&\"'"])
def test_a_name_is_letters_and_no_formula_nor_markup(sample: Sample, name: str) -> None:
    result = sample()
    result.faults = [FaultWindow(name=name, kind="k", start_s=900, end_s=1500, healed_s=1500)]
    for svg in drawn(result).values():
        texts = [text.text for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
        assert name in texts or "recovery" in svg or "distribution" in svg


def test_a_run_without_columns_or_rows_draws_what_it_has() -> None:
    empty = RunResult(summary=Summary(scenario="s", seed=1, verdict="pass"))
    assert drawn(empty) == {}
    rows: list[Row] = [{"t_s": 0.0, "online": 1}, {"t_s": 1.0, "online": 2}]
    assert list(drawn(RunResult(summary=empty.summary, timeline=rows))) == ["online"]


def test_pngs_are_made_of_every_plot(sample: Sample) -> None:
    result = sample(rows=40)
    found = dict(plots.pngs(result, 3600.0))
    assert set(found) == set(drawn(result))
    for data in found.values():
        width, height = struct.unpack(">II", data[16:24])
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and width > 800 and height > 200
        assert b"tEXtSoftware" not in data
    assert found == dict(plots.pngs(result, 3600.0))


# ---------------------------------------------------------------- what is drawn


def test_long_timelines_keep_their_peaks_gaps_and_rates() -> None:
    rows: list[Row] = [{"t_s": 2 * i, "n": 0, "count": 3} for i in range(5000)]
    rows[1234]["n"] = 99
    for row in rows[2000:2100]:
        del row["n"]
    frame = frames.timeline(rows, 10)
    found = frames.folded(frame, {"n": "max", "count": "rate", "missing": "max"})
    assert len(found) <= frames.POINTS_MAX and found["n"].max() == 99 and list(found) == ["n", "count"]
    assert set(found["count"]) == {1.5}
    assert found["n"].isna().sum() in (8, 9, 10) and found.index[1] == 22.0
    assert set(frames.folded(frame, {"count": "per_minute"}, 7)["count"]) == {90.0}


def test_backlogs_are_added_and_shares_are_of_all_devices() -> None:
    frame = frames.timeline([{"t_s": 0, "outbox": 3, "feed_lag": 4, "converged": 5}, {"t_s": 1, "outbox": 2}], 10)
    assert list(frame["waiting"]) == [7, 2] and frame["in_step"][0] == 0.5 and math.isnan(frame["in_step"][1])


def test_a_recovery_is_seen_from_its_heal() -> None:
    rows: list[Row] = [{"t_s": 10.0 * i, "outbox": 100 - i} for i in range(50)]
    frame = frames.timeline(rows, 1)
    found = frames.recoveries(frame, [("a", 100.0), ("b", 204.0)], "outbox", 50.0)
    assert list(found[0].dropna()) == [90, 89, 88, 87, 86, 85] and found[0].dropna().index[-1] == 50.0
    assert list(found[1].dropna()) == [80, 79, 78, 77, 76, 75] and 6.0 in found.index


def test_heals_of_one_moment_are_one() -> None:
    faults = [
        FaultWindow(name=name, kind="k", start_s=0, end_s=at or 0, healed_s=at)
        for name, at in (("late", 90.0), ("one", 50.0), ("same", 50.0), ("never", None))
    ]
    assert [heal[0] for heal in frames.heals_of(faults, 5)] == ["one", "late"]
    assert [heal[0] for heal in frames.heals_of(faults, 1)] == ["late"]


VALUES = st.lists(st.integers(0, 10**12), min_size=1, max_size=200)


def exact_us(values: list[int], share: float) -> int:
    """Nearest rank."""
    return sorted(values)[max(1, math.ceil(round(share * len(values), 6))) - 1]


@settings(max_examples=80, deadline=None)
@given(VALUES)
def test_percentiles_of_what_is_kept_agree_with_exact_ones_within_one_percent(values: list[int]) -> None:
    recorder = LatencyRecorder()
    for value in values:
        recorder.add(value)
    coarse = recorder.coarse()
    assert sum(count for _, count in coarse) == len(values)
    assert [value for value, _ in coarse] == sorted({value for value, _ in coarse})
    for share in (0.5, 0.9, 0.99, 0.999):
        assert quantile_us(coarse, share) == pytest.approx(exact_us(values, share), rel=0.01)
    found = frames.percentiles([LatencySlot(0.0, coarse, [])], "up")
    assert found["p90"][0] == pytest.approx(exact_us(values, 0.9) / 1e6, rel=0.01)
    assert frames.percentiles([LatencySlot(0.0, coarse, [])], "down").isna().all(axis=None)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_the_curve_of_what_took_longer_is_what_it_says(values: list[int]) -> None:
    recorder = LatencyRecorder()
    for value in values:
        recorder.add(value)
    curve = frames.slower(recorder.coarse())["share"]
    for at_s, share in curve.items():
        below = sum(value / 1e6 <= at_s * 1.01 for value in values)
        above = sum(value / 1e6 > at_s / 1.01 for value in values)
        assert 1 - below / len(values) <= share + 1e-9 <= above / len(values) + 2e-9


def test_memory_of_what_is_kept_is_bounded() -> None:
    recorder = LatencyRecorder()
    for value in range(0, 10**6, 7):
        recorder.add(value)
    assert len(recorder.coarse()) <= 64 * 14 + 128
