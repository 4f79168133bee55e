"""What a message from the relay must hold beyond its types, before any of it touches the database.

Pure. Called by Session, which counts what is refused.
"""

from __future__ import annotations

from typing import Final

from agent.protocol.digest import is_sum
from agent.protocol.errors import MessageError
from agent.protocol.messages import Ack, Compared, HeadMark, Rows, Snapshot, ToDevice, Wait

TOKEN_CHARS_MAX: Final = 128  # of an epoch, a nonce, an incarnation
NUMBER_MAX: Final = 1 << 53  # what every JSON reader holds exactly, and SQLite's integers with room to spare


def check_form(message: ToDevice) -> None:
    """Raises MessageError."""
    if isinstance(message, Rows):
        good = 0 <= message.a <= message.b <= NUMBER_MAX and 0 <= message.last <= NUMBER_MAX
        for row in message.rows:
            good = good and (row.head is None or _is_head(row.head)) and bool(row.key[0]) and bool(row.key[1])
    elif isinstance(message, Ack):
        good = 0 <= message.up <= NUMBER_MAX and 0 <= message.now <= NUMBER_MAX
        for _epoch, seq in (message.tails or {}).values():
            good = good and 0 <= seq <= NUMBER_MAX
    elif isinstance(message, Snapshot):
        good = 0 <= message.seq <= NUMBER_MAX and (message.head is None or _is_head(message.head))
    elif isinstance(message, Compared):
        good = 0 <= message.after_ms <= NUMBER_MAX and all(map(is_sum, message.differs.values()))
    elif isinstance(message, Wait):
        good = 0 <= message.retry_after <= NUMBER_MAX
    else:
        good = len(message.inc or "") <= TOKEN_CHARS_MAX
    if not good:
        raise MessageError("malformed", f"a number out of range in {type(message).__name__}")


def _is_head(head: HeadMark) -> bool:
    return 0 <= head.up <= NUMBER_MAX
