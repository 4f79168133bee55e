"""What another program puts where the relay keeps its mark: it holds up no sweep, stamp or comparison."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_rig import EPOCH, NOW_MS, Rig, fault, hello, op, schema_with, setting, stored, up

from agent.protocol.digest import fingerprint
from agent.protocol.messages import Claim, Compared, Digest
from cloud.head import mark_of
from cloud.table import Put

FORGED: list[Any] = [7, [], "home-1", [1, 2, 3, 4], {"epoch": 1}, ["home-1", EPOCH, "seven", None], True]


def forged(mark: Any, written: Any) -> Put:
    return Put({**stored(written), "_op": mark})


def test_the_relays_own_mark_is_one() -> None:
    assert mark_of({"_op": ["home-1", EPOCH, 3, "boot"]}) == ["home-1", EPOCH, 3, "boot"]
    assert mark_of({}) is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_whatever_stands_there_can_be_looked_at(mark: Any) -> None:
    found = mark_of({"_op": mark})
    assert found is None or (len(found) == 4 and isinstance(found[2], int))


@pytest.mark.parametrize("mark", FORGED, ids=repr)
def test_a_new_database_begins_also_where_a_mark_is_none(mark: Any) -> None:
    rig = Rig()
    rig.send(hello())
    rig.execute(forged(mark, fault(9, "strange")))
    ack = rig.ack(up(op(1, "create", fault(1, "own")), op(2, "sweep"), op(3, "create", fault(3, "next"))))
    assert (ack.up, ack.verdicts) == (3, {})
    item = rig.item(("device#home-1", "fault#strange"))
    assert item is not None and "_orphan" not in item


@pytest.mark.parametrize("mark", FORGED, ids=repr)
def test_a_stamp_of_a_fast_clock_is_cut_also_over_such_an_item(mark: Any) -> None:
    rig = Rig()
    rig.send(hello())
    rig.execute(forged(mark, setting(1)))
    ack = rig.ack(up(op(1, "update", setting(2, updated_ms=NOW_MS + 10_000_000))))
    assert ack.up == 1 and rig.counters["stamp_cut"] == 1


@pytest.mark.parametrize("mark", FORGED, ids=repr)
def test_with_the_policy_cloud_such_an_item_is_one_that_the_cloud_wrote(mark: Any) -> None:
    rig = Rig(schema=schema_with("Setting", "conflict: 'cloud'"))
    rig.send(hello())
    rig.execute(forged(mark, setting(1)))
    assert rig.ack(up(op(1, "update", setting(2)))).verdicts == {1: "lost"}


@pytest.mark.parametrize("mark", FORGED, ids=repr)
def test_a_comparison_leaves_such_an_item_of_an_up_model_out(mark: Any) -> None:
    rig = Rig()
    rig.send(hello())
    rig.execute(forged(mark, fault(9, "strange")))
    question = Digest(
        epoch=EPOCH, hn="hn", n=1, up=0, schema=fingerprint(rig.relay.schema), cut_s=NOW_MS // 1000,
        cursors={}, models={"Fault": Claim("0" * 16, 0)},
    )  # fmt: skip
    (answer,) = rig.send(question)
    assert isinstance(answer, Compared) and (answer.differs, answer.heal) == ({}, [])
