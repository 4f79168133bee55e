"""What devices sent and nobody has worked on yet: bounded, fair between devices, one message of a device at a time.

Messages of one device are worked on one after the other, since two at once would only cancel each other's transactions.
A device that sends faster than it is answered fills its own few places and no more; what is over is refused, and
counted: the protocol has one batch and one hello open at a time. The next of its messages is then not worked on, but
answered with the request to wait. When the whole is full its owner stops reading. No I/O. Called by
cloud.service_intake.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from cloud.table import Publish

DEVICE_MAX: Final = 8  # of one device that wait
Publishes = Callable[[Publish], Awaitable[None]]


class Incoming(msgspec.Struct, gc=False, eq=False):
    """A message, what is to be called when its work has ended, one way or another, and how its answers go out.
    `is_crowded`: more of its device came than there was room for, and the device is to be asked to wait."""

    device: str
    payload: bytes
    done: Callable[[], None]
    publish: Publishes
    is_crowded: bool = False


class Inbox:
    """`size`: of all devices together. Whoever puts looks at `full` first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.waiting = 0
        self._ready: deque[Incoming] = deque()  # of devices of which none is worked on
        self._behind: dict[str, deque[Incoming]] = {}  # by device of which one is ready or worked on

    @property
    def full(self) -> bool:
        return self.waiting >= self.size

    def put(self, message: Incoming) -> bool:
        """False: the device has too many waiting already."""
        behind = self._behind.get(message.device)
        if behind is None:
            self._behind[message.device] = deque()
            self._ready.append(message)
        elif len(behind) >= DEVICE_MAX:
            behind[0].is_crowded = True
            return False
        else:
            behind.append(message)
        self.waiting += 1
        return True

    def take(self) -> Incoming | None:
        """The next message to work on; `finished` must follow."""
        if not self._ready:
            return None
        self.waiting -= 1
        return self._ready.popleft()

    def finished(self, message: Incoming) -> bool:
        """True: another of its device can be taken now."""
        behind = self._behind[message.device]
        if behind:
            self._ready.append(behind.popleft())
            return True
        del self._behind[message.device]
        return False
