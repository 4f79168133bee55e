"""The bill: units as DynamoDB counts them, and the protocol's costs in them."""

from __future__ import annotations

from typing import Any

import pytest
from relay_rig import NOW_MS, MeteredRig, config, hello, notice, op, setting, status, stored, up

from agent.protocol.messages import FeedName, FeedState
from cloud.metered import MeteredTable
from cloud.table import (
    ITEM_ABSENT,
    BatchGet,
    Check,
    ConditionFailed,
    Delete,
    Get,
    InvalidRequest,
    Put,
    Query,
    Transact,
    Update,
)


def item(sk: str, size: int = 0) -> dict[str, Any]:
    return {"pk": "p", "sk": sk, "text": "x" * size}


def bill(table: MeteredTable) -> tuple[int, int]:
    return table.read_units.total(), table.write_units.total()


@pytest.mark.parametrize(
    ("request_", "reads", "writes"),
    [
        (Get(("p", "none")), 1, 0),
        (Get(("p", "small")), 1, 0),
        (Get(("p", "large")), 3, 0),
        (BatchGet((("p", "small"), ("p", "large"), ("p", "none"))), 5, 0),
        (Query("p"), 3, 0),
        (Query("q"), 1, 0),
        (Put(item("new", 10)), 0, 1),
        (Put(item("new", 1_500)), 0, 2),
        (Put(item("large", 1)), 0, 10),
        (Delete(("p", "large")), 0, 10),
        (Delete(("p", "none")), 0, 1),
        (Update(("p", "small"), {"more": "x" * 2_000}), 0, 3),
        (Transact((Put(item("new")), Check(("p", "small"), (("exists", "pk", None),)))), 0, 4),
        (Transact((Delete(("p", "large")), Update(("p", "small"), {"n": 1}))), 0, 22),
    ],
)
def test_a_request_costs_what_the_service_takes(request_: Any, reads: int, writes: int) -> None:
    table = MeteredTable()
    table.execute(Put(item("small", 900)), 0)
    table.execute(Put(item("large", 10_000)), 0)
    before = bill(table)
    table.execute(request_, 0)
    after = bill(table)
    assert (after[0] - before[0], after[1] - before[1]) == (reads, writes)


def test_a_failed_condition_costs_and_a_refused_request_does_not() -> None:
    table = MeteredTable()
    table.execute(Put(item("small")), 0)
    with pytest.raises(ConditionFailed):
        table.execute(Put(item("small"), ITEM_ABSENT), 0)
    assert table.write_units == {"Put": 2}
    with pytest.raises(InvalidRequest):
        table.execute(Put(item("big", 500_000)), 0)
    assert table.write_units == {"Put": 2}


class Priced(MeteredRig):
    def costs(self, action: Any) -> tuple[int, int]:
        before = bill(self.metered)
        action()
        after = bill(self.metered)
        return after[0] - before[0], after[1] - before[1]


def test_the_protocols_costs_are_what_its_description_says() -> None:
    rig = Priced()
    rig.send(hello())
    # up: HEAD read, and 2 (n + 1) write units for n small operations
    assert rig.costs(lambda: rig.send(up(op(1, "create", status(1))))) == (1, 4)
    assert rig.costs(lambda: rig.send(up(op(2, "update", status(2)), op(3, "create", setting(3))))) == (2, 6)
    # down: the item, then its row of the log; the tail, HEAD and the item are read
    assert rig.costs(lambda: rig.sequence()) == (3, 1)
    assert rig.costs(lambda: rig.execute(Put(stored(config(4))))) == (0, 1)
    assert rig.costs(lambda: rig.sequence()) == (3, 1)
    # in an account's feed the item has no HEAD
    assert rig.costs(lambda: rig.execute(Put(stored(notice(1, "n"))))) == (0, 1)
    assert rig.costs(lambda: rig.sequence()) == (2, 1)
    # an idle hello of a device at its tails: HEAD, and the last row of each feed
    feeds: dict[FeedName, FeedState] = {
        "device": FeedState("nonce", *rig.tail()),
        "account": FeedState("nonce", *rig.tail("account", "main")),
    }
    assert rig.costs(lambda: rig.send(hello(feeds=feeds))) == (1 + len(feeds), 0)
    assert rig.now_ms == NOW_MS
