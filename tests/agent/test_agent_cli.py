"""`fleet-agent`: what a person sees, and the exit codes that scripts depend on. Called by pytest only."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from agent.cli import main
from agent.commands.grammar import COMMANDS
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
    head, columns, *lines = capsys.readouterr().out.splitlines()
    assert head == f"{shipped}: ok, version 0.0.1, 8 models"
    assert columns.split() == ["model", "enable", "sync", "keys", "fields", "notes"]
    rows = {line.split()[0]: [cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines}
    assert list(rows) == ["Status", "Fault", "Config", "Command", "Setting", "Notice", "Diagnostic", "Audit"]
    assert rows["Status"] == ["Status", "both", "up", "device#${deviceId} / status#", "8"]
    assert rows["Setting"] == [
        "Setting",
        "both",
        "both",
        "device#${deviceId} / setting#${name}",
        "7",
        "conflict latest",
    ]
    assert rows["Notice"][2:] == ["down", "account#${accountId} / notice#${id}", "6", "of the account"]
    assert rows["Diagnostic"][1:3] == ["device", "none"]
    assert rows["Audit"][1:3] == ["cloud", "none"]


UNUSUAL = """{
    version: '1', params: {timestamps: true},
    indexes: {primary: {hash: 'pk', sort: 'sk'}, gs1: {hash: 'gs1pk', sort: 'gs1sk'}, ls1: {type: 'local', sort: 'at'}},
    process: {
        Log: {enable: 'both', sync: 'up', period: 1.5, orphans: 'remove'},
        News: {enable: 'both', sync: 'down', mem: true},
    },
    models: {
        Log: {
            pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'log#${id}'},
            id: {type: 'string'}, until: {type: 'date', ttl: true}, gs1pk: {type: 'string', value: 'log'},
            gs1sk: {type: 'string', value: '${id}'},
        },
        News: {pk: {type: 'string', value: 'all#'}, sk: {type: 'string', value: 'news#${id}'}, id: {type: 'string'}},
        Free: {pk: {type: 'string'}, sk: {type: 'string'}, email: {type: 'string', unique: true}, at: {type: 'number'}},
    },
}
"""


def test_what_is_unusual_about_a_model_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "unusual.json5"
    path.write_text(UNUSUAL)
    assert main(["schema", "check", str(path)]) == 0
    log, news, free = capsys.readouterr().out.splitlines()[2:]
    assert log.endswith("  period 1.5s, orphans remove, ttl until, indexes gs1")
    assert news.endswith("  of every device, in memory")
    assert "(given) / (given)" in free
    assert free.endswith("  unique email, indexes ls1")


def test_every_problem_is_printed_with_its_place(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "check", str(broken)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    first, source, caret, second, *_ = captured.err.splitlines()
    assert first.startswith(f"{broken}:5:") and "upwards" in first
    assert source == "    process: {Status: {enable: 'both', sync: 'upwards'}},"
    assert source[caret.index("^") :].startswith("'upwards'")
    assert second.startswith(f"{broken}:9:") and "(did you mean 'string'?)" in second


def test_a_problem_in_a_blended_file_is_shown_there(
    tmp_path: Path, shipped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.json5").write_text(
        "{models: {\n\tExtra: {\tid: {type: 'strin'}, pk: {type: 'string'}, sk: {type: 'string'}}}}"
    )
    path = tmp_path / "main.json5"
    path.write_text(Path(shipped).read_text().replace("{\n", "{blend: ['more.json5'],\n", 1))
    assert main(["schema", "check", str(path)]) == 2
    problem, source, caret = capsys.readouterr().err.splitlines()
    assert problem.startswith(f"{tmp_path / 'more.json5'}:2:22: models.Extra.id.type:")
    assert source[caret.index("^") :].startswith("'strin'")
    (tmp_path / "more.json5").write_text("{models: {Extra: {pk: {type: 'string'}, sk: {type: 'string'}}}}")
    assert main(["schema", "check", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("9 models")


def test_a_problem_in_a_long_line_is_shown_with_what_is_around_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.json5"
    path.write_text("{version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}}, models: {" + " " * 400 + "A: 5, }}")
    assert main(["schema", "check", str(path)]) == 2
    _, source, caret = capsys.readouterr().err.splitlines()
    assert len(source) <= 100
    assert source[caret.index("^")] == "5"


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


@pytest.mark.parametrize("columns", [72, 100])
@pytest.mark.parametrize("command", [[], ["schema", "check"], *([command.name] for command in COMMANDS)])
def test_help_fits_its_terminal(
    command: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    assert "Exit codes: 0 done" in shown.replace("\n", " ")


def test_every_command_has_its_function() -> None:
    for command in COMMANDS:
        module, _, function = command.run.partition(":")
        assert callable(getattr(importlib.import_module(f"agent.commands.{module}"), function))


def test_the_version_is_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"fleet-agent {__version__}\n"
