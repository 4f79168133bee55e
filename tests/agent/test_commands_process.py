"""`fleet-agent` as a process of its own: pipes that close, interrupts, two at once, watching. Called by pytest only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import pytest
from command_rig import DEVICE, SCHEMA

from agent.files import open_file

COMMAND: Final = (sys.executable, "-m", "agent.cli")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "schema.json5").write_text(SCHEMA)
    return tmp_path


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    return {**kept, "FLEET_DEVICE": DEVICE}


def run(folder: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *words]
    return subprocess.run(command, cwd=folder, env=environment(), input=stdin, capture_output=True, text=True)


def begin(folder: Path, items: int = 1) -> None:
    for number in range(items):
        assert run(folder, "create", "Setting", f"s{number}", f"level={number}").returncode == 0


class Watcher:
    """A running `watch` that has taken its first look."""

    def __init__(self, folder: Path, *words: str) -> None:
        command = [*COMMAND, "watch", "--interval", "0.02", *words]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True, preexec_fn=_heed_interrupts
        )
        self.greeting = _stream(self.process.stderr).readline()

    def event(self) -> Any:
        return json.loads(_stream(self.process.stdout).readline())

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def _heed_interrupts() -> None:
    """Also where the tests were started in the background by a shell, which has what it starts so ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@pytest.fixture
def watchers(folder: Path) -> Iterator[list[Watcher]]:
    running: list[Watcher] = []
    yield running
    for watcher in running:
        watcher.process.kill()
        watcher.process.communicate()


def test_a_watcher_sees_what_other_commands_do(folder: Path, watchers: list[Watcher]) -> None:
    begin(folder)
    watcher = Watcher(folder, "Setting", "--count", "3")
    watchers.append(watcher)
    assert watcher.greeting == "watching Setting in agent.db: 1 items now\n"
    assert run(folder, "create", "Report", "level=1").returncode == 0  # not of the model that is watched
    made = json.loads(run(folder, "create", "Setting", "bass", "level=1").stdout)
    event = watcher.event()
    assert {name: event[name] for name in ("event", "model", "item", "before")} == {
        "event": "created", "model": "Setting", "item": made, "before": None,
    }  # fmt: skip
    assert event["key"] == ["device#dev-1", "setting#bass"]
    changed = json.loads(run(folder, "update", "Setting", "bass", "level=2").stdout)
    event = watcher.event()
    assert (event["event"], event["item"], event["before"]) == ("updated", changed, made)
    assert run(folder, "remove", "Setting", "bass").returncode == 0
    event = watcher.event()
    assert (event["event"], event["item"], event["before"]) == ("removed", None, changed)
    assert watcher.end() == (0, "", "")


def test_a_watcher_shows_a_person_what_has_changed(folder: Path, watchers: list[Watcher]) -> None:
    begin(folder)
    watcher = Watcher(folder, "--table", "--count", "2")
    watchers.append(watcher)
    assert run(folder, "update", "Setting", "s0", "level=7", "mode=on").returncode == 0
    line = _stream(watcher.process.stdout).readline()
    assert line.split()[1:] == ["updated", "Setting", "name=s0", "level=0→7", "mode=none→on"]
    assert run(folder, "remove", "Setting", "s0").returncode == 0
    assert _stream(watcher.process.stdout).readline().split()[1:4] == ["removed", "Setting", "name=s0"]


def test_a_watcher_waits_for_an_agent_and_says_so(folder: Path, watchers: list[Watcher]) -> None:
    begin(folder)
    watcher = Watcher(folder, "--count", "1")
    watchers.append(watcher)
    connection = open_file(folder / "agent.db")
    connection.execute("UPDATE item SET updated=updated")
    connection.execute("UPDATE outbox SET kind='delete', image=NULL WHERE kind='create'")
    line = _stream(watcher.process.stderr).readline()
    assert line.startswith("waiting: ") and f"in use by process {os.getpid()}" in line and "Database.on" in line
    connection.close()
    assert watcher.event()["event"] == "removed"


