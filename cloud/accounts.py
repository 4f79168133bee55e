"""Which account a device belongs to, and that it was heard of: what a relay asks of the registry, and remembers.

The registry's items (cloud.registry) by generators of table requests: `find` is run before a message is looked at, `of`
is what the relay then asks, `note` is run after a message for people who look at `fleet-cloud devices`. A device that
is not registered has no account, and its messages are refused. Called by cloud.service and cloud.functions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from agent.protocol.errors import MessageError
from agent.protocol.messages import Hello, decode_from_device
from agent.protocol.topics import valid_id
from cloud.registry import device_key, heard
from cloud.table import ConditionFailed, Get, Item, Request

KNOWN_MS: Final = 60_000  # an account is remembered for so long
UNKNOWN_MS: Final = 5_000  # and that there is none: nobody's messages must not cost a read each
HEARD_MS: Final = 10 * 60_000  # between two notes of one device
_DEVICES_MAX: Final = 200_000  # remembered at most; then all are asked for anew


class Accounts:
    """`every`: the account of all devices, registered or not, where one process serves one account."""

    def __init__(self, monotonic_ms: Callable[[], int], every: str = "") -> None:
        self.every = every
        self._monotonic_ms = monotonic_ms
        self._found: dict[str, tuple[str | None, int]] = {}  # device -> account, and until when
        self._noted: dict[str, int] = {}  # device -> when it may be noted again

    def of(self, device: str) -> str | None:
        """The account as last found."""
        if self.every:
            return self.every
        return self._found.get(device, (None, 0))[0]

    def find(self, device: str) -> Generator[Request, Any, None]:
        """Asks the table where nothing is remembered. Raises TableError."""
        now_ms = self._monotonic_ms()
        if self.every or self._found.get(device, (None, 0))[1] > now_ms or not valid_id(device):
            return
        item: Item | None = yield Get(device_key(device))
        account = None if item is None else item.get("account")
        if not isinstance(account, str) or not valid_id(account):
            account = None
        if len(self._found) >= _DEVICES_MAX:
            self._found.clear()
        self._found[device] = (account, now_ms + (UNKNOWN_MS if account is None else KNOWN_MS))

    def note(self, device: str, payload: bytes, wall_ms: int) -> Generator[Request, Any, None]:
        """After a hello of a registered device, now and then. Raises TableError."""
        now_ms = self._monotonic_ms()
        if self.every or now_ms < self._noted.get(device, 0) or self.of(device) is None:
            return
        try:
            message = decode_from_device(payload)
        except MessageError:
            return
        if not isinstance(message, Hello):
            return
        if len(self._noted) >= _DEVICES_MAX:
            self._noted.clear()
        self._noted[device] = now_ms + HEARD_MS
        try:
            yield heard(device, message, wall_ms)
        except ConditionFailed:
            self._found.pop(device, None)  # it is registered no more
