"""The README's picture of a report: it is there, and `python -m docs.picture` makes it as it says."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from docs import picture

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


def test_the_readme_shows_the_picture_in_its_size() -> None:
    assert "](docs/report.png)" in (ROOT / "README.md").read_text("utf-8")
    head = picture.TARGET.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:24]) == (picture.WIDTH_PX, picture.HEIGHT_PX)


def test_the_command_shows_the_report_of_a_run_to_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = tmp_path / "bin" / "chromium"
    browser.parent.mkdir()
    browser.write_text(BROWSER)
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", str(browser.parent), prepend=":")
    assert picture.main(["--devices", "2", "--to", str(tmp_path / "shown.html")]) == 0
    page = (tmp_path / "shown.html").read_text("utf-8")
    assert "fleet run scenarios/outage.yaml --seed 1 --devices 2" in page and "The run in time" in page


def test_without_a_browser_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert picture.main(["--to", str(tmp_path / "none.png")]) == 2
    assert "no browser: none of chromium" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
