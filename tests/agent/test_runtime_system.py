"""What the agent tells systemd, and how it asks for open files. Called by pytest only."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest
import trio

from agent.runtime import orders
from agent.runtime.limits import LimitError, allow_agents, allow_open_files
from agent.runtime.systemd import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_what_is_told(tmp_path: Path, abstract: bool) -> None:
    path = f"@fleet-{tmp_path.name}-{id(tmp_path)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path.replace("@", "\0"))
        manager.settimeout(10)
        Notifier({"NOTIFY_SOCKET": path}, 1).tell("READY=1", "STATUS=well")
        assert manager.recv(1_000) == b"READY=1\nSTATUS=well"


def test_without_systemd_nothing_is_told() -> None:
    Notifier({}, 1).tell("READY=1")
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}, 1).tell("READY=1")


def test_the_watchdog_is_ours_alone() -> None:
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 7).watchdog_s == 30
    assert Notifier({"WATCHDOG_USEC": "30000000"}, 7).watchdog_s == 30
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 7).watchdog_s == 0
    assert Notifier({}, 7).watchdog_s == 0


def test_the_limit_that_is_in_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [100, 1_000]

    def set_limits(_: int, wanted: tuple[int, int]) -> None:
        limits[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    assert allow_open_files(50) == 100
    assert allow_open_files(500) == 500 and limits == [500, 1_000]
    with pytest.raises(LimitError, match=r"8064 open files are needed, and the hard limit is 1000: .*LimitNOFILE=8064"):
        allow_agents(2_000, files=True)
    with pytest.raises(LimitError):
        allow_agents(2_000, files=False)
    assert limits == [500, 1_000]
    limits[1] = resource.RLIM_INFINITY
    assert allow_agents(2_000, files=True) == 8_064


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (("true",), ""),
        (("false",), "false: exit 1"),
        (("sh", "-c", "echo not allowed >&2; exit 4"), "not allowed"),
        (("no-such-program",), "no-such-program: no such file or directory"),
    ],
)
def test_a_reboot_that_is_refused_says_why(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], wanted: str
) -> None:
    monkeypatch.setattr(orders, "_REBOOT", command)
    said = trio.run(orders.reboot)
    assert wanted in said if wanted else said == ""
