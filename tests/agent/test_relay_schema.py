"""A device and a relay with different schemas: what each says, when a feed is fetched anew, what a lost model keeps."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from device_rig import FEED, PK, Device
from relay_rig import NOW_MS, SCHEMA, Rig, config, hello, notice, setting, stored

from agent.protocol.messages import Ack, FeedState, HeadMark, Key, Snapshot, SnapshotItem, encode_image
from agent.replica import Outcome
from agent.store import UNSENT
from cloud.table import Put
from fleet.scenario.variants import variant

WITHOUT = variant(SCHEMA, ("Setting",))  # has another version


def test_a_relay_says_its_schema_where_the_device_has_another_and_only_there() -> None:
    rig = Rig()
    ask = hello(feeds={"device": FeedState("nonce")})
    told: list[object] = []
    same: list[object] = []
    snapshot: list[object] = []
    for schema in (SCHEMA.version, "9.9.9"):
        messages = rig.send(msgspec.structs.replace(ask, schema=schema))
        acks = [message for message in messages if isinstance(message, Ack)]
        (told if schema == "9.9.9" else same).extend(ack.schema for ack in acks)
        snapshot += [message.schema for message in messages if isinstance(message, Snapshot)]
    assert (same, told) == ([msgspec.UNSET], [SCHEMA.version])
    assert snapshot == [msgspec.UNSET, SCHEMA.version]


def joined() -> Device:
    made = Device().boot()
    made.connect()
    answer(made)
    made.hear(Ack(epoch=made.store.identity.epoch, up=1, upid=made.session.boot_id, now=NOW_MS))
    for feed in ("device", "account"):
        made.store.set_cursor(feed, FEED, 5, made.session.replica.fingerprints[feed])
    return made


def answer(device: Device, schema: str | msgspec.UnsetType = msgspec.UNSET) -> None:
    """The ack to a hello that the device says now."""
    identity = device.store.identity
    device.session.say_hello()
    device.hear(
        Ack(
            epoch=identity.epoch, up=identity.acked_u, upid=identity.acked_id, now=device.set_ms,
            n=device.session._hello_n, schema=schema,
        )
    )  # fmt: skip


VERSIONS = [
    # what the relay says one after the other ("": the same as the device) -> after which of them cursors are dropped
    (["", "", ""], []),
    (["2", "2", "2"], []),
    (["", "2", ""], [2]),
    (["2", "", ""], [1]),
    (["2", "3", "3"], [1]),
    (["2", "", "2", ""], [1]),
]


@pytest.mark.parametrize("reboots", [False, True])
@pytest.mark.parametrize(("versions", "dropped"), VERSIONS)
def test_a_feed_is_fetched_anew_when_the_relay_has_got_another_schema(
    versions: list[str], dropped: list[int], reboots: bool
) -> None:
    device = joined()
    found = []
    for number, version in enumerate(versions):
        if reboots:
            device.off()
            device.boot()
            device.connect()
        before = set(device.store.cursors)
        answer(device, version or msgspec.UNSET)
        if before - set(device.store.cursors):
            found.append(number)
    assert found == dropped
    assert device.probes["relay_models_changed"] == 2 * len(dropped)
    assert device.probes["feed_models_changed"] == 0


def test_a_snapshot_of_such_a_relay_is_remembered_as_one() -> None:
    device = joined()
    answer(device, "2")
    answer(device)
    assert not device.store.cursors
    nonce = device.session.nonces["device"]
    device.hear(Snapshot(feed="device", nonce=nonce, epoch=FEED, seq=9, part=0, parts=1, items=[], schema="2"))
    assert device.store.models["device"].endswith("/2")
    answer(device)
    assert "device" not in device.store.cursors


def test_between_equals_nothing_is_read_or_written_for_it() -> None:
    device = joined()
    statements: list[str] = []
    device.connection.set_trace_callback(statements.append)
    device.session.replica.relay_goes_by("")
    device.connection.set_trace_callback(None)
    assert statements == []


# ---------------------------------------------------------------- a model that the device's schema has lost


def lost(device: Device) -> Device:
    """The same file under a schema without Setting."""
    device.off()
    device.schema = WITHOUT
    return device.boot()


@pytest.mark.parametrize("model", ["Setting", "Fault"])
@pytest.mark.parametrize("verdict", ["", "type"])
def test_what_was_sent_of_a_lost_model_is_there_again_with_the_model(model: str, verdict: str) -> None:
    device = joined()
    made = device.database.create(model, {"rev": 1, "name": "mode", "id": "f1"})
    device.off()
    device.schema = variant(SCHEMA, (model,))
    device.boot()
    device.connect()
    (row,) = device.store.outbox("kind<>'sweep'")
    device.hear(
        Ack(
            epoch=device.store.identity.epoch, up=row.u, upid=device.store.outbox()[0].id or row.id, now=NOW_MS,
            verdicts={row.u: verdict} if verdict else {},
        )
    )  # fmt: skip
    device.off()
    device.schema = SCHEMA
    device.boot()
    assert device.store.outbox() == []
    assert device.database.get(model, {"name": "mode", "id": "f1"}) == made
    assert [letter.code for letter in device.database.dead_letters()] == ([verdict] if verdict else [])


def accepted(device: Device, *, lose: bool = True) -> None:
    """All in flight is."""
    (*_, last) = device.store.in_flight
    if lose:
        lost(device).connect()
    device.hear(Ack(epoch=device.store.identity.epoch, up=last.u, upid=last.id, now=NOW_MS))


def in_snapshot(device: Device, *items: tuple[Key, dict[str, Any]]) -> None:
    """All that the device has sent is in HEAD."""
    identity = device.store.identity
    mark = HeadMark(identity.epoch, identity.acked_u, identity.acked_id)
    if device.store.in_flight:
        mark = HeadMark(identity.epoch, device.store.in_flight[-1].u, device.store.in_flight[-1].id)
    held = [SnapshotItem(key, msgspec.Raw(encode_image(image))) for key, image in items]
    first = Snapshot(feed="device", nonce="", epoch=FEED, seq=9, part=0, parts=1, items=held, head=mark)
    assert device.session.replica.snapshot(first, held) is Outcome.APPLIED


def returned(device: Device) -> Device:
    """The same file under the whole schema again."""
    device.off()
    device.schema = SCHEMA
    return device.boot()


def outbox(device: Device) -> list[str]:
    return [row.sk for row in device.store.outbox("kind<>'sweep'")]


@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize("in_new_epoch", [False, True])
def test_what_was_accepted_before_its_model_was_lost_ends_with_the_next_snapshot(
    is_gone: bool, in_new_epoch: bool
) -> None:
    """Without it the operation would wait for a row that is set aside whenever it comes."""
    device = joined()
    made = device.database.create("Setting", {"rev": 1, "name": "mode"})
    if is_gone:
        accepted(device, lose=False)
        in_snapshot(device, setting(1, "mode"))
        device.database.remove("Setting", {"name": "mode"})
    accepted(device, lose=False)
    assert outbox(device) == ["setting#mode"]
    lost(device)
    if in_new_epoch:
        device.session.mint(device.store.identity.epoch)
        assert outbox(device) == ["setting#mode"]
    in_snapshot(device, setting(1, "mode"))
    assert outbox(device) == []
    assert returned(device).database.get("Setting", {"name": "mode"}) == (None if is_gone else made)


def test_a_later_write_shows_on_above_an_accepted_one_of_a_lost_model() -> None:
    device = joined()
    device.database.create("Setting", {"rev": 1, "name": "mode"})
    accepted(device, lose=False)
    device.drop()
    later = device.database.update("Setting", {"rev": 2, "name": "mode"})
    lost(device)
    in_snapshot(device, setting(1, "mode"))
    assert [(row.sk, row.state) for row in device.store.outbox()] == [("setting#mode", UNSENT)]
    assert returned(device).database.get("Setting", {"name": "mode"}) == later


def test_what_the_feed_has_gone_past_before_its_model_was_lost_does_not_come_back_with_its_ack() -> None:
    device = joined()
    device.database.create("Setting", {"rev": 1, "name": "mode"})
    in_snapshot(device, setting(7, "mode"))  # the cloud has written since
    accepted(device)
    assert outbox(device) == []
    found = returned(device).database.get("Setting", {"name": "mode"})
    assert found is not None and found["rev"] == 7


def test_what_waits_of_a_lost_model_is_sent_in_a_new_epoch_too() -> None:
    device = joined()
    device.drop()
    device.database.create("Setting", {"rev": 1, "name": "mode"})
    lost(device)
    device.session.mint(device.store.identity.epoch)
    kept = [(row.pk, row.sk, row.kind) for row in device.store.outbox("kind<>'sweep'")]
    assert kept == [(PK, "setting#mode", "create")]


def test_a_relay_without_a_model_passes_over_it_and_another_one_tells_of_it() -> None:
    rig = Rig(schema=variant(SCHEMA, ("Config",)))
    rig.execute(Put(stored(config(1))))
    rig.execute(Put(stored(notice(2, "n"))))
    assert len(rig.sequence()) == 1 and rig.log() == []
    whole = Rig()
    whole.table = rig.table  # the same, and all models
    messages = whole.send(hello(feeds={"device": FeedState("nonce")}))
    (snapshot,) = [message for message in messages if isinstance(message, Snapshot)]
    assert [item.key for item in snapshot.items] == [(PK, "config#")]
