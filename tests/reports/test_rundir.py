"""The run directory is written whole or not at all, and read back as it was."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import IO

import pytest

from reports import html, rundir
from reports.result import RunResult
from reports.rundir import RunDirError, check_out, default_directory, load_run, read_trace, write_run, write_trace

Sample = Callable[..., RunResult]
FILES = {
    "scenario.effective.yaml", "plan.json", "summary.json", "junit.xml", "timeline.csv", "devices.csv", "report.html",
    "log.txt", "checkpoints.json", "figures.json",
}  # fmt: skip
NOW = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_all_files_are_written_and_the_run_is_read_back(sample: Sample, tmp_path: Path) -> None:
    result = sample(failing=True)
    events = [b'{"n":1}', b'{"n":2}']
    directory = write_run(result, tmp_path / "a" / "b", trace_lines=iter(events))
    assert names(directory) == FILES | {"trace.jsonl.gz"}
    assert load_run(directory) == result
    assert list(read_trace(directory)) == events
    assert gzip.decompress((directory / "trace.jsonl.gz").read_bytes()) == b'{"n":1}\n{"n":2}\n'


def test_the_same_run_gives_the_same_bytes(sample: Sample, tmp_path: Path) -> None:
    one, two = (write_run(sample(), tmp_path / name, trace_lines=[b"{}"]) for name in ("one", "two"))
    for name in sorted(names(one)):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_the_summary_is_renamed_last(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = os.replace

    def spy(source: Path, target: Path) -> None:
        order.append(target.name)
        real(source, target)

    monkeypatch.setattr(os, "replace", spy)
    write_run(sample(), tmp_path / "run", trace_lines=[])
    assert order[-1] == "summary.json" and len(order) == len(FILES) + 1


@pytest.mark.parametrize("good_files", range(11))
@pytest.mark.parametrize("existed", [False, True])
def test_a_full_disk_leaves_nothing(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good_files: int, existed: bool
) -> None:
    written = 0
    real = rundir._write_one

    def fill(path: Path, write: Callable[[IO[bytes]], None]) -> None:
        nonlocal written
        if written == good_files:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += 1
        real(path, write)

    monkeypatch.setattr(rundir, "_write_one", fill)
    monkeypatch.setattr(html, "render", lambda result: "<html>")
    directory = tmp_path / "runs" / "one"
    if existed:
        directory.mkdir(parents=True)
    with pytest.raises(RunDirError, match="No space left on device") as caught:
        write_run(sample(rows=3), directory, trace_lines=[b"{}"])
    assert caught.value.exit_code == 4
    assert str(directory) in str(caught.value)
    if existed:
        assert names(directory) == set()
    else:
        assert names(tmp_path) == set()


def test_a_failed_rename_leaves_nothing(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def fail_late(source: Path, target: Path) -> None:
        if target.name == "log.txt":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(os, "replace", fail_late)
    with pytest.raises(RunDirError):
        write_run(sample(rows=3), tmp_path / "run")
    assert names(tmp_path) == set()


LIMITED = """
import resource, sys
from pathlib import Path
import msgspec
from reports.result import RunResult
from reports.rundir import RunDirError, write_run
result = msgspec.json.decode(sys.stdin.buffer.read(), type=RunResult)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_run(result, Path(sys.argv[1]))
except RunDirError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_real_limit_of_the_system_leaves_nothing(sample: Sample, tmp_path: Path) -> None:
    import msgspec

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "run")],
        input=msgspec.json.encode(sample()),
        capture_output=True,
        cwd=Path(rundir.__file__).parents[1],
        timeout=60,
    )
    assert done.returncode == 4, done.stderr.decode()
    assert b"cannot write the run directory" in done.stdout
    assert not (tmp_path / "run").exists()


def test_an_interrupt_while_writing_leaves_nothing(sample: Sample, tmp_path: Path) -> None:
    def events() -> object:
        yield b"{}"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_run(sample(rows=3), tmp_path / "run", trace_lines=events())  # type: ignore[arg-type]
    assert names(tmp_path) == set()


