"""Dead letters: looked at, forgotten, or sent again as a new operation."""

from __future__ import annotations

import pytest
from device_rig import PK, Device
from relay_rig import NOW_MS

from agent import letters
from agent.protocol.errors import ModelError
from agent.protocol.messages import Ack, Up
from agent.store import SENT


def rejected(model: str, action: str = "create") -> Device:
    """Adopted, with one write that the relay has rejected."""
    device = Device().boot()
    device.connect()
    store = device.store
    device.hear(Ack(epoch=store.identity.epoch, up=0, now=NOW_MS))
    device.hear(Ack(epoch=store.identity.epoch, up=1, upid=device.session.boot_id, now=NOW_MS))
    properties = {"id": "a", "name": "a", "rev": 1}
    device.database.create(model, properties)
    if action != "create":
        device.hear(Ack(epoch=store.identity.epoch, up=2, upid=device.session.boot_id, now=NOW_MS))
        device.set_ms += 5
        getattr(device.database, action)(model, {**properties, "rev": 2})
    u = store.in_flight[0].u
    device.hear(Ack(epoch=store.identity.epoch, up=u, upid=device.session.boot_id, now=NOW_MS, verdicts={u: "unique"}))
    device.sent()
    device.changes.clear()
    assert [letter.code for letter in device.database.dead_letters()] == ["unique"]
    return device


@pytest.mark.parametrize("model", ["Fault", "Setting"])
def test_a_rejected_write_is_sent_again_as_a_new_operation(model: str) -> None:
    device = rejected(model)
    (letter,) = device.database.dead_letters()
    assert device.database.retry(letter.n)
    assert device.database.dead_letters() == []
    (row,) = device.store.outbox()
    assert (row.u, row.state) == (3, SENT)
    assert row.updated > letter.updated
    assert (device.database.get(model, {"id": "a", "name": "a"}) or {})["rev"] == 1
    assert any(isinstance(message, Up) for message in device.sent())
    assert not device.database.retry(letter.n)


def test_a_rejected_delete_is_sent_again_though_the_item_is_gone_here() -> None:
    device = rejected("Fault", "remove")
    assert device.database.get("Fault", {"id": "a"}) is None
    assert device.database.retry(device.database.dead_letters()[0].n)
    assert [(row.kind, row.sk) for row in device.store.outbox()] == [("delete", "fault#a")]


def test_a_rejected_delete_of_an_item_that_came_back_deletes_it() -> None:
    device = rejected("Setting", "remove")
    store = device.store
    store.put_base(PK, "setting#a", b'{"_type":"Setting","deviceId":"home-1","name":"a","rev":1}', NOW_MS)
    for row in store.outbox():
        store.drop_operation(row.n)
    assert device.database.retry(device.database.dead_letters()[0].n)
    assert device.database.get("Setting", {"name": "a"}) is None


def test_a_write_that_was_followed_by_another_is_not_sent_again() -> None:
    device = rejected("Setting")
    device.set_ms += 10
    device.database.create("Setting", {"name": "a", "rev": 5})
    before = device.dump()
    with pytest.raises(ModelError, match="written since") as caught:
        device.database.retry(device.database.dead_letters()[0].n)
    assert caught.value.code == "retry"
    assert device.dump() == before


def test_what_came_down_and_could_not_be_applied_is_not_sent() -> None:
    device = rejected("Fault")
    letters.put_aside(device.store, NOW_MS, (PK, "config#"), b"?", "malformed")
    with pytest.raises(ModelError, match="came from the cloud"):
        device.database.retry(device.database.dead_letters()[-1].n)
    device.store.bury(NOW_MS, "nobody", "x", "create", b"{}", 1, "size")
    with pytest.raises(ModelError, match="no model"):
        device.database.retry(device.database.dead_letters()[-1].n)


def test_a_letter_is_discarded_once() -> None:
    device = rejected("Fault")
    (letter,) = device.database.dead_letters()
    assert device.database.discard(letter.n)
    assert not device.database.discard(letter.n)
    assert device.database.dead_letters() == []
    assert device.store.outbox() == []
    with device.database.transaction():
        assert not device.database.retry(7)
