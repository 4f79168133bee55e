"""The messages of a device, made from what its store holds. Pure; called by Session, which says when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from agent.protocol.messages import NO_IMAGE, Claim, Digest, FeedName, FeedState, Hello, Op, Up
from agent.records import OutboxRow
from agent.store import Store

if TYPE_CHECKING:
    from agent.digests import Count


def hello(store: Store, nonces: Mapping[FeedName, str], *, hn: str, n: int, schema: str) -> Hello:
    """Who the device is, and where it stands in each feed that has a nonce."""
    feeds: dict[FeedName, FeedState] = {}
    for name, nonce in nonces.items():
        cursor = store.cursors.get(name)
        feeds[name] = FeedState(nonce) if cursor is None else FeedState(nonce, cursor[0], cursor[1])
    identity = store.identity
    return Hello(
        epoch=identity.epoch,
        replaces=identity.replaces,
        hn=hn,
        n=n,
        schema=schema,
        feeds=feeds,
        inc=store.incarnation or msgspec.UNSET,
    )


def batch(store: Store, rows: Sequence[OutboxRow], *, hn: str) -> Up:
    """Rows that are marked as sent: all of those that are not acknowledged."""
    identity = store.identity
    ops = [
        Op(row[1], row[5], row[8], (row[3], row[4]), row[7], NO_IMAGE if row[6] is None else msgspec.Raw(row[6]))
        for row in rows
    ]
    return Up(epoch=identity.epoch, first_u=rows[0][1], prev_id=identity.acked_id, ops=ops, hn=hn)


def digest(
    store: Store,
    count: Count,
    models: Mapping[str, Claim],
    feeds: Sequence[FeedName],
    *,
    hn: str,
    n: int,
    schema: str,
) -> Digest:
    """What the device holds, and where it stands. `schema`: agent.protocol.digest.fingerprint."""
    identity = store.identity
    return Digest(
        epoch=identity.epoch,
        hn=hn,
        n=n,
        up=identity.acked_u,
        upid=identity.acked_id,
        schema=schema,
        cut_s=count.cut_s,
        cursors={feed: store.cursors[feed] for feed in feeds},
        models=dict(models),
        apart=count.apart,
        inc=store.incarnation or msgspec.UNSET,
    )