def test_a_trace_that_cannot_be_added_leaves_the_run_as_it_was(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_run(sample(rows=3), tmp_path / "run")

    def full(path: Path, write: Callable[[IO[bytes]], None]) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(rundir, "_write_one", full)
    with pytest.raises(RunDirError, match="left as it was"):
        write_trace(directory, [b"{}"])
    assert names(directory) == FILES


def test_a_directory_that_holds_something_is_refused(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunDirError, match=r"not empty \(holds mine.txt\)") as caught:
        write_run(sample(), tmp_path)
    assert caught.value.exit_code == 2
    assert names(tmp_path) == {"mine.txt"}
    with pytest.raises(RunDirError, match="not a directory") as caught:
        check_out(tmp_path / "mine.txt")
    assert caught.value.exit_code == 2


def test_the_name_holds_scenario_seed_and_utc_time(tmp_path: Path) -> None:
    path = default_directory(tmp_path, "outage", 7, NOW)
    assert path == tmp_path / "outage-s7-20310203T040506Z"
    path.mkdir()
    assert default_directory(tmp_path, "outage", 7, NOW).name == "outage-s7-20310203T040506Z-2"
    east = NOW.astimezone(timezone(timedelta(hours=5)))
    assert default_directory(tmp_path / "x", "outage", 7, east).name == "outage-s7-20310203T040506Z"
    with pytest.raises(ValueError, match="time zone"):
        default_directory(tmp_path, "outage", 7, NOW.replace(tzinfo=None))


@pytest.mark.parametrize("name", ["../../etc", "/abs", "..", "", "a\nb", "x" * 500, "-rf", ".hidden"])
def test_a_hostile_scenario_name_stays_inside_the_root(name: str, tmp_path: Path) -> None:
    path = default_directory(tmp_path, name, 1, NOW)
    assert path.parent == tmp_path
    assert path.resolve().parent == tmp_path.resolve()
    assert len(path.name) < 120 and not path.name.startswith((".", "-"))


def test_a_hostile_run_is_written_and_read_back(hostile: RunResult, tmp_path: Path) -> None:
    directory = write_run(hostile, tmp_path / "run")
    back = load_run(directory)
    assert back.summary == hostile.summary
    assert back.faults == hostile.faults
    assert len(back.devices) == 1 and len(back.log) == 1
    assert "\x1b" not in (directory / "log.txt").read_text()
    assert ET.parse(directory / "junit.xml").getroot().tag == "testsuites"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("summary.json", None, "not the directory of a finished run"),
        ("summary.json", b"{", "truncated"),
        ("summary.json", b'{"scenario": "x", "seed": "one", "verdict": "pass"}', r"\$\.seed"),
        ("timeline.csv", None, "no such file"),
        ("timeline.csv", b"t_s,online\n1,many\n", "line 2, column online"),
        ("timeline.csv", b"t_s,online\n1\n", "line 2: 1 cells, expected 2"),
        ("timeline.csv", b"", "empty"),
        ("devices.csv", b"a,b\n", "expected the columns device, group"),
        ("plan.json", b"not json", "plan.json"),
        ("log.txt", b"\xff\xfe", "not UTF-8"),
        ("checkpoints.json", b"[[1]]", "checkpoints.json"),
        ("figures.json", b'{"phases": 1}', "figures.json"),
    ],
)
def test_a_broken_directory_is_named_with_file_and_reason(
    sample: Sample, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    directory = write_run(sample(rows=3), tmp_path / "run")
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_bytes(content)
    with pytest.raises(RunDirError, match=said) as caught:
        load_run(directory)
    assert caught.value.exit_code == 2
    assert str(directory) in str(caught.value)


def test_a_missing_directory_and_a_broken_trace_are_named(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="no such run directory"):
        load_run(tmp_path / "nowhere")
    directory = write_run(sample(rows=3), tmp_path / "run", trace_lines=[b"{}" * 500])
    packed = (directory / "trace.jsonl.gz").read_bytes()
    (directory / "trace.jsonl.gz").write_bytes(packed[:-9])
    with pytest.raises(RunDirError, match=r"trace\.jsonl\.gz"):
        list(read_trace(directory))


def test_the_plan_is_read_from_a_run_and_from_its_own_file(sample: Sample, tmp_path: Path) -> None:
    result = sample(rows=3)
    directory = write_run(result, tmp_path / "run")
    assert rundir.load_plan(directory) == rundir.load_plan(directory / "plan.json") == result.plan_json
