"""The pictures of reports in the documents: they are there, and `python -m docs.picture` makes them as it says."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from docs import picture
from docs.picture import PICTURES

ROOT = Path(__file__).parents[1]
BROWSER = """#!/bin/sh
for flag; do
    case "$flag" in
        --screenshot=*) target="${flag#--screenshot=}" ;;
        file://*) page="${flag#file://}" ;;
        --user-data-dir=*) test -d "${flag#--user-data-dir=}" || exit 3 ;;
    esac
done
cp "$page" "$target"
"""


@pytest.mark.parametrize("one", PICTURES, ids=lambda one: one.name)
def test_a_document_shows_each_picture_in_its_size(one: picture.Picture) -> None:
    texts = [(ROOT / name).read_text("utf-8") for name in ("README.md", "docs/reports.md")]
    assert any(f"]({place}{one.name})" in text for text, place in zip(texts, ("docs/", ""), strict=True))
    head = (picture.FOLDER / one.name).read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:24]) == (picture.WIDTH_PX, one.height_px)


def test_the_command_shows_the_reports_of_runs_to_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = tmp_path / "bin" / "chromium"
    browser.parent.mkdir()
    browser.write_text(BROWSER)
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", str(browser.parent), prepend=":")
    monkeypatch.setattr(picture, "prepare", lambda: None)  # this process has its SQLite already
    assert picture.main(["--devices", "2", "--to", str(tmp_path)]) == 0
    pages = {one.name: (tmp_path / one.name).read_text("utf-8") for one in PICTURES}
    assert "fleet run scenarios/outage.yaml --seed 1 --devices 2" in pages["report.png"]
    assert "First bad event" in pages["report-failure.png"] and 'tr class="fail"' in pages["report-failure.png"]
    for one in PICTURES:
        assert f'id="{one.section}"' in pages[one.name] or not one.section
        assert (f":not(#{one.section})" in pages[one.name]) == bool(one.section)


def test_without_a_browser_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert picture.main(["--to", str(tmp_path)]) == 2
    assert "no browser: none of chromium" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
