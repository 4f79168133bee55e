"""The commands validate, schema, list and init: what they print, and what they exit with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scenario_rig import GOOD, changed, write
from typer.testing import CliRunner

from fleet.cli import build_app, main
from fleet.commands import help_text


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `fleet ARGUMENTS`, as a process has them."""
    code = "import sys; from fleet.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_right_scenario_is_one_line(tmp_path: Path) -> None:
    code, out, err = call("validate", str(write(tmp_path, GOOD)), "baseline")
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first.endswith("s.yaml: ok: 9 devices, 30m, broker-outage, power-cut, cut, relay-kill")
    assert second == "baseline: ok: 200 devices, 1h, no faults"


def test_every_mistake_is_one_line_and_the_exit_code_is_2(tmp_path: Path) -> None:
    bad = write(tmp_path, changed("count: 6", "count: -6").replace("kind: power-cut", "kind: powercut"))
    code, out, err = call("validate", str(bad), "baseline")
    assert (code, err) == (2, "")
    lines = out.splitlines()
    assert [line.startswith(f"{bad}:") for line in lines] == [True, True, False]
    assert lines[0].startswith(f"{bad}:5:25: devices[0].count: must be at least 1, found -6")


def test_validate_prints_json(tmp_path: Path) -> None:
    bad = write(tmp_path, changed("count: 6", "count: -6"))
    result = CliRunner().invoke(build_app(), ["validate", "--json", str(bad), "baseline"])
    first, second = json.loads(result.stdout)
    assert result.exit_code == 2
    assert (first["ok"], first["problems"][0]["line"], second["ok"], second["devices"]) == (False, 5, True, 200)


def test_overrides_are_checked_too() -> None:
    result = CliRunner().invoke(build_app(), ["validate", "outage", "--set", "duration=5", "--devices", "10"])
    assert result.exit_code == 2 and "--set duration=5: duration: expected a duration" in result.stdout


def test_the_schema_is_json() -> None:
    code, out, _ = call("schema")
    assert code == 0 and json.loads(out)["title"] == "Fleet scenario"


def test_the_list_names_every_shipped_scenario() -> None:
    result = CliRunner().invoke(build_app(), ["list", "--json"])
    assert {entry["name"] for entry in json.loads(result.stdout)} >= {"baseline", "outage", "conflict"}
    result = CliRunner().invoke(build_app(), ["list"])
    assert "Proves" in result.stdout and max(map(len, result.stdout.splitlines())) <= 100
    result = CliRunner().invoke(build_app(), ["list", "--links"])
    assert "nb-iot" in result.stdout and max(map(len, result.stdout.splitlines())) <= 100


def test_init_writes_a_scenario_that_is_right_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tmp_path / "new" / "scenarios"
    code, out, _ = call("init", str(where))
    assert code == 0 and f"wrote {where / 'scenario.yaml'}" in out
    assert sorted(path.name for path in where.iterdir()) == ["fleet.json5", "scenario.yaml"]
    assert call("validate", str(where / "scenario.yaml"))[0] == 0
    (where / "scenario.yaml").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["fleet", "init", str(where)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("exists already") == 2
    assert (where / "scenario.yaml").read_text() == "mine"


def test_init_into_a_file_is_refused(tmp_path: Path) -> None:
    code, _, err = call("init", str(write(tmp_path, "x", "file") / "below"))
    assert code == 2 and "cannot be written" in err and "Traceback" not in err


def test_help_and_version() -> None:
    result = CliRunner().invoke(build_app(), ["--version"])
    assert result.exit_code == 0 and result.stdout.startswith("fleet ")
    result = CliRunner().invoke(build_app(), ["--help"])
    assert all(command in result.stdout for command in ("validate", "schema", "list", "init"))
    assert CliRunner().invoke(build_app(), ["nothing"]).exit_code == 2


@pytest.mark.parametrize("command", [[], ["run"], ["replay"], ["validate"], ["list"], ["init"], ["schema"]])
def test_help_fits_its_terminal_and_shows_no_types_of_flags(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (72, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERMINAL_WIDTH", str(columns))
        shown = CliRunner().invoke(build_app(), [*command, "--help"]).stdout
        assert max(map(len, shown.splitlines())) <= columns
        assert "bool" not in shown and "{" not in shown


def test_help_fills_paragraphs_and_keeps_what_is_indented() -> None:
    assert help_text.filled("A b\n    c.\n\n    D\n    e.\n\n      0  f\n      1  g\n    ") == (
        "A b c.\n\nD e.\n\n  0  f\n  1  g"
    )
