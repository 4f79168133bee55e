"""The policy at the head of conftest.py is in force. Called by pytest only."""

from __future__ import annotations

import socket

import pytest
from hypothesis import settings


def test_a_connection_beyond_loopback_is_refused() -> None:
    # 192.0.2.0/24 is reserved for documentation (RFC 5737): no machine has it.
    with socket.socket() as client, pytest.raises(PermissionError, match="loopback only"):
        client.connect(("192.0.2.1", 9))


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())


def test_ci_runs_the_same_examples_every_time(ci: bool) -> None:
    active = settings()
    assert active.deadline is None
    assert settings.get_profile("ci").derandomize
    assert not ci or active.derandomize or active.max_examples > 1_000
