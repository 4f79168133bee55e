"""Where stand-ins differ from the real thing, each by a name; and how a test says so, and notices a mended one.

What DynamoDB does, what MQTT 3.1.1 says and what AWS IoT Core does are the contracts, which no test here bends: where
an emulator, a broker or the simulated broker deviates, the very same assertions must fail on it. For tests/contract.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import pytest

from cloud.table import TableError

MOTO: Final = {
    "untyped-equality": "a condition takes true for 1, and null for an attribute that is not there",
    "item-size": "an item may have 405,000 bytes, the names counted otherwise; the service takes 409,600",
    "tokens": "a transaction sent twice under one token takes effect twice",
    "update-creates-twice": "an update that creates an item gives a record of the bare key first",
    "record-of-nothing": "a write that changes nothing gives a record all the same",
    "units": "units are made up: 0.5 a read and 1 a write, whatever the size, and none of a query",
    "batch-units": "the same of a batch of reads",
    "places": "a stream knows every place, also one that it never had",
    "copies": "each action of a transaction copies the whole table and its stream",
    "deaf-iterators": "an iterator that is open when a transaction is cancelled tells no later record",
}
MENDED: Final = ("copies", "deaf-iterators")  # by fleet.live.moto_mends, in the server
MOTO_SERVER: Final = {name: text for name, text in MOTO.items() if name not in MENDED}
MINISTACK: Final = {"batch-units": "a batch of reads tells no units"}
_NO_QUOTA: Final = {
    "topic-levels": "topics may have more than seven slashes",
    "publish-rate": "a connection may publish more than 100 messages a second",
    "connect-rate": "a client may connect more than once a second",
    "subscriptions": "a connection may have more than 50 subscriptions",
}
MOSQUITTO: Final = {
    **_NO_QUOTA,
    "overlapping-filters": "a message comes once for each filter that matches it",
}
MOSQUITTO_311: Final = {
    **MOSQUITTO,
    "oversize-drops": "a message over the limit is acknowledged and dropped, and its sender stays connected",
}
SIMULATED: Final = {
    **_NO_QUOTA,
    "kept-sessions": "sessions are clean: no agent asks for another",
    "retain-flag": "a client is not told that a message was retained: no agent asks",
}


@contextlib.contextmanager
def deviating(known: bool, name: str) -> Iterator[None]:
    """What is asserted inside must hold, or where the deviation is known, must fail."""
    if not known:
        yield
        return
    try:
        yield
    except (AssertionError, pytest.fail.Exception, TableError):
        return
    raise AssertionError(f"this one no longer deviates in {name!r}: take it off the list")
