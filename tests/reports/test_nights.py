"""The history of nights: what a line holds survives, the table and the picture say what they should."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from reports.nights import HISTORY, PICTURE, TEXT, NightRow, append, picture, probes_gone, read_history, trend_lines
from reports.nights import write_trend as write

KNOWN = ("gap_seen", "retransmit", "row_oversize")


def row(night: int, runs: int = 100, **probes: float) -> NightRow:
    return NightRow(
        night=night,
        started=f"2026-01-{night:02d}T01:17:00Z",
        seed=night,
        verdict="pass",
        runs=runs,
        events_per_s=10_000.0 + night,
        canary="echo",
        canary_seeds=2,
        probes=probes,
    )


def test_a_line_a_night_and_one_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    rows = [row(1, gap_seen=0.5), row(2), row(3)]
    for one in rows[:2]:
        append(tmp_path, one)
    path = tmp_path / HISTORY
    path.write_bytes(path.read_bytes()[:-20])
    append(tmp_path, rows[2])
    assert read_history(tmp_path) == [rows[0], rows[2]]
    assert read_history(tmp_path / "nowhere") == []


def test_a_probe_that_used_to_be_hit_and_no_longer_is_is_told() -> None:
    before = [row(night, gap_seen=0.5, retransmit=0.02) for night in (1, 2, 3)]
    assert probes_gone([*before, row(4, gap_seen=0.1)]) == []  # the other was to be hit twice: that is chance
    assert probes_gone([*before, row(4, 1000, gap_seen=0.1)]) == ["retransmit"]
    assert probes_gone([*before, row(4)]) == ["gap_seen"]
    assert probes_gone([row(1, gap_seen=0.9), row(2, gap_seen=0.0), row(3)]) == ["gap_seen"]
    assert probes_gone([row(1)]) == []
    told = "\n".join(trend_lines([*before, row(4, 1000, gap_seen=0.001)], KNOWN))
    assert "hit in the nights before, and no more: retransmit" in told
    assert "in less than 1% of the runs: gap_seen" in told and "in no night: row_oversize" in told


def test_the_table_has_the_last_nights_and_says_when_the_canary_was_not_found() -> None:
    rows = [row(night) for night in range(1, 20)]
    lost = NightRow(night=20, started="2026-01-20T01:17:00Z", seed=1, verdict="error", canary="echo", canary_seeds=0)
    lines = trend_lines([*rows, lost], KNOWN)
    assert "NOT FOUND" in lines[14] and lines[1].split()[0] == "7"
    assert all(len(line) <= 120 for line in lines)
    assert len(trend_lines([], KNOWN)) == 1


def test_the_picture_is_one_svg_with_a_panel_for_each_trend(tmp_path: Path) -> None:
    assert picture([row(1)]) == ""
    write(tmp_path, [row(1)], KNOWN)
    assert (tmp_path / TEXT).exists() and not (tmp_path / PICTURE).exists()
    write(tmp_path, [row(1), row(2), row(3)], KNOWN)
    root = ET.fromstring((tmp_path / PICTURE).read_text())
    said = " ".join(root.itertext())
    for title in ("Events", "Updates", "Memory", "corpus", "Probes"):
        assert title in said
    assert picture([row(1), row(2)]) == picture([row(1), row(2)])
