"""`fleet run` and `fleet replay` as a person or a script meets them: exit codes, directories, Ctrl-C, full disks."""

from __future__ import annotations

import csv
import gzip
import json
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_rig import BUSY, CALM, command, fleet, summary_of
from scenario_rig import write
from typer.testing import CliRunner, Result

from agent.protocol.errors import InputError
from fleet import cli
from fleet.cli import build_app
from reports.summary import Summary

FILES = {
    "scenario.effective.yaml",
    "plan.json",
    "summary.json",
    "junit.xml",
    "timeline.csv",
    "devices.csv",
    "report.html",
    "log.txt",
}
TRACE = "trace.jsonl.gz"
FAILING = BUSY + "expect: {thresholds: [counts.local_writes == 0]}\n"
LONG = CALM.replace("count: 4", "count: 80").replace("duration: 12m", "duration: 300h")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), list(arguments))


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A passed run with its trace."""
    directory = tmp_path_factory.mktemp("traced")
    scenario = write(directory, BUSY, "busy.yaml")
    result = invoke("run", str(scenario), "--seed", "3", "--out", str(directory / "run"), "--trace", "-q")
    assert (result.exit_code, result.stdout) == (0, f"{directory / 'run'}\n")
    return directory / "run"


def copied(run: Path, to: Path, leave_out: str = "") -> Path:
    to.mkdir()
    for path in run.iterdir():
        if path.name != leave_out:
            (to / path.name).write_bytes(path.read_bytes())
    return to


# ---------------------------------------------------------------- the run directory


def test_a_run_directory_holds_every_file_and_no_other(traced: Path) -> None:
    assert files(traced) >= FILES | {TRACE}
    assert files(traced) - FILES - {TRACE} == {"checkpoints.json", "figures.json"}
    summary = summary_of(traced)
    assert set(Summary.__struct_fields__) <= set(summary)
    assert (summary["scenario"], summary["seed"], summary["verdict"], summary["devices"]) == ("busy", 3, "pass", 6)
    assert len(list(csv.DictReader((traced / "timeline.csv").read_text().splitlines()))) >= 10
    assert len(list(csv.reader((traced / "devices.csv").read_text().splitlines()))) == 1  # the head alone


def test_a_trace_has_every_event_in_order(traced: Path) -> None:
    with gzip.open(traced / TRACE, "rt") as lines:
        events = [json.loads(line) for line in lines]
    times = [event["t_us"] for event in events]
    assert times == sorted(times) and len(events) > 1000
    assert {"boot", "write", "commit", "saw", "cloud-write", "fault", "healed"} <= {event["kind"] for event in events}
    assert f"{len(events)} events" in (traced / "log.txt").read_text()


def test_the_last_line_is_the_directory_and_quiet_prints_nothing_else(tmp_path: Path) -> None:
    scenario = write(tmp_path, CALM)
    loud = invoke("run", str(scenario), "--out", str(tmp_path / "a"))
    quiet = fleet("run", str(scenario), "--out", str(tmp_path / "b"), "-q")
    assert (loud.exit_code, quiet.returncode) == (0, 0)
    lines = loud.stdout.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100
    assert lines[-1] == str(tmp_path / "a") and lines.index("   CHECKS") > 0
    assert (quiet.stdout, quiet.stderr) == (f"{tmp_path / 'b'}\n", "")


def test_without_out_the_directory_is_named_after_scenario_seed_and_time(tmp_path: Path) -> None:
    done = fleet("run", str(write(tmp_path, CALM)), "--seed", "9", "-q", cwd=tmp_path)
    (made,) = (tmp_path / "runs").iterdir()
    assert done.stdout == f"runs/{made.name}\n" and made.name.startswith("busy-s9-2")


def test_json_prints_the_summary(tmp_path: Path) -> None:
    result = invoke("run", str(write(tmp_path, CALM)), "--out", str(tmp_path / "run"), "--json")
    printed, _, last = result.stdout.rstrip("\n").rpartition("\n")
    summary = json.loads(printed)
    assert last == str(tmp_path / "run") and summary["verdict"] == "pass"
    written = summary_of(tmp_path / "run")
    assert {name: written[name] for name in summary} == summary


# ---------------------------------------------------------------- verdicts


def test_a_failed_run_exits_with_1_and_has_its_trace(tmp_path: Path) -> None:
    result = invoke("run", str(write(tmp_path, FAILING)), "--out", str(tmp_path / "run"))
    assert result.exit_code == 1 and "FAIL" in result.stdout
    assert files(tmp_path / "run") >= FILES | {TRACE}
    assert summary_of(tmp_path / "run")["verdict"] == "fail"


def test_a_planted_bug_is_switched_on_and_recorded(tmp_path: Path) -> None:
    result = invoke("run", str(write(tmp_path, BUSY)), "--out", str(tmp_path / "run"), "--plant", "ack-before-commit")
    summary = summary_of(tmp_path / "run")
    assert summary["plant"] == "ack-before-commit" and summary["reproduce"].endswith("--plant ack-before-commit")
    assert result.exit_code in (0, 1)


def test_a_required_check_that_was_never_evaluated_is_unknown(tmp_path: Path) -> None:
    """Nobody loses power, so that nothing shows whether writes survive."""
    text = CALM + "expect: {checks: [convergence, writes-survive-power-cuts]}\n"
    result = invoke("run", str(write(tmp_path, text)), "--out", str(tmp_path / "run"))
    assert result.exit_code == 3 and summary_of(tmp_path / "run")["verdict"] == "unknown"
    assert "writes-survive-power-cuts" in result.stdout and "never evaluated" in result.stdout
    result = invoke("run", str(write(tmp_path, CALM)), "--out", str(tmp_path / "other"))
    assert result.exit_code == 0, "a check that nobody asked for may stay unknown"


def test_a_threshold_with_nothing_to_measure_is_unknown(tmp_path: Path) -> None:
    quiet = [line for line in CALM.splitlines(keepends=True) if "side: cloud" not in line and "setting" not in line]
    text = "".join(quiet) + "expect: {thresholds: [latency_s.down.p99 < 1h]}\n"
    result = invoke("run", str(write(tmp_path, text)), "--out", str(tmp_path / "run"))
    assert result.exit_code == 3, result.output


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plant", "ack-befor-commit"], "did you mean 'ack-before-commit'?"),
        (["--plant", "x" * 9], "x" * 9),
        (["--devices", "0"], "devices"),
        (["--devices", "-5"], "devices"),
        (["--devices", "many"], "--devices"),
        (["--seed", "-1"], "--seed"),
        (["--workers", "0"], "--workers"),
        (["--set", "cloud.wrokers=2"], "did you mean"),
        (["--set", "duration=5"], "duration"),
        (["--set", "nonsense"], "nonsense"),
        (["--backend", "mongo"], "one of memory, moto, dynamodb"),
        (["--backend", "dynamodb"], "--endpoint-url http://127.0.0.1:PORT"),
        (["--backend", "dynamodb", "--endpoint-url", "http://db.example:8000"], "not on this machine"),
        (["--unknown"], "--unknown"),
    ],
)
def test_bad_input_exits_with_2_and_leaves_nothing_behind(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = fleet("run", str(write(tmp_path, CALM)), "--out", str(tmp_path / "run"), *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr and done.stdout == ""
    assert files(tmp_path) == {"s.yaml"}


@pytest.mark.parametrize("text", ["", "name: [", "{" * 200, CALM.replace("count: 4", "cuont: 4"), "\x00", "- a\n"])
def test_a_broken_scenario_exits_with_2_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    scenario = write(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    result = invoke("run", str(scenario))
    assert isinstance(result.exception, InputError) and files(tmp_path) == {"s.yaml"}
    assert all(str(problem).startswith(str(scenario)) for problem in result.exception.problems)


def test_a_missing_scenario_exits_with_2(tmp_path: Path) -> None:
    done = fleet("run", "outrage", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("outrage") and files(tmp_path) == set()


def test_an_out_that_holds_something_is_refused_before_the_run(tmp_path: Path) -> None:
    scenario = write(tmp_path, LONG)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("x")
    result = invoke("run", str(scenario), "--out", str(tmp_path / "taken"))
    assert result.exit_code == 2 and files(tmp_path / "taken") == {"mine"}
    assert invoke("run", str(scenario), "--out", str(scenario)).exit_code == 2


# ---------------------------------------------------------------- what was run, run again


@pytest.mark.parametrize(
    "arguments",
    [["--devices", "9", "--workers", "3"], ["--set", "duration=10m", "--set", "faults.1.rate=20/h"]],
)
def test_the_reproduce_command_gives_the_same_hash(tmp_path: Path, arguments: list[str]) -> None:
    scenario = write(tmp_path, BUSY, "a scenario.yaml")
    assert invoke("run", str(scenario), "--seed", "5", "--out", str(tmp_path / "a"), *arguments).exit_code == 0
    first = summary_of(tmp_path / "a")
    words = shlex.split(first["reproduce"])
    assert words[0] == "fleet" and words[2] == str(scenario) and first["seed"] == 5
    assert invoke(*words[1:], "--out", str(tmp_path / "b")).exit_code == 0
    second = summary_of(tmp_path / "b")
    assert second["trace_hash"] == first["trace_hash"] and second["reproduce"] == first["reproduce"]
    plain = ["run", str(scenario), "--seed", "5", "--out", str(tmp_path / "c")]
    assert invoke(*plain).exit_code == 0
    assert summary_of(tmp_path / "c")["trace_hash"] != first["trace_hash"], "the options count"


def test_an_effective_scenario_gives_the_same_run(tmp_path: Path, traced: Path) -> None:
    scenario = traced / "scenario.effective.yaml"
    assert invoke("run", str(scenario), "--seed", "3", "--out", str(tmp_path / "run")).exit_code == 0
    assert summary_of(tmp_path / "run")["trace_hash"] == summary_of(traced)["trace_hash"]


def test_a_replay_gives_the_hash_again(tmp_path: Path, traced: Path) -> None:
    trace_hash = summary_of(traced)["trace_hash"]
    for run in (traced, copied(traced, tmp_path / "untraced", TRACE)):
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        result = invoke("replay", str(run))
        assert (result.exit_code, result.stdout) == (0, f"same trace hash: {trace_hash}\n")
        assert {path.name: path.read_bytes() for path in run.iterdir()} == before, "a replay writes nothing"
    result = invoke("replay", str(traced / "plan.json"))
    assert (result.exit_code, result.stdout) == (0, f"trace hash: {trace_hash}\n")


def tamper_plan(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text())
    plan["workloads"][0]["every_us"] += 1_000_000
    (run / "plan.json").write_text(json.dumps(plan))


def tamper_hash(run: Path) -> None:
    summary = summary_of(run)
    (run / "summary.json").write_text(json.dumps({**summary, "trace_hash": "0" * 32}))


def test_a_tampered_plan_is_found_at_its_first_event(tmp_path: Path, traced: Path) -> None:
    run = copied(traced, tmp_path / "run")
    tamper_plan(run)
    result = invoke("replay", str(run))
    assert result.exit_code == 1
    first, where, recorded, now = result.stdout.splitlines()
    assert first.startswith(f"trace hash differs: recorded {summary_of(traced)['trace_hash']}, now ")
    number = int(where.split("event ")[1].split(",")[0])
    with gzip.open(traced / TRACE, "rt") as lines:
        events = list(lines)
    assert recorded.removeprefix("  recorded: ") == events[number - 1].rstrip("\n")
    assert now.removeprefix("  now:      ") != events[number - 1].rstrip("\n") and 0 < number < len(events)


def test_without_a_trace_the_block_of_events_is_named(tmp_path: Path, traced: Path) -> None:
    run = copied(traced, tmp_path / "run", TRACE)
    tamper_plan(run)
    result = invoke("replay", str(run))
    assert result.exit_code == 1 and "first difference: among events 1 to " in result.stdout
    assert "--trace" in result.stdout


def test_a_tampered_hash_is_found(tmp_path: Path, traced: Path) -> None:
    run = copied(traced, tmp_path / "run")
    tamper_hash(run)
    result = invoke("replay", str(run))
    assert result.exit_code == 1 and f"recorded {'0' * 32}, now {summary_of(traced)['trace_hash']}" in result.stdout


def test_a_record_that_ends_early_or_goes_on_is_found(tmp_path: Path, traced: Path) -> None:
    with gzip.open(traced / TRACE, "rt") as lines:
        events = list(lines)
    for name, kept, said in (
        ("short", events[:-1], "the record ends here"),
        ("long", [*events, events[-1]], "the replay ends here"),
    ):
        run = copied(traced, tmp_path / name, TRACE)
        tamper_hash(run)
        with gzip.open(run / TRACE, "wt") as file:
            file.writelines(kept)
        result = invoke("replay", str(run))
        assert result.exit_code == 1 and said in result.stdout


@pytest.mark.parametrize("name", ["plan.json", "summary.json", TRACE])
def test_a_broken_run_directory_is_bad_input(tmp_path: Path, traced: Path, name: str) -> None:
    run = copied(traced, tmp_path / "run")
    (run / name).write_bytes((run / name).read_bytes()[:100])
    done = fleet("replay", str(run))
    assert done.returncode == 2 and str(run) in done.stderr and "Traceback" not in done.stderr
    assert fleet("replay", str(tmp_path / "nothing")).returncode == 2


# ---------------------------------------------------------------- interrupted, full, broken


def interrupted(scenario: Path, out: Path) -> tuple[int, str, str]:
    """Ctrl-C as soon as it says how far it is."""
    process = subprocess.Popen(
        command("run", str(scenario), "--out", str(out)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert " online, backlog " in first, first
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate()
    return process.returncode, said, errors


def test_ctrl_c_writes_the_report_of_what_ran_and_it_can_be_replayed(tmp_path: Path) -> None:
    code, said, errors = interrupted(write(tmp_path, LONG), tmp_path / "run")
    assert code == 130 and said.splitlines()[-1] == str(tmp_path / "run")
    assert "interrupted: ending in good order" in errors and "Traceback" not in errors
    assert files(tmp_path / "run") >= FILES
    summary = summary_of(tmp_path / "run")
    assert summary["interrupted"] and summary["virtual_s"] < 300 * 3600 and summary["verdict"] == "unknown"
    assert not [check for check in summary["checks"] if check["status"] == "fail"]
    again = invoke("replay", str(tmp_path / "run"))
    assert again.exit_code == 0 and summary["trace_hash"] in again.stdout


def limited(size_bytes: int) -> Callable[[], None]:
    """As a full disk: no file may grow beyond that."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def test_a_full_disk_is_said_and_nothing_half_written_stays(tmp_path: Path) -> None:
    scenario = write(tmp_path, CALM)
    done = fleet("run", str(scenario), "--out", str(tmp_path / "deep" / "run"), preexec_fn=limited(8_192))
    assert done.returncode == 4 and "Traceback" not in done.stderr
    assert f"{tmp_path / 'deep' / 'run'}: cannot write the run directory: " in done.stderr
    assert files(tmp_path) == {"s.yaml"}
    done = fleet("run", str(scenario), "--out", str(tmp_path / "run"), "--trace", preexec_fn=limited(8_192))
    assert done.returncode == 4 and "cannot write the trace" in done.stderr and files(tmp_path) == {"s.yaml"}


