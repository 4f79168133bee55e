"""How the relay stores HEAD and LOG, read independently of the relay's own code. The one place that knows these forms.

HEAD: pk `_fleet#head#DEVICE`, attributes epoch, up, upid (absent at 0), verdicts {u as text: code}.
LOG: pk `_fleet#log#device#DEVICE`, `_fleet#log#account#ACCOUNT` or `_fleet#log#all`, sk `FEEDEPOCH#SEQ`; attributes
key [pk, sk] (absent in an empty row), image (absent when the item is gone), head [epoch, up, upid], oversize.
Items that a device wrote carry `_op` = [device, epoch, u, id]; an orphan carries `_orphan`.
Pure functions over keys and items. Called by the oracle only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent.protocol.messages import encode_image

PRIVATE: Final = "_fleet#"
HEAD: Final = "_fleet#head#"
LOG: Final = "_fleet#log#"
OP: Final = "_op"
ORPHAN: Final = "_orphan"
HIDDEN: Final = ("pk", "sk", OP, ORPHAN)  # never sent to a device
NO_VERDICTS: Final[Mapping[str, str]] = {}

FeedId = tuple[str, str]  # ("device", id), ("account", id) or ("all", "")


def head_device(pk: str) -> str:
    """The device of a HEAD's key."""
    return pk[len(HEAD) :]


def log_feed(pk: str) -> FeedId:
    """The feed of a LOG row's key."""
    kind, _, owner = pk[len(LOG) :].partition("#")
    return kind, owner


def log_position(sk: str) -> tuple[str, int]:
    """(feed epoch, seq) of a LOG row's sort key."""
    epoch, _, seq = sk.rpartition("#")
    return epoch, int(seq)


def image_equals(image: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    """Whether an image on a device is the table's item without its keys and hidden attributes."""
    hidden = 2 + (OP in item) + (ORPHAN in item)
    return len(image) == len(item) - hidden and image.items() <= item.items()


def public(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item as a device may hold it."""
    return {name: value for name, value in item.items() if name not in HIDDEN}


def image_bytes(item: Mapping[str, Any]) -> int:
    """The size of an item's image on the wire, as JSON."""
    return len(encode_image(public(item)))
