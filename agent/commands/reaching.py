"""Where a command finds its items: with the agent that runs on the database, else in the file itself.

Called by the commands that need not own the file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Union

from agent.commands.opening import database_path, opened
from agent.database import Database
from agent.file_errors import FileInUseError
from agent.protocol.commands.failure import CommandError

if TYPE_CHECKING:
    from agent.api.client import RemoteDatabase

AnyDatabase = Union[Database, "RemoteDatabase"]
SOCKET_BESIDE: Final = "-api/socket"


def socket_path(arguments: argparse.Namespace) -> str:
    """Of the agent that would run on the database, by the place where it makes its socket."""
    path = database_path(arguments)
    return arguments.socket or os.environ.get("FLEET_SOCKET") or f"{os.path.realpath(path)}{SOCKET_BESIDE}"


@contextmanager
def reached(arguments: argparse.Namespace, *, begin: bool = False) -> Iterator[AnyDatabase]:
    """As `opened`; but where an agent runs on the database, what that agent has."""
    found = agent_of(arguments)
    if found is None:
        try:
            with opened(arguments, begin=begin) as database:
                yield database
            return
        except FileInUseError:
            found = agent_of(arguments)  # it was about to start
            if found is None:
                raise
    try:
        _same(arguments, found)
        yield found
    finally:
        found.client.close()


def agent_of(arguments: argparse.Namespace) -> RemoteDatabase | None:
    """None: nobody serves the socket."""
    path = socket_path(arguments)
    if not os.path.exists(path):
        return None  # before the client is loaded: mostly no agent runs
    from agent.api.client import NoAgent, remote

    try:
        return remote(path)
    except NoAgent:
        return None


def _same(arguments: argparse.Namespace, found: Any) -> None:
    """Whose items a person names must be whose the agent has."""
    wanted = {
        "device": (arguments.device or os.environ.get("FLEET_DEVICE"), found.context.device_id),
        "account": (arguments.account or os.environ.get("FLEET_ACCOUNT"), found.context.account_id),
    }
    for name, (given, has) in wanted.items():
        if given and given != has:
            raise CommandError(f"--{name} {given}: the agent that runs here has {has!r}", f"leave --{name} out")