def test_a_watcher_does_not_begin_on_a_file_that_an_agent_has(folder: Path) -> None:
    begin(folder)
    connection = open_file(folder / "agent.db")
    done = run(folder, "watch")
    connection.close()
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"in use by process {os.getpid()} (stop it first;" in line


def test_an_interrupted_watcher_is_quiet(folder: Path, watchers: list[Watcher]) -> None:
    begin(folder)
    watcher = Watcher(folder)
    watchers.append(watcher)
    watcher.process.send_signal(signal.SIGINT)
    assert watcher.end() == (130, "", "")


@pytest.mark.parametrize("words", [["--interval", "0"], ["--interval", "nan"], ["--count", "0"], ["Nothing"]])
def test_a_watcher_that_cannot_be_is_refused(folder: Path, words: list[str]) -> None:
    begin(folder)
    done = run(folder, "watch", *words)
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_enough_is_no_error(folder: Path) -> None:
    begin(folder)
    code = "import sys; print('ready', flush=True); sys.stdin.readline(); from agent.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "find", "Setting"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert _stream(process.stdout).readline() == "ready\n"
        _stream(process.stdout).close()
        _stream(process.stdin).write("\n")
        _stream(process.stdin).close()
        assert _stream(process.stderr).read() == ""
        assert process.wait() == 0


def test_output_that_cannot_be_written_is_one_line(folder: Path) -> None:
    begin(folder)
    with open("/dev/full", "w") as full:
        command = [*COMMAND, "find", "Setting"]
        done = subprocess.run(command, cwd=folder, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "fleet-agent: standard input or output: no space left on device\n")


def test_a_full_disk_is_said_and_changes_nothing(folder: Path) -> None:
    begin(folder)
    limited = 'ulimit -f 48; exec "$@"'  # blocks of 1 KB: SQLite is told that the file cannot grow
    words = ["create", "Report", "level=1", f"text={'x' * 90_000}"]
    command = ["bash", "-c", limited, "bash", *COMMAND, *words]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fleet-agent: {folder / 'agent.db'}: the disk ") and "nothing was changed" in line
    assert run(folder, "find", "Report").stdout == ""
    assert run(folder, *words).returncode == 0


def test_two_commands_at_once_take_turns(folder: Path) -> None:
    begin(folder)
    writers = [
        subprocess.Popen([*COMMAND, "create", "Report", f"level={n}"], cwd=folder, env=environment(), stdout=-3)
        for n in range(4)
    ]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert len(run(folder, "find", "Report").stdout.splitlines()) == 4


def test_what_no_terminal_can_show_is_escaped_in_errors(folder: Path) -> None:
    command = [os.fsencode(word) for word in COMMAND] + [b"find", b"\xff"]
    done = subprocess.run(command, cwd=folder, env={**environment(), "PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.returncode == 2 and b"Traceback" not in done.stderr


def test_text_beyond_ascii_is_printed_on_a_terminal_without_it(folder: Path) -> None:
    command = [*COMMAND, "create", "Report", "level=1", "text=é"]
    env = {**environment(), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["text"] == "é"


def test_a_command_imports_only_what_it_needs(folder: Path) -> None:
    """A person, and a script that calls it a hundred times, waits for every import."""
    begin(folder)
    slow = {"agent.commands.files", "agent.commands.watch", "agent.session", "difflib", "email", "ulid"}
    code = (
        "import sys; from agent.cli import main; assert main(sys.argv[1:]) == 0\n"
        f"print(*sorted({slow!r} & set(sys.modules)))"
    )
    found = []
    for words in (["get", "Setting", "s0"], ["create", "Report", "level=1"]):
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True)
        found.append(done.stdout.splitlines()[-1].split())
    assert found[0] == []
    assert "ulid" in found[1]  # the scan sees what is imported: an id was generated
