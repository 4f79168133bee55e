"""Where emulators are known to differ from DynamoDB, each by a name; and how a test says so, and notices a mended one.

What DynamoDB does is the contract, which no test here bends: where an emulator deviates, the very same assertions must
fail on it. Used by the tests of the Table port.
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
}
MINISTACK: Final = {"batch-units": "a batch of reads tells no units"}


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
    raise AssertionError(f"this emulator no longer deviates in {name!r}: take it off the list")
