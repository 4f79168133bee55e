"""Whether a device is who it says: its token against the registry, which keeps no token but only its SHA-256.

A generator of table requests, as everything in the cloud that asks the table. What was proved is remembered for a
while, so that devices that come back all at once cost no read each; what failed is not, since somebody may register the
device at any moment. Called by cloud.service_websocket_door.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Generator
from typing import Any, Final

from agent.protocol.topics import valid_id
from cloud.registry import TOKEN, device_key
from cloud.table import Get, Item, Request

KNOWN_MS: Final = 60_000  # a token that was proved is taken for so long without a look
_DEVICES_MAX: Final = 200_000  # remembered at most; then all are looked up anew
_NOBODYS: Final = "-" * 64  # no token has this digest: what is compared where there is none


def digest_of(token: str) -> str:
    """What the registry keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Credentials:
    """`every`: the account of all devices, where one process serves one account."""

    def __init__(self, monotonic_ms: Callable[[], int], every: str = "") -> None:
        self.every = every
        self._monotonic_ms = monotonic_ms
        self._proved: dict[str, tuple[str, str, int]] = {}  # device -> digest, account, until when

    def was_proved(self, device: str, digest: str) -> bool:
        """Whether this very token was right once: no guess, then."""
        return hmac.compare_digest(self._proved.get(device, (_NOBODYS, "", 0))[0], digest)

    def check(self, device: str, digest: str | None, again: bool = False) -> Generator[Request, Any, str | None]:
        """The device's account; None when it is not registered, or the token is not its own. `digest` None: it has
        proved its name by a certificate. `again`: whatever is remembered. Raises TableError."""
        if digest is None and self.every:
            return self.every
        known = self._proved.get(device)
        fresh = known is not None and not again and self._monotonic_ms() < known[2]
        if fresh and known is not None and digest is not None and hmac.compare_digest(known[0], digest):
            return known[1]
        item: Item | None = yield Get(device_key(device))
        kept = None if item is None else item.get(TOKEN)
        right = digest is None or hmac.compare_digest(kept if isinstance(kept, str) else _NOBODYS, digest)
        account = self.every or (None if item is None else item.get("account"))
        if item is None or not right or not isinstance(account, str) or not valid_id(account):
            if known is not None and known[0] == digest:
                del self._proved[device]  # it was right once, and is no more
            return None
        if digest is not None:
            if len(self._proved) >= _DEVICES_MAX:
                self._proved.clear()
            self._proved[device] = (digest, account, self._monotonic_ms() + KNOWN_MS)
        return account
