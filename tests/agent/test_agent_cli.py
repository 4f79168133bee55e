"""`fleet-agent`: what a person sees, and the exit codes that scripts depend on. Called by pytest only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli import main
from agent.protocol.version import __version__

BROKEN = """{
    format: 'onetable:1.1.0', version: '0.0.1',
    indexes: {primary: {hash: 'pk', sort: 'sk'}},
    params: {typeField: '_type', timestamps: true},
    process: {Status: {enable: 'both', sync: 'upwards'}},
    models: {Status: {
        pk: {type: 'string', value: 'device#${deviceId}'},
        sk: {type: 'string', value: 'status#'},
        deviceId: {type: 'strnig', required: true},
    }},
}
"""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.json5"
    path.write_text(BROKEN)
    return path


@pytest.fixture
def shipped(root: Path) -> str:
    return str(root / "scenarios/schemas/fleet.json5")


def test_a_good_schema_gets_one_line_per_model(shipped: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "check", shipped]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == f"{shipped}: ok, version 0.0.1, 8 models"
    rows = {line.split()[0]: line.split("  ") for line in lines}
    assert list(rows) == ["Status", "Fault", "Config", "Command", "Setting", "Notice", "Diagnostic", "Audit"]
    cells = {name: [cell.strip() for cell in row if cell.strip()] for name, row in rows.items()}
    assert cells["Status"] == ["Status", "device and cloud", "up", "device#${deviceId}", "status#"]
    assert cells["Setting"][1:3] == ["device and cloud", "both ways, latest"]
    assert cells["Notice"][2:] == ["down", "account#${accountId}", "notice#${id}"]
    assert cells["Diagnostic"][1:3] == ["device only", "not synced"]
    assert cells["Audit"][1:3] == ["cloud only", "not synced"]


def test_every_problem_is_printed_with_its_place(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "check", str(broken)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    problems = captured.err.splitlines()
    assert len(problems) == 2
    assert any(line.startswith(f"{broken}:5:") and "upwards" in line for line in problems)
    assert any(line.startswith(f"{broken}:9:") and "string" in line for line in problems)


def test_one_bad_file_does_not_hide_the_others(shipped: str, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(broken.with_name("missing.json5"))
    assert main(["schema", "check", str(broken), missing, shipped]) == 2
    captured = capsys.readouterr()
    assert f"{shipped}: ok" in captured.out
    assert missing in captured.err


def test_json_says_the_same_as_the_lines(shipped: str, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "check", "--json", shipped, str(broken)]) == 2
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert good["ok"] is True
    assert good["models"][0] == {
        "name": "Status",
        "enable": "both",
        "sync": "up",
        "feed": "device",
        "conflict": None,
        "hash": "device#${deviceId}",
        "sort": "status#",
    }
    assert bad["ok"] is False
    assert {(problem["line"], problem["file"]) for problem in bad["problems"]} == {(5, str(broken)), (9, str(broken))}


@pytest.mark.parametrize(
    "arguments", [[], ["schema"], ["schema", "check"], ["nothing"], ["schema", "check", "--x", "f"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: fleet-agent" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["schema", "--help"], ["schema", "check", "--help"]])
def test_help_exits_with_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    assert "usage: fleet-agent" in capsys.readouterr().out


def test_the_version_is_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"fleet-agent {__version__}\n"
