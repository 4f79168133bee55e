"""Which account a device belongs to, as its registration in the table says; remembered for a while.

    pk _fleet#device#DEVICE     sk device     account

`find` is a generator of table requests, run before a message is looked at; `of` is what the relay asks. A device
without a registration has no account, and its messages are refused. Called by the service, and by whoever registers
devices.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from agent.protocol.topics import valid_id
from cloud.table import PK, PRIVATE_PREFIX, SK, Get, Item, Key, Request

_DEVICE_PK: Final = PRIVATE_PREFIX + "device#"
_DEVICE_SK: Final = "device"
KNOWN_MS: Final = 60_000  # an account is remembered for so long
UNKNOWN_MS: Final = 5_000  # and that there is none
_DEVICES_MAX: Final = 200_000  # remembered at most; then all are asked for anew


def device_key(device: str) -> Key:
    return (_DEVICE_PK + device, _DEVICE_SK)


def registration(device: str, account: str) -> dict[str, Any]:
    """The item that makes a device known. Raises ValueError for what cannot be an id."""
    for name in (device, account):
        if not valid_id(name):
            raise ValueError(f"{name!r} is no id: 1 to 128 letters, digits and :_.- , and not 'all'")
    pk, sk = device_key(device)
    return {PK: pk, SK: sk, "account": account}


class Accounts:
    """`every`: the account of all devices, registered or not, where one process serves one account."""

    def __init__(self, monotonic_ms: Callable[[], int], every: str = "") -> None:
        self.every = every
        self._monotonic_ms = monotonic_ms
        self._found: dict[str, tuple[str | None, int]] = {}  # device -> account, and until when

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
