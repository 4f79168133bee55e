"""The commands that a device knows: a name, what is called, and what its arguments must be. No thread, no I/O.

An application fills a table before the agent starts; the commander asks it what there is, and the driver calls
`perform` where handlers run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agent.remote.events import Event, Failed, Finished

BUILT_IN: Final = ("resync", "reboot")  # the commander's own; `status` is a handler that the daemon puts in
Handle = Callable[[Any], Mapping[str, Any] | None]
_NAME: Final = re.compile(r"[A-Za-z][\w.-]{0,63}", re.ASCII)


class NoArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a command that takes none."""


@dataclass(frozen=True, slots=True)
class Handler:
    """`handle` gets the arguments as a value of the type `arguments`; it returns an object of JSON values, or None."""

    name: str
    handle: Handle
    arguments: Any


class Handlers:
    """A table of handlers by name. To be filled before it is used."""

    __slots__ = ("_by_name",)

    def __init__(self) -> None:
        self._by_name: dict[str, Handler] = {}

    def add(self, name: str, handle: Handle, arguments: Any = NoArguments) -> None:
        """`arguments`: a msgspec.Struct, a dataclass, a TypedDict, or any other type that msgspec converts to, such as
        `dict[str, int]`. What comes with a command is checked against it. Raises ValueError for a name that is taken
        or is none, TypeError for a type that cannot be checked."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a command: 1 to 64 letters, digits and _ . -, a letter first")
        if name in BUILT_IN or name in self._by_name:
            raise ValueError(f"there is a command {name!r} already")
        msgspec.json.Decoder(arguments)  # raises TypeError
        self._by_name[name] = Handler(name, handle, arguments)

    def __call__(self, name: str, arguments: Any = NoArguments) -> Callable[[Handle], Handle]:
        """The same as a decorator."""

        def added(handle: Handle) -> Handle:
            self.add(name, handle, arguments)
            return handle

        return added

    def get(self, name: str) -> Handler | None:
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)


def perform(handlers: Handlers, command_id: str, name: str, arguments: Any) -> Event:
    """Calls a handler and says how it ended. May be called in any thread; takes as long as the handler does."""
    handler = handlers.get(name)
    assert handler is not None, name
    try:
        return Finished(command_id, handler.handle(arguments))
    except Exception as error:
        return Failed(command_id, f"{type(error).__name__}: {error}")
