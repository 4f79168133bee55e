"""Planted bugs of remote commands: one subclass each, whose docstring says what goes wrong.

Called by nobody but fleet.plants, which puts them into a world's types. The real agent has no switch for any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from agent.protocol.onetable.dates import from_ms
from agent.protocol.remote import RESULT
from agent.remote.commander import Commander, Deed


class UnrecordedCommander(Commander):
    """Does what is ordered first and records it when it has ended: what a power cut interrupts is done again."""

    def begin(self, command_id: str, command: Mapping[str, Any], deed: Deed) -> bool:
        self._running[command_id] = self._result(command_id, command)
        deed()
        return True

    def _write(self, changed: Mapping[str, Any]) -> None:
        started = self._running.get(changed["id"])
        if started is None:
            super()._write(changed)
        else:
            self._create({**started, **changed})


class UnconfirmedCommander(Commander):
    """Does what is ordered when it has recorded it, though the relay does not know yet: a copy of its disk, or an older
    one, may do it too."""

    def begin(self, command_id: str, command: Mapping[str, Any], deed: Deed) -> bool:
        begun = super().begin(command_id, command, deed)
        if begun:
            del self._begun[command_id]
            deed()
        return begun


class RepeatingCommander(Commander):
    """Does what was cut off by a power cut once more, instead of saying so."""

    def take_stock(self) -> None:
        for result in list(self.database.find(RESULT)):
            if result["state"] == "started" and result["id"] not in self._running:
                self.database.remove(RESULT, {"id": result["id"]})
        super().take_stock()


class PatientCommander(Commander):
    """Does not look at when a command expires: an order of long ago is obeyed."""

    def is_expired(self, command: Mapping[str, Any]) -> bool:
        return False


class HastyCommander(UnconfirmedCommander):
    """Does not wait for the relay to tell the time: by a wrong clock no command is too old."""

    @property
    def is_ready(self) -> bool:
        return self.store.identity.adopted and "device" in self.store.cursors


class RestlessCommander(Commander):
    """Restarts the device as often as it is told to."""

    def is_too_soon(self) -> bool:
        return False


class ObedientCommander(Commander):
    """Does what is there when its epoch begins, though what the database was before may have done it already."""

    __slots__ = ("_past",)

    def take_stock(self) -> None:
        self._past: list[str] = []
        super().take_stock()
        self._waiting.update(dict.fromkeys(self._past))

    def settle_past(self, command_id: str, command: Mapping[str, Any]) -> None:
        self._past.append(command_id)


class SilentCommander(Commander):
    """Says nothing of what was cut off: its result is `started` for ever."""

    def cut_off(self, result: Mapping[str, Any]) -> None:
        pass


class ForgetfulCommander(Commander):
    """Drops a result soon after the command has ended, whether or not that may come back."""

    def _ttl(self, from_then_ms: int) -> datetime:
        return from_ms(self.database.clock.now_ms() + 1000)
