"""Real processes of live runs: readiness by condition, signals, restarts, logs, and that none outlives its harness."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from fleet.live.parts import Mosquitto, MotoServer, NotInstalled, address_of, program
from fleet.live.processes import NotReady, Part, Processes

ROOT: Final = Path(__file__).resolve().parent.parent.parent
LIMIT_S: Final = 30
# Says that it is up, then answers each line of a file-like signal: SIGUSR1 makes it say a word, SIGTERM end with 7.
SERVER: Final = """
import os, signal, sys
def say(*_): print("word", flush=True)
def end(*_): print("ending", flush=True); os._exit(7)
signal.signal(signal.SIGUSR1, say)
signal.signal(signal.SIGTERM, end)
print("up as", os.getpid(), os.environ.get("COLOUR", "none"), flush=True)
while True: signal.pause()
"""
STUBBORN: Final = SERVER.replace("os._exit(7)", "None")
# Starts a child of its own, whose id it says.
PARENT: Final = """
import subprocess
child = subprocess.Popen(["sleep", "1000"])
print("up", child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def processes() -> Iterator[Processes]:
    with Processes() as made:
        yield made


def python(processes: Processes, folder: Path, text: str, name: str = "part", **more: str) -> Part:
    command = [sys.executable, "-S", "-c", text]
    return Part(processes, name, command, folder=folder, ready=lambda part: part.says("up"), environment=more)


def gone(pid: int) -> bool:
    """No such process, or only its entry in the table, which nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def until(condition: Callable[[], bool]) -> None:
    """Of another process's state, which nobody tells: it is asked for."""
    for _ in range(LIMIT_S * 1_000):
        if condition():
            return
        subprocess.run(["true"], check=True)  # lets others run, for as long as starting a program takes
    raise AssertionError("it never came")


def test_a_part_is_ready_when_it_says_so_and_its_words_are_kept(processes: Processes, tmp_path: Path) -> None:
    part = python(processes, tmp_path, SERVER, COLOUR="green")
    assert not part.alive and part.exit_code is None and not part.says("up")
    part.start()
    assert part.alive and part.says(f"up as {part.pid} green")
    part.signal(signal.SIGUSR1)
    part.wait(lambda: part.says("word"), "says a word")
    assert part.terminate() == 7
    assert not part.alive and part.exit_code == 7
    part.close()
    assert (tmp_path / "part.log").read_text().splitlines() == [*part.lines]
    assert [*part.lines][1:] == ["word", "ending"]


def test_a_part_starts_again_after_a_kill_and_keeps_its_log(processes: Processes, tmp_path: Path) -> None:
    part = python(processes, tmp_path, SERVER)
    part.start()
    first = part.pid
    with pytest.raises(RuntimeError, match="part runs"):
        part.start()
    part.signal(signal.SIGUSR1)
    part.wait(lambda: part.says("word"), "says a word")
    part.kill()
    assert part.exit_code == -signal.SIGKILL and gone(first)
    part.kill()
    part.restart()
    assert part.pid != first and part.starts == 2
    assert not part.says("word"), "that was before"
    assert [line.split()[0] for line in part.lines] == ["up", "word", "up"]


def test_a_part_that_stands_still_can_go_on_or_be_ended(processes: Processes, tmp_path: Path) -> None:
    part = python(processes, tmp_path, SERVER)
    part.start()
    part.pause()
    until(lambda: stopped(part.pid))
    part.signal(signal.SIGUSR1)
    assert part.alive and not part.says("word")
    part.resume()
    part.wait(lambda: part.says("word"), "says a word")
    part.pause()
    assert part.terminate() == 7, "whoever stands still hears it all the same"


def test_a_part_that_does_not_end_when_told_is_killed(processes: Processes, tmp_path: Path) -> None:
    part = python(processes, tmp_path, STUBBORN)
    part.start()
    assert part.terminate(0.1) == -signal.SIGKILL


def test_a_kill_reaches_what_a_part_has_started(processes: Processes, tmp_path: Path) -> None:
    part = python(processes, tmp_path, PARENT)
    part.start()
    child = int(part.lines[-1].split()[1])
    assert not gone(child)
    part.kill()
    until(lambda: gone(child))


def test_what_does_not_get_ready_is_told_with_its_last_words_and_does_not_stay(
    processes: Processes, tmp_path: Path
) -> None:
    ends = python(processes, tmp_path, "print('no such file'); raise SystemExit(3)", "ends")
    with pytest.raises(NotReady, match=r"ends is not ready: it has ended with 3\n  no such file"):
        ends.start()
    absent = Part(processes, "absent", [str(tmp_path / "none")], folder=tmp_path, ready=lambda part: True)
    with pytest.raises(NotReady, match=r"absent: .*none: No such file"):
        absent.start()
    never = Part(processes, "never", ["sleep", "1000"], folder=tmp_path, ready=lambda part: False, limit_s=0.1)
    with pytest.raises(NotReady, match="never is not ready within 0 s"):
        never.start()
    assert not never.alive and never.exit_code == -signal.SIGKILL
    silent = python(processes, tmp_path, SERVER, "silent")
    silent.start()
    with pytest.raises(NotReady, match=r"silent sings within 0 s\n  up as"):
        silent.wait(lambda: False, "sings", 0.1)
    with pytest.raises(RuntimeError, match="absent does not run"):
        _ = absent.pid
    with pytest.raises(ValueError, match="'ends'"):
        python(processes, tmp_path, SERVER, "ends")


def test_all_end_with_the_context_whatever_ends_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Processes() as processes:
        parts = [python(processes, tmp_path, text, f"part-{n}") for n, text in enumerate((SERVER, STUBBORN, PARENT))]
        for part in parts:
            part.start()
        pids = [part.pid for part in parts]
        parts[0].pause()
        raise KeyError
    assert all(gone(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="within the context"):
        parts[0].start()
    assert not parts[0].alive


def test_the_guard_ends_those_that_an_error_at_the_end_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZeroDivisionError), Processes() as processes:
        left, wrong = python(processes, tmp_path, SERVER, "left"), python(processes, tmp_path, SERVER, "wrong")
        for part in (left, wrong):
            part.start()
        pids = [left.pid, wrong.pid]
        monkeypatch.setattr(wrong, "kill", lambda: 1 // 0)
    until(lambda: all(gone(pid) for pid in pids))
    monkeypatch.undo()
    for part in (left, wrong):
        part.kill()
        part.close()


HARNESS: Final = """
import sys
from pathlib import Path
from fleet.live.processes import Part, Processes
with Processes() as processes:
    for name in ("one", "two"):
        command = [sys.executable, "-S", "-c", sys.argv[2]]
        part = Part(processes, name, command, folder=Path(sys.argv[1]), ready=lambda part: part.says("up"))
        part.start()
        print(part.pid, flush=True)
    part.pause()
    print("all", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_none_outlives_a_harness_that_is_killed(tmp_path: Path, end: int) -> None:
    command = [sys.executable, "-c", HARNESS, str(tmp_path), SERVER]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as harness:
        said = harness.stdout
        assert said is not None
        pids = [int(line) for line in iter(lambda: said.readline().strip(), "all")]
        assert len(pids) == 2 and not any(gone(pid) for pid in pids)
        os.kill(harness.pid, end)
        harness.wait(LIMIT_S)
    until(lambda: all(gone(pid) for pid in pids))


def test_mosquitto_starts_on_a_port_of_its_own_and_keeps_it(processes: Processes, tmp_path: Path, ci: bool) -> None:
    try:
        program("mosquitto")
    except NotInstalled as missing:
        if ci:
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    one, two = Mosquitto(processes, tmp_path), Mosquitto(processes, tmp_path, name="two")
    one.start()
    two.start()
    assert one.port != two.port and one.url == f"mqtt://127.0.0.1:{one.port}"
    port = one.port
    one.restart()
    assert one.port == port
    taken = Mosquitto(processes, tmp_path, name="taken")
    taken.port = port
    taken.config.write_text(f"listener {port} 127.0.0.1\nlog_dest stderr\n")
    with pytest.raises(NotReady, match="Address already in use"):
        taken.start()


def test_moto_is_a_dynamodb_of_its_own(processes: Processes, tmp_path: Path) -> None:
    from emulators import client, table_names

    from cloud.dynamodb_table import create_table

    moto = MotoServer(processes, tmp_path)
    moto.start()
    assert moto.url == address_of(moto)
    create_table(client(moto.url), "a-table")
    assert table_names(client(moto.url)) == ["a-table"]
    moto.restart()
    assert table_names(client(moto.url)) == [], "its tables were in its memory"


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotInstalled, match=r"mosquitto-of-old is missing \(Debian: apt install mosquitto\)"):
        program("mosquitto-of-old")