@pytest.mark.parametrize("error", [ZeroDivisionError("of the\nworld"), BaseException("power")])
def test_an_internal_error_is_one_line_and_its_traceback_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    def broken(*_arguments: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr("fleet.run.execute", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["fleet", "run", "baseline", "--devices", "4", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 4
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = (path for path in tmp_path.iterdir() if path.name.startswith("fleet-error-"))
    assert line.startswith(f"fleet: internal error: {type(error).__name__}: ") and str(log) in line
    assert "Traceback" in log.read_text() and "in broken" in log.read_text() and files(tmp_path) == {log.name}


def test_a_run_that_is_not_deterministic_is_the_harness_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed run is run again for its trace: another hash then is no finding about the code under test."""
    hashes = iter(("a" * 32, "b" * 32))
    monkeypatch.setattr("fleet.trace.Trace.finish", lambda _self: next(hashes))
    result = invoke("run", str(write(tmp_path, FAILING)), "--out", str(tmp_path / "run"))
    assert result.exit_code == 4 and "not deterministic" in result.stderr


@pytest.mark.parametrize(("text", "code"), [(BUSY, 0), (FAILING, 1)], ids=["passed", "failed"])
@pytest.mark.parametrize("more", [(), ("--json",), ("-q",)], ids=["summary", "json", "quiet"])
def test_a_reader_who_has_seen_enough_changes_no_exit_code(
    tmp_path: Path, text: str, code: int, more: tuple[str, ...]
) -> None:
    words = ("run", str(write(tmp_path, text, "x.yaml")), "--out", str(tmp_path / "run"), *more)
    with subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout and running.stderr
        running.stdout.close()
        said = running.stderr.read()
    assert running.returncode == code, said
    assert "Error" not in said and "Traceback" not in said
    assert summary_of(tmp_path / "run")["verdict"] == ("pass", "fail")[code]
