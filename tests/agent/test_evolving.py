"""A device whose schema changes, or differs from the cloud's: no field is lost, and what has changed is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from device_rig import FEED, Device
from device_schema import schema_text

from agent.files import open_file
from agent.protocol.errors import ModelError
from agent.protocol.messages import ITEM_BYTES_MAX, Hello, decode_image, encode_image
from agent.protocol.schema import Schema

FULL: Final = schema_text()
EMAIL: Final = "email: {type: 'string', unique: true, scope: '${team}'}"


def opened(folder: Path, text: str) -> Device:
    device = Device(schema=Schema.parse(text, "s.json5"), connection=open_file(folder / "agent.db"))
    device.open()
    return device


def said(device: Device) -> list[str]:
    return [str(difference).partition(":")[0] + ": " + difference.kind for difference in device.database.differences]


def test_a_schema_that_stays_is_told_nothing_of_and_costs_no_write(tmp_path: Path) -> None:
    opened(tmp_path, FULL).database.close()
    device = opened(tmp_path, FULL)
    assert device.database.differences == []
    assert device.connection.total_changes == 0
    device.database.close()


def test_a_model_that_is_gone_leaves_its_items_and_is_told(tmp_path: Path) -> None:
    device = opened(tmp_path, FULL)
    device.database.create("Task", {"area": "a", "id": "1", "kind": "k", "rank": 1})
    device.database.close()
    device = opened(tmp_path, schema_text("Job"))
    assert "Task: model removed" in said(device)
    assert list(device.database.items()) == []
    assert device.database.statistics().items_by_model == {"(no model)": 1}
    assert device.database.check() == []
    device.database.close()
    device = opened(tmp_path, FULL)
    assert "Task: model added" in said(device)
    assert [item["id"] for item in device.database.find("Task", {"kind": "k"}, index="kinds")] == ["1"]
    device.database.close()


def test_a_field_that_is_gone_is_kept_through_updates_and_told(tmp_path: Path) -> None:
    device = opened(tmp_path, FULL)
    device.database.create("Job", {"id": "1", "kind": "k", "rank": 1})
    device.database.close()
    device = opened(tmp_path, FULL.replace("kind: {type: 'string'}, rank:", "rank:"))
    assert "Job.kind: field removed" in said(device)
    device.database.update("Job", {"id": "1", "rank": 2})
    device.database.close()
    device = opened(tmp_path, FULL)
    assert "Job.kind: field added" in said(device)
    assert (device.database.get("Job", {"id": "1"}) or {})["kind"] == "k"
    device.database.close()


def test_a_field_that_becomes_unique_holds_what_has_its_scope_and_shuts_nothing_out(tmp_path: Path) -> None:
    plain = FULL.replace("email: {type: 'string', unique: true}", "email: {type: 'string'}, team: {type: 'string'}")
    assert plain != FULL
    device = opened(tmp_path, plain)
    for name, team in (("1", "a"), ("2", None)):
        device.database.create("User", {"id": name, "email": "x@y", "team": team})
    device.database.close()
    device = opened(tmp_path, plain.replace("email: {type: 'string'}", EMAIL))
    with pytest.raises(ModelError, match="belongs to"):
        device.database.create("User", {"id": "3", "email": "x@y", "team": "a"})
    assert [item["id"] for item in device.database.find("User")] == ["1", "2"]
    assert device.database.check() == []
    device.database.close()


def test_an_index_that_is_new_holds_what_was_there_before(tmp_path: Path) -> None:
    without = FULL.replace("kinds: {hash: 'kind', sort: 'rank'},", "")
    assert without != FULL
    device = opened(tmp_path, without)
    with device.database.transaction():
        for number in range(200):
            device.database.create("Job", {"id": f"{number:03}", "kind": "k", "rank": -number})
    device.database.close()
    device = opened(tmp_path, FULL)
    assert [item["rank"] for item in device.database.find("Job", {"kind": "k"}, index="kinds")] == list(range(-199, 1))
    assert device.database.check() == []
    device.database.close()


def test_a_life_that_the_schema_has_learned_of_ends(tmp_path: Path) -> None:
    without = FULL.replace("ttl: {type: 'date', ttl: true}", "other: {type: 'date'}")
    device = opened(tmp_path, without)
    key, image = device.database.schema.models["Session"].create({"id": "a"}, device.context, 1, str)
    device.store.put_base(*key, encode_image({**image, "ttl": device.set_ms // 1000 + 5}), 1)
    device.database.close()
    device = opened(tmp_path, FULL)
    device.set_ms += 5_000
    assert list(device.database.find("Session")) == []
    assert device.database.expire() == 1
    device.database.close()


@pytest.mark.parametrize("sync", ["up", "both"])
def test_items_of_a_model_that_begins_to_sync_are_sent(tmp_path: Path, sync: str) -> None:
    device = opened(tmp_path, FULL)
    device.database.create("Session", {"id": "a"})
    big = device.database.schema.models["Session"].create({"id": "b"}, device.context, 1, str)
    device.store.put_base(*big[0], encode_image({**big[1], "x": "x" * ITEM_BYTES_MAX}), 1)
    seen = device.visible()
    device.database.close()
    text = FULL.replace("Session: {enable: 'device'}", f"Session: {{enable: 'both', sync: '{sync}'}}")
    device = opened(tmp_path, text)
    assert "Session: sync changed" in said(device)
    assert device.visible() == seen
    assert [(row.kind, row.sk) for row in device.store.outbox("kind<>'sweep'")] == [("create", "session#a")]
    assert [(letter.sk, letter.code) for letter in device.database.dead_letters()] == [("session#b", "size")]
    assert device.database.check() == []
    device.database.close()


def test_a_schema_of_a_newer_agent_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    device = opened(tmp_path, FULL)
    device.database.create("Job", {"id": "a"})
    device.store.set_note("schema", b"of the future")
    device.database.close()
    device = opened(tmp_path, FULL)
    assert device.database.differences == []
    assert device.database.get("Job", {"id": "a"}) is not None
    device.database.close()


def test_a_newly_added_model_is_asked_for(tmp_path: Path) -> None:
    """The feed's cursor was reached without it."""
    for text, cursor in ((schema_text("Weather", "Job"), True), (schema_text("Weather", "Job", "Offer"), False)):
        device = Device(schema=Schema.parse(text.replace(", mem: true", ""), "s.json5"),
                        connection=open_file(tmp_path / "agent.db")).boot()  # fmt: skip
        if cursor:
            models = device.session.replica.fingerprints["device"]
            device.store.set_cursor("device", FEED, 5, models)
        device.connect()
        hello = device.sent()[-1]
        assert isinstance(hello, Hello)
        assert (hello.feeds["device"].epoch is not None) is cursor
        device.database.close()


def test_a_device_of_an_older_schema_carries_what_it_does_not_know(tmp_path: Path) -> None:
    device = opened(tmp_path, FULL)
    image: dict[str, Any] = {"_type": "Lease", "deviceId": "home-1", "id": "a", "rev": 1, "new": {"deep": [1, None]}}
    device.store.put_base("device#home-1", "lease#a", encode_image(image), 1)
    device.database.update("Lease", {"id": "a", "rev": 2})
    (row,) = device.store.outbox("kind<>'sweep'")
    assert decode_image(row.image or b"")["new"] == {"deep": [1, None]}
    device.database.close()
