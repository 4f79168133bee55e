"""Which devices there are, whose they are, and when they were last heard of: items that the relay keeps for itself.

A device that is not registered is refused, whatever it sends. Pure functions over items and requests; called by
cloud.accounts, which asks for a device's account, and by `fleet-cloud register` and `devices`.

    DEVICE     pk _fleet#device#DEVICE   sk device   account, registered (ms), token (SHA-256, where it has one), and
                                                     once it was heard of: seen (ms), feeds {name: [feed epoch, seq]},
                                                     schema
    DIRECTORY  pk _fleet#devices#N       sk DEVICE

The directory is there to list all devices without reading the whole table. N is one of 16 by the device's name, so that
no hash key has to bear the registration of a whole fleet alone.
"""

from __future__ import annotations

import zlib
from typing import Final

from agent.protocol.messages import Hello
from cloud.table import ITEM_ABSENT, ITEM_EXISTS, PK, PRIVATE_PREFIX, SK, Item, Key, Put, Query, Transact, Update

TOKEN: Final = "token"  # its SHA-256 in hexadecimal digits, never the token
_DEVICE_PK: Final = PRIVATE_PREFIX + "device#"
_DEVICE_SK: Final = "device"
_DIRECTORY_PK: Final = PRIVATE_PREFIX + "devices#"
_SHARDS: Final = 16
_TEXT_CHARS_MAX: Final = 64  # of what a device says of itself
_SEQ_MAX: Final = 1 << 53


def device_key(device: str) -> Key:
    return _DEVICE_PK + device, _DEVICE_SK


def directory_entry(device: str) -> Item:
    return {PK: f"{_DIRECTORY_PK}{zlib.crc32(device.encode()) % _SHARDS:x}", SK: device}


def registration(device: str, account: str, now_ms: int) -> Transact:
    """Fails when the device is registered."""
    pk, sk = device_key(device)
    item = {PK: pk, SK: sk, "account": account, "registered": now_ms}
    return Transact((Put(item, ITEM_ABSENT), Put(directory_entry(device))))


def moved(device: str, account: str, from_account: str) -> Update:
    """The device belongs to another account from now on."""
    return Update(device_key(device), {"account": account}, (), (("eq", "account", from_account),))


def with_token(device: str, digest: str, account: str) -> Update:
    """The device's token is another from now on. Fails when the device is not the account's."""
    return Update(device_key(device), {TOKEN: digest}, (), (("eq", "account", account),))


def ranges() -> list[Query]:
    """What to read, page by page, to see the names of all devices: as sort keys."""
    return [Query(f"{_DIRECTORY_PK}{shard:x}") for shard in range(_SHARDS)]


def heard(device: str, hello: Hello, now_ms: int) -> Update:
    """Notes what a device says of itself. It is for people to look at: nothing trusts it."""
    feeds = {
        name: [state.epoch or "", state.seq]
        for name, state in hello.feeds.items()
        if len(state.epoch or "") <= _TEXT_CHARS_MAX and 0 <= state.seq < _SEQ_MAX
    }
    seen = {"seen": now_ms, "feeds": feeds, "schema": hello.schema[:_TEXT_CHARS_MAX]}
    return Update(device_key(device), seen, (), ITEM_EXISTS)
