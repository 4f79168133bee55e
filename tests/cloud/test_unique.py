"""Unique values of models that devices write: one holder each, whatever devices send, repeat or give up."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_rig import EPOCH, Rig, Task, every_interleaving, hello, image, killed_at_every_step, op, up

from agent.protocol.messages import Op
from agent.protocol.schema import Schema

SCHEMA = Schema.parse(
    """{
    format: 'onetable:1.1.0', version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}},
    process: {Badge: {sync: 'up', orphans: 'remove'}, Seat: {sync: 'both', conflict: 'arrival'}},
    models: {
        Badge: {
            pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'badge#${id}'},
            deviceId: {type: 'string', required: true}, id: {type: 'string', required: true}, rev: {type: 'number'},
            tag: {type: 'string', unique: true},
            door: {type: 'string'}, code: {type: 'string', unique: true, scope: '${door}'},
        },
        Seat: {
            pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'seat#${id}'},
            deviceId: {type: 'string', required: true}, id: {type: 'string', required: true}, rev: {type: 'number'},
            place: {type: 'string', unique: true},
        },
    },
}""",
    "badges.json5",
)


def badge(id: str, tag: str | None, device: str = "home-1", updated_ms: int = 1, **more: Any) -> Any:
    tagged = {} if tag is None else {"tag": tag}
    return image("Badge", f"device#{device}", f"badge#{id}", 1, updated_ms, deviceId=device, id=id, **tagged, **more)


def seat(id: str, place: str, updated_ms: int = 1) -> Any:
    return image("Seat", "device#home-1", f"seat#{id}", 1, updated_ms, deviceId="home-1", id=id, place=place)


@pytest.fixture
def rig() -> Rig:
    return joined()


def joined() -> Rig:
    rig = Rig(schema=SCHEMA)
    rig.send(hello())
    rig.send(hello(), "away-1")
    return rig


def held(rig: Rig) -> list[str]:
    """The unique values that are taken."""
    return sorted(item["pk"].split("#", 1)[1] for item in rig.table.scan() if item["sk"] == "_unique#")


def wanted(rig: Rig) -> list[str]:
    """Those that the items call for."""
    found: list[str] = []
    for item in rig.table.scan():
        if item.get("tag") is not None:
            found.append(f"Badge#tag#{item['tag']}")
        if item.get("code") is not None:
            found.append(f"{item['door']}#Badge#code#{item['code']}")
        if item.get("place") is not None:
            found.append(f"Seat#place#{item['place']}")
    return sorted(found)


def test_a_value_is_taken_with_the_item_changed_with_it_and_freed_with_it(rig: Rig) -> None:
    assert rig.ack(up(op(1, "create", badge("a", "red")))).verdicts == {}
    assert rig.item(("_unique#Badge#tag#red", "_unique#")) == {
        "pk": "_unique#Badge#tag#red", "sk": "_unique#", "_type": "_Unique",
    }  # fmt: skip
    rig.ack(up(op(2, "update", badge("a", "blue"))))
    assert held(rig) == ["Badge#tag#blue"]
    rig.ack(up(op(3, "update", badge("a", None))))
    assert held(rig) == []
    rig.ack(up(op(4, "update", badge("a", "red"))))
    rig.ack(up(op(5, "delete", badge("a", "red"))))
    assert held(rig) == []


def test_a_value_that_another_item_has_is_rejected_and_the_rest_of_the_batch_is_taken(rig: Rig) -> None:
    rig.ack(up(op(1, "create", badge("z", "red", "away-1"))), "away-1")
    ack = rig.ack(up(op(1, "create", badge("a", "red")), op(2, "create", badge("b", "blue"))))
    assert ack.verdicts == {1: "unique"}
    assert rig.item(("device#home-1", "badge#a")) is None
    assert held(rig) == wanted(rig) == ["Badge#tag#blue", "Badge#tag#red"]
    assert rig.counters["rejected_unique"] == 1


def test_a_scope_keeps_values_apart_and_a_value_in_it_needs_it(rig: Rig) -> None:
    ops = [op(1, "create", badge("a", None, door="n", code="1")), op(2, "create", badge("b", None, door="s", code="1"))]
    assert rig.ack(up(*ops)).verdicts == {}
    assert held(rig) == ["n#Badge#code#1", "s#Badge#code#1"]
    assert rig.ack(up(op(3, "create", badge("c", None, code="2")))).verdicts == {3: "scope"}
    assert rig.ack(up(op(4, "create", badge("d", None, door="s", code="1")))).verdicts == {4: "unique"}


def test_values_may_be_passed_on_and_swapped_within_a_batch(rig: Rig) -> None:
    rig.ack(up(op(1, "create", badge("a", "red")), op(2, "create", badge("b", "blue"))))
    ack = rig.ack(up(op(3, "update", badge("a", "green")), op(4, "update", badge("b", "red"))))
    assert ack.verdicts == {}
    assert held(rig) == wanted(rig) == ["Badge#tag#green", "Badge#tag#red"]


def test_two_items_of_a_batch_that_want_one_value_are_decided_in_order(rig: Rig) -> None:
    assert rig.ack(up(op(1, "create", badge("a", "red")), op(2, "create", badge("b", "red")))).verdicts == {2: "unique"}
    assert held(rig) == wanted(rig) == ["Badge#tag#red"]


def test_an_item_keeps_its_value_when_it_is_written_again(rig: Rig) -> None:
    rig.ack(up(op(1, "create", badge("a", "red"))))
    assert rig.ack(up(op(2, "update", badge("a", "red", updated_ms=2)))).verdicts == {}
    assert held(rig) == ["Badge#tag#red"]


def test_items_of_both_sides_hold_their_values_too(rig: Rig) -> None:
    rig.ack(up(op(1, "create", seat("a", "front")), op(2, "create", seat("b", "back"))))
    assert rig.ack(up(op(3, "update", seat("b", "front", 2)))).verdicts == {3: "unique"}
    rig.ack(up(op(4, "delete", seat("a", "front", 3))))
    assert rig.ack(up(op(5, "update", seat("b", "front", 4)))).verdicts == {}
    assert held(rig) == wanted(rig) == ["Seat#place#front"]


def test_a_sweep_that_removes_an_orphan_frees_its_value(rig: Rig) -> None:
    rig.ack(up(op(1, "create", badge("a", "red"))))
    other = "f" * 32
    rig.send(hello(other, replaces=EPOCH))
    rig.ack(up(op(1, "sweep"), epoch=other))
    assert held(rig) == wanted(rig) == []


def test_whoever_is_first_has_the_value_in_every_interleaving() -> None:
    def begin() -> tuple[Rig, list[Task]]:
        rig = joined()
        mine = rig.message(up(op(1, "create", badge("a", "red"))))
        other = rig.message(up(op(1, "create", badge("z", "red", "away-1"))), "away-1")
        return rig, [Task(rig, mine), Task(rig, other)]

    seen = set()
    for rig in every_interleaving(begin):
        assert held(rig) == wanted(rig) == ["Badge#tag#red"]
        seen.add(rig.item(("device#home-1", "badge#a")) is None)
    assert seen == {True, False}


def test_a_worker_that_dies_at_any_step_leaves_nothing_half_done() -> None:
    def begin() -> tuple[Rig, Any]:
        rig = joined()
        rig.ack(up(op(1, "create", badge("a", "red"))))
        return rig, lambda: rig.message(up(op(2, "update", badge("a", "blue"))))

    for _, rig in killed_at_every_step(begin):
        assert held(rig) == wanted(rig)
        assert rig.ack(up(op(2, "update", badge("a", "blue")))).verdicts == {}
        assert held(rig) == ["Badge#tag#blue"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["red", "blue", None, "delete"])), max_size=12))
def test_the_values_taken_are_those_of_the_items_after_any_batch(writes: list[tuple[str, str | None]]) -> None:
    rig = joined()
    there: set[str] = set()
    ops: list[Op] = []
    for u, (name, tag) in enumerate(writes, 1):
        kind: Any = "delete" if tag == "delete" else "update" if name in there else "create"
        ops.append(op(u, kind, badge(name, None if tag == "delete" else tag)))
        there = there - {name} if kind == "delete" else there | {name}
    if ops:
        rig.ack(up(*ops))
    assert held(rig) == wanted(rig)
    assert len(set(held(rig))) == len(held(rig))


def test_every_order_of_three_takers_leaves_one_holder() -> None:
    for names in permutations("abc"):
        rig = joined()
        verdicts = [
            rig.ack(up(op(u, "create", badge(name, "red")))).verdicts.get(u, "") for u, name in enumerate(names, 1)
        ]
        assert verdicts == ["", "unique", "unique"]
        assert held(rig) == ["Badge#tag#red"]
