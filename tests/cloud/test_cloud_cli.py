"""`fleet-cloud`: what a person sees, and the exit codes that scripts depend on. Called by pytest only."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agent.protocol.version import __version__
from cloud.cli import main


@pytest.fixture
def shipped(root: Path) -> str:
    return str(root / "scenarios/schemas/fleet.json5")


def test_the_listing_names_the_feed_that_a_model_reaches_devices_by(
    shipped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", shipped]) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    feeds = {row[0].strip(): next(cell.strip() for cell in row if "feed" in cell) for row in rows}
    assert feeds == {
        "Status": "no feed",
        "Fault": "no feed",
        "Config": "feed device",
        "Command": "feed device",
        "Setting": "feed device",
        "Notice": "feed account",
        "Diagnostic": "no feed",
        "Audit": "no feed",
    }


def test_json_has_every_model(shipped: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json", shipped]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in listed["models"]][:2] == ["Status", "Fault"]
    assert [model["conflict"] for model in listed["models"] if model["sync"] == "both"] == ["latest"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{format: 'onetable:1.1.0', modles: {}}"])
def test_a_bad_schema_exits_with_2_and_its_place(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.json5"
    path.write_text(text)
    assert main(["models", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(str(path))
    assert main(["models", "--json", str(path)]) == 2
    assert json.loads(capsys.readouterr().out)["problems"][0]["file"] == str(path)


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
    assert "usage: fleet-cloud" in capsys.readouterr().err


def test_the_version_is_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"fleet-cloud {__version__}\n"


def test_a_command_whose_extra_is_missing_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trio", None)
    monkeypatch.delitem(sys.modules, "cloud.commands.relay", raising=False)
    assert main(["relay", "--table", "ioto"]) == 2
    assert capsys.readouterr().err == "fleet-cloud: trio is not installed (pip install 'fleet-sync[cloud]')\n"
