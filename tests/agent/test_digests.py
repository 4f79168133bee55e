"""The device's half of digests, against a real relay: when it asks, what it counts, and how what differs is healed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from device_rig import PK, Device, Pair, arm, fresh_memory, memory_of
from relay_rig import SCHEMA, config, fault, notice, schema_with, setting, stored

from agent.config import AgentConfig
from agent.digests import AFTER_MS_MAX, AHEAD_MS
from agent.events import COMPARE, NEVER
from agent.protocol.messages import (
    APART_MAX,
    Compared,
    Digest,
    Hello,
    Op,
    Up,
    Wait,
    decode_from_device,
    encode,
    encode_image,
)
from agent.protocol.schema import Schema
from cloud.config import RelayConfig
from cloud.head import ORPHAN
from cloud.table import Delete, Put

MINUTE_MS = 60_000
SETTLED_MS = 2 * MINUTE_MS
QUICK = RelayConfig(record_life_ms=MINUTE_MS, worker_life_ms=MINUTE_MS)
EVERY = AgentConfig(digest_period_ms=5 * MINUTE_MS, digest_retry_ms=5_000, digest_heal_ms=10 * MINUTE_MS)
LIVES = Schema.load("scenarios/schemas/lifetimes.json5")


def pair(config: AgentConfig = EVERY, schema: Schema = SCHEMA, **types: Any) -> Pair:
    """In step, with items of each way."""
    made = Pair(config=config, settings=QUICK, schema=schema, **types)
    made.act(made.device.boot)
    go(made, 10_000)
    return made


def filled(config_: AgentConfig = EVERY, **types: Any) -> Pair:
    made = pair(config_, **types)
    for n in range(4):
        made.write("upsert", "Fault", {"id": f"f{n}", "rev": n})
        made.write("upsert", "Setting", {"name": f"s{n}", "rev": 10 + n})
        made.rig.execute(Put(stored(notice(20 + n, f"n{n}"))))
    made.write("upsert", "Status", {"rev": 30})
    made.rig.execute(Put(stored(config(31))))
    go(made, 5_000)
    return made


def go(pair: Pair, ms: int, step_ms: int = 1_000) -> None:
    """Time passes, and nothing goes wrong."""
    end_ms = pair.rig.now_ms + ms
    while True:
        pair.connect()
        pair.settle()
        if pair.rig.now_ms >= end_ms:
            return
        pair.pass_time(step_ms)


def digests(pair: Pair) -> list[Digest]:
    messages = (decode_from_device(payload) for payload in pair.heard)
    return [message for message in messages if isinstance(message, Digest)]


def agree(pair: Pair) -> bool:
    """Whether the device shows what the table has, orphans left out."""
    there = {
        (item["pk"], item["sk"]): {name: value for name, value in item.items() if name not in ("pk", "sk", "_op")}
        for item in pair.rig.table.scan()
        if ORPHAN not in item
    }
    return pair.device.visible() == there


def lose_on_device(pair: Pair, sk: str, pk: str = PK) -> None:
    pair.device.connection.execute("DELETE FROM item WHERE pk=? AND sk=?", (pk, sk))
    pair.device.store.load()


def rot_on_device(pair: Pair, sk: str, image: bytes, pk: str = PK) -> None:
    pair.device.connection.execute("UPDATE item SET image=? WHERE pk=? AND sk=?", (image, pk, sk))
    pair.device.store.load()


def put_back(pair: Pair, sk: str, pk: str = PK, **changed: Any) -> None:
    """In the table, past the stream. Nothing changed: the item is gone."""
    item = pair.rig.item((pk, sk))
    assert item is not None
    pair.rig.table.put_back((pk, sk), {**item, **changed} if changed else None)


# When


def test_a_device_compares_within_a_period_after_its_boot_and_then_once_a_period() -> None:
    made = filled()
    go(made, 5 * MINUTE_MS)
    assert 1 <= len(digests(made)) <= 2
    go(made, 60 * MINUTE_MS, 5_000)
    assert 9 <= len(digests(made)) <= 16
    assert made.device.probes["digest_suspected"] == 0
    assert all(
        set(message.models) == {"Command", "Config", "Fault", "Notice", "Setting", "Status"}
        for message in digests(made)
    )


def test_by_default_it_is_a_day() -> None:
    made = filled(AgentConfig())
    go(made, 23 * 60 * MINUTE_MS, 10 * MINUTE_MS)
    assert len(digests(made)) <= 1
    go(made, 48 * 60 * MINUTE_MS, 10 * MINUTE_MS)
    assert 2 <= len(digests(made)) <= 4


def test_a_device_with_digests_off_draws_nothing_asks_nothing_and_still_answers_to_a_person() -> None:
    off = filled(AgentConfig(digest_period_ms=0))
    go(off, 60 * MINUTE_MS, 5_000)
    assert digests(off) == [] and off.device.session.digests.at_ms == NEVER
    off.act(lambda: off.device.feed(COMPARE))
    go(off, 3 * MINUTE_MS)
    assert len(digests(off)) == 1 and off.device.probes["digest_equal"] == 6
    assert off.device.session.digests.at_ms == NEVER


def test_who_asks_while_there_is_no_connection_is_served_with_the_next_one() -> None:
    made = filled(AgentConfig(digest_period_ms=0))
    made.disconnect()
    made.act(lambda: made.device.feed(COMPARE))
    assert made.device.session.digests.at_ms == NEVER
    go(made, 3 * MINUTE_MS)
    assert len(digests(made)) == 1


def test_nothing_is_asked_while_anything_is_on_its_way() -> None:
    made = filled(AgentConfig(digest_period_ms=0, digest_retry_ms=5_000))
    device = made.device

    def asks() -> bool:
        """After a minute in which messages are held back."""
        made.act(lambda: device.feed(COMPARE))
        for _ in range(20):
            made.pass_time(3_000)
        return any(isinstance(decode_from_device(payload), Digest) for payload in made.up)

    made.write("upsert", "Setting", {"name": "s0", "rev": 99})  # in flight
    assert not asks()
    go(made, MINUTE_MS)
    assert len(digests(made)) == 1
    made.device.session.want_hello(0)  # a hello without an answer
    made.collect()
    assert not asks()
    go(made, MINUTE_MS)
    device.hear(Wait(hn=device.session.hn, retry_after=10 * MINUTE_MS, reason="rate"))
    assert not asks()
    go(made, 40 * MINUTE_MS, 5_000)
    assert len(digests(made)) == 3
    assert asks()


def test_a_count_goes_page_by_page_and_begins_again_when_something_is_written_between() -> None:
    made = filled(AgentConfig(digest_period_ms=0, digest_rows=2))
    device = made.device
    device.feed(COMPARE)
    pages = 0
    while not device.out and pages < 100:
        made.rig.now_ms += 1
        device.tick()
        pages += 1
        if pages == 3:
            device.store.set_note("x", b"y")
    assert pages == 3 + 8  # fourteen items, two at a time, and no more: after three pages that were for nothing
    made.collect()
    go(made, 5_000)
    assert device.probes["digest_equal"] == 6


def test_a_count_that_is_always_disturbed_is_given_up_for_a_while() -> None:
    made = filled(AgentConfig(digest_period_ms=0, digest_rows=1))
    device = made.device
    device.feed(COMPARE)
    for _ in range(20):
        made.rig.now_ms += 1
        device.tick()
        device.store.set_note("x", b"y")
    assert not device.out and device.probes["digest_disturbed"] == 1
    go(made, 3 * MINUTE_MS, 100)
    assert device.probes["digest_equal"] == 6


def test_a_count_that_has_taken_too_long_begins_again() -> None:
    made = filled(AgentConfig(digest_period_ms=0, digest_rows=1))
    device = made.device
    device.feed(COMPARE)
    for _ in range(3):
        made.rig.now_ms += AHEAD_MS // 3
        device.tick()
    assert device.session.digests._beginnings == 2


def test_a_question_without_an_answer_is_asked_again_less_and_less_often() -> None:
    """An older relay does not know of digests."""
    made = filled(AgentConfig(digest_period_ms=60 * MINUTE_MS, digest_retry_ms=5_000))
    made.device.feed(COMPARE)
    asked: list[int] = []
    for _ in range(3_600):
        made.collect()
        for payload in list(made.up):
            if isinstance(decode_from_device(payload), Digest):
                made.up.remove(payload)
                asked.append(made.rig.now_ms)
        made.settle()
        made.pass_time(1_000)
    gaps = [after - before for before, after in pairwise(asked)]
    assert 4 <= len(asked) <= 10 and gaps[-1] > 4 * gaps[0]
    assert made.device.probes["digest_unanswered"] >= len(gaps)
    assert agree(made)


# What is found


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("where", ["lost on device", "changed on device", "lost in table", "changed in table"])
@pytest.mark.parametrize(
    ("pk", "sk"),
    [(PK, "fault#f1"), (PK, "status#"), (PK, "setting#s1"), (PK, "config#"), ("account#main", "notice#n1")],
)
def test_every_damage_is_healed_once_it_is_sure(pk: str, sk: str, where: str, compact: bool) -> None:
    made = filled(AgentConfig(compact=compact, digest_period_ms=5 * MINUTE_MS, digest_retry_ms=5_000))
    if where == "lost on device":
        lose_on_device(made, sk, pk)
    elif where == "changed on device":
        rot_on_device(made, sk, encode_image_with_rev(made, pk, sk), pk)
    else:
        put_back(made, sk, pk, **({} if where == "lost in table" else {"rev": 77}))
    truth = made.device.visible() if pk == PK and sk[:5] in ("fault", "statu") else None
    assert not agree(made)
    go(made, SETTLED_MS)
    assert made.rig.counters["digest_mismatch"] == 0 and not agree(made)
    go(made, 15 * MINUTE_MS)
    assert agree(made)
    assert made.rig.counters["digest_mismatch"] == made.device.probes["digest_healing"] == 1
    if truth is not None:
        assert made.device.visible() == truth  # of an up model the device is right
    equal = made.device.probes["digest_equal"]
    go(made, 10 * MINUTE_MS)
    assert made.device.probes["digest_equal"] >= equal + 6 and made.rig.counters["digest_mismatch"] == 1
    assert made.device.session.mints == 0


def encode_image_with_rev(made: Pair, pk: str, sk: str) -> bytes:
    return encode_image({**made.device.visible()[pk, sk], "rev": 77})


def test_what_is_on_its_way_down_is_suspected_and_no_alarm() -> None:
    """A change that the stream has not told of yet makes a difference; when it has come, there is none."""
    made = filled(AgentConfig(digest_period_ms=0))
    made.rig.execute(Put(stored(config(99))))  # its record waits
    made.act(lambda: made.device.feed(COMPARE))
    for _ in range(200):
        made.pass_time(500)
        while made.up:
            made.deliver_up(made.up.pop(0))
        while made.tasks:
            made.step(0)
        while made.down:
            made.deliver_down(made.down.pop(0))
    assert made.device.probes["digest_suspected"] == 1
    go(made, 10 * MINUTE_MS)
    assert agree(made)
    assert made.rig.counters["digest_mismatch"] == 0 and made.device.session.digests._suspicions == {}


def test_a_difference_that_changes_has_to_stand_anew() -> None:
    made = filled()
    put_back(made, "config#", rev=77)
    suspicions = made.device.session.digests._suspicions
    for _ in range(10 * 60):
        if not suspicions:
            go(made, 1_000)
    first = suspicions["Config"]
    go(made, SETTLED_MS // 2)
    put_back(made, "config#", rev=78)
    go(made, SETTLED_MS)
    second = suspicions["Config"]
    assert second.delta != first.delta and second.since_ms >= first.since_ms + SETTLED_MS
    assert made.rig.counters["digest_mismatch"] == 0
    go(made, 10 * MINUTE_MS)
    assert agree(made)


def test_what_covers_a_difference_for_a_while_does_not_make_it_younger() -> None:
    """Found, then found with a change on its way on top, then found again: since the first time."""
    device, message = asked(filled(AgentConfig(digest_period_ms=0, digest_retry_ms=1_000)))
    one, other = "1" * 16, "2" * 16
    claimed: list[str] = []
    for found in (one, other, one):
        device.hear(Compared(hn=message.hn, n=message.n, differs={"Config": found}))
        device.feed(COMPARE)
        device.tick()
        (again,) = device.sent()
        assert isinstance(again, Digest)
        message = again
        claimed.append(again.models["Config"].delta)
    assert claimed == [one, other, one]
    firsts = device.session.digests._first_ms["Config"]
    assert device.session.digests._suspicions["Config"].since_ms == firsts[one] <= firsts[other]
    device.hear(Compared(hn=message.hn, n=message.n))
    assert device.session.digests._first_ms == {} == device.session.digests._suspicions


def test_a_snapshot_ends_what_was_suspected_of_its_feed() -> None:
    """The table may be put back, and differ in the very same way once more: for another reason, and anew."""
    made = filled(AgentConfig(digest_period_ms=0))
    device, message = asked(made)
    differs = {"Config": "1" * 16, "Setting": "2" * 16, "Notice": "3" * 16, "Status": "4" * 16}
    device.hear(Compared(hn=message.hn, n=message.n, differs=differs, after_ms=60 * MINUTE_MS))
    assert set(device.session.digests._suspicions) == set(differs)
    device.store.drop_cursor("device")
    made.disconnect()
    go(made, 5_000)
    assert device.store.cursors["device"]
    assert set(device.session.digests._suspicions) == set(device.session.digests._first_ms) == {"Notice", "Status"}


def test_a_difference_that_others_covered_is_asked_about_again_at_once() -> None:
    """Another model differs, too, and is young: the old one does not wait for it, since others may cover it again."""
    made = filled(AgentConfig(digest_period_ms=0, digest_retry_ms=1_000))
    device, message = asked(made)
    waits_ms: list[int] = []
    for found in ("1" * 16, "2" * 16, "1" * 16):
        differs = {"Config": found, "Notice": f"{message.n:016x}"}
        device.hear(Compared(hn=message.hn, n=message.n, differs=differs, after_ms=10_000))
        waits_ms.append(device.session.digests.at_ms - device.monotonic_ms())
        made.rig.now_ms += waits_ms[-1]
        device.tick()
        (message,) = (each for each in device.sent() if isinstance(each, Digest))
    assert min(waits_ms[:2]) >= 10_000 and waits_ms[2] <= 2_000
    assert (message.models["Config"].delta, message.models["Notice"].age_ms) == ("1" * 16, waits_ms[2])


def test_a_difference_makes_a_device_ask_whether_the_relay_has_got_another_schema() -> None:
    """One that came to know a model tells of none of its changes from before: they are no damage."""
    for version, differs in (("", True), ("2", False), ("2", True)):
        device, message = asked(filled(AgentConfig(digest_period_ms=0)))
        device.session.replica.relay_goes_by(version)
        device.hear(Compared(hn=message.hn, n=message.n, differs={"Config": "1" * 16} if differs else {}))
        hellos = [each for each in device.sent() if isinstance(each, Hello)]
        assert len(hellos) == (version == "2" and differs)


def test_an_answer_that_comes_late_counts_while_nothing_else_was_asked() -> None:
    device, message = asked(filled(AgentConfig(digest_period_ms=0, digest_retry_ms=60_000)))
    made_ms = device.session.digests.at_ms
    assert made_ms > device.monotonic_ms()
    device.session.digests.on_timer(made_ms)
    assert device.probes["digest_unanswered"] == 1
    device.hear(Compared(hn=message.hn, n=message.n))
    assert device.probes["digest_equal"] == 6 and device.probes["stale_compared"] == 0


def test_one_feed_is_healed_once_in_a_while_only() -> None:
    made = filled(AgentConfig(digest_period_ms=MINUTE_MS, digest_retry_ms=1_000, digest_heal_ms=60 * MINUTE_MS))
    for rev in range(70, 75):
        put_back(made, "config#", rev=rev)
        go(made, 8 * MINUTE_MS)
    assert made.device.probes["digest_healing"] == 1 and made.device.probes["digest_heal_waits"] > 0
    assert made.device.probes["snapshot_loaded"] == 3  # two at the beginning
    go(made, 60 * MINUTE_MS, 5_000)
    assert made.device.probes["digest_healing"] == 2 and agree(made)


def test_a_file_with_an_image_that_cannot_be_read_is_healed() -> None:
    made = filled()
    for sk in ("config#", "setting#s1"):
        rot_on_device(made, sk, b'{"rev": \xff')
    go(made, 15 * MINUTE_MS)
    assert agree(made) and made.device.probes["digest_healing"] == 2  # two models, by one snapshot


def test_so_is_one_of_a_model_with_an_end_and_an_index() -> None:
    made = pair(schema=LIVES)
    image = {"_type": "Order", "rev": 1, "deviceId": "home-1", "id": "o", "created": 1, "updated": 1}
    made.rig.execute(Put({**image, "pk": PK, "sk": "order#o"}))
    go(made, 5_000)
    rot_on_device(made, "order#o", b"nothing")
    go(made, 15 * MINUTE_MS)
    assert agree(made)


# What makes no difference


def test_changes_that_wait_for_their_period_do_not_keep_a_device_from_comparing_and_do_not_differ() -> None:
    made = pair(schema=LIVES)
    for n in range(300):
        made.write("upsert", "Meter", {"name": f"m{n % 3}", "rev": n})
        made.write("remove" if n % 7 == 6 else "upsert", "Dial", {"name": "d"} | ({"rev": n} if n % 7 != 6 else {}))
        go(made, 4_000, 2_000)
    assert len(digests(made)) >= 3 and made.device.store.outbox_rows > 0
    assert made.device.probes["digest_equal"] > 0 == made.device.probes["digest_suspected"]


def test_an_item_that_the_cloud_has_refused_is_set_apart_on_both_sides() -> None:
    schema = schema_with("Fault", "orphans: 'keep'")
    made = filled(schema=schema)
    (n,) = made.device.connection.execute("SELECT count(*) FROM item WHERE sk='fault#f1'").fetchone()
    assert n == 1
    made.device.connection.execute("UPDATE item SET rejected='unique', image=? WHERE sk='fault#f1'", (b'{"rev":5}',))
    made.device.store.load()
    go(made, 20 * MINUTE_MS)
    assert digests(made)[-1].apart == [(PK, "fault#f1")]
    assert made.device.probes["digest_suspected"] == 0


def test_with_too_many_of_them_their_models_are_left_out() -> None:
    made = filled()
    for n in range(APART_MAX + 1):
        made.device.store.put_base(PK, f"fault#x{n}", b"{}", 0, "unique")
    go(made, 10 * MINUTE_MS)
    last = digests(made)[-1]
    assert last.apart == [] and "Fault" not in last.models and "Setting" in last.models
    assert made.device.probes["digest_suspected"] == 0


def test_a_row_that_was_too_large_is_set_apart() -> None:
    made = filled()
    made.rig.execute(Put(stored(config(99, text="x" * 120_000))))
    go(made, 20 * MINUTE_MS)
    assert digests(made)[-1].apart == [(PK, "config#")]
    assert made.device.probes["digest_suspected"] == 0 == made.rig.counters["digest_oversize"]
    made.device.database.discard(made.device.database.dead_letters()[0].n)  # forgotten here: the relay leaves it out
    go(made, 10 * MINUTE_MS)
    assert made.rig.counters["digest_oversize"] > 0 == made.device.probes["digest_suspected"]


@pytest.mark.parametrize("gone", [False, True])
def test_a_row_that_was_too_large_once_is_compared_again(gone: bool) -> None:
    made = filled()
    made.rig.execute(Put(stored(config(99, text="x" * 120_000))))
    go(made, 20 * MINUTE_MS)
    assert digests(made)[-1].apart == [(PK, "config#")]
    made.rig.execute(Delete((PK, "config#")) if gone else Put(stored(config(100))))
    go(made, 20 * MINUTE_MS)
    assert digests(made)[-1].apart == [] == made.device.database.dead_letters()
    assert made.device.probes["digest_suspected"] == 0


def test_what_is_over_and_not_swept_yet_makes_no_difference() -> None:
    made = pair(schema=LIVES)
    now_s = made.rig.now_ms // 1000
    for n, life_s in enumerate((30, 200, 400, 5_000)):
        end = {"ttl": now_s + life_s, "created": 1, "updated": 1}
        image = {"_type": "Order", "rev": n, "deviceId": "home-1", "id": str(n), **end}
        made.rig.execute(Put({**image, "pk": PK, "sk": f"order#{n}"}))
    go(made, 30 * MINUTE_MS, 2_000)
    assert len(made.device.visible()) == 1 and len(list(made.rig.table.scan())) == 4
    assert made.device.probes["digest_suspected"] == 0 and len(digests(made)) >= 4
    made.rig.table.sweep(made.rig.now_ms)
    go(made, 15 * MINUTE_MS, 2_000)
    assert made.device.probes["digest_suspected"] == 0


def test_attributes_that_the_devices_schema_does_not_know_are_kept_and_compared() -> None:
    made = filled()
    key, image = setting(99, "s0", made.rig.now_ms, later={"a": [1, 2.5]}, unit="°C")
    made.rig.execute(Put(stored((key, image))))
    go(made, 10 * MINUTE_MS)
    assert made.device.visible()[key]["later"] == {"a": [1, 2.5]}
    made.write("upsert", "Setting", {"name": "s0", "rev": 100})
    go(made, 10 * MINUTE_MS)
    assert made.rig.item(key) is not None and made.device.probes["digest_suspected"] == 0


def test_a_model_in_memory_is_compared_too() -> None:
    made = pair(schema=LIVES)
    image = {"_type": "Tariff", "rev": 1, "accountId": "main", "name": "t", "created": 1, "updated": 1}
    made.rig.execute(Put({**image, "pk": "account#main", "sk": "tariff#t"}))
    go(made, 10 * MINUTE_MS)
    assert digests(made)[-1].models["Tariff"].count == 1
    made.rig.table.put_back(("account#main", "tariff#t"), {**image, "rev": 2, "pk": "account#main", "sk": "tariff#t"})
    go(made, 15 * MINUTE_MS)
    assert agree(made)


def test_an_orphan_and_what_others_wrote_into_an_up_model_make_no_difference() -> None:
    made = filled()
    made.rig.execute(Put(stored(fault(1, "theirs"))))
    made.rig.execute(Put(stored(fault(1, "older"), ["home-1", "another-epoch", 3, "x"])))
    go(made, 15 * MINUTE_MS)
    assert made.device.probes["digest_suspected"] == 0


def test_after_a_schema_of_other_keys_nothing_is_compared() -> None:
    made = filled()
    text = SCHEMA.text.replace("'command#${id}'", "'order#${id}'")
    made.device.off()
    made.device.schema = Schema.parse(text, "later.json5")
    go(made, 15 * MINUTE_MS)
    assert made.rig.counters["digest_other_schema"] > 0 == made.device.probes["digest_suspected"]


# Restating


def ops(pair: Pair) -> list[Op]:
    found = [message for payload in pair.heard if isinstance(message := decode_from_device(payload), Up)]
    return [op for message in found for op in message.ops]


def restating(made: Pair) -> None:
    """Until the alarm; nothing is restated yet."""
    for _ in range(20 * 60 * 10):
        if made.device.session.digests.is_healing:
            return
        go(made, 100, 100)
    raise AssertionError("no alarm in twenty minutes")


def test_a_model_is_restated_a_few_items_at_a_time_and_a_sweep_ends_it() -> None:
    made = filled(AgentConfig(digest_period_ms=5 * MINUTE_MS, digest_retry_ms=5_000, batch_ops_max=3))
    put_back(made, "fault#f2")
    made.heard.clear()
    restating(made)
    go(made, 10_000, 100)
    told = [(op.kind, op.key[1]) for op in ops(made)]
    assert told == [*(("update", f"fault#f{n}") for n in range(4)), ("sweep", "Fault")]
    assert ops(made)[-1].updated == ops(made)[0].u == 11
    assert agree(made) and not made.device.session.digests.is_healing


def test_what_is_deleted_while_a_model_is_restated_stays_deleted() -> None:
    made = filled(AgentConfig(digest_period_ms=5 * MINUTE_MS, digest_retry_ms=5_000, batch_ops_max=1))
    put_back(made, "fault#f0", rev=66)
    restating(made)
    made.write("remove", "Fault", {"id": "f3"})  # before its turn
    go(made, 1_500, 100)
    made.write("remove", "Fault", {"id": "f0"})  # after it
    go(made, 30_000, 500)
    assert sorted(item["sk"] for item in made.rig.table.scan() if item["sk"][:5] == "fault") == ["fault#f1", "fault#f2"]
    assert agree(made) and not any(ORPHAN in item for item in made.rig.table.scan())


def test_what_the_device_has_deleted_and_the_table_has_again_becomes_an_orphan() -> None:
    made = filled()
    item = made.rig.item((PK, "fault#f1"))
    made.write("remove", "Fault", {"id": "f1"})
    go(made, 5_000)
    assert item is not None and made.rig.item((PK, "fault#f1")) is None
    made.rig.execute(Put(item))  # by hand, from an old copy
    go(made, 15 * MINUTE_MS)
    back = made.rig.item((PK, "fault#f1"))
    assert back is not None and back[ORPHAN] is True and agree(made)
    mismatches = made.rig.counters["digest_mismatch"]
    go(made, 30 * MINUTE_MS, 5_000)
    assert made.rig.counters["digest_mismatch"] == mismatches == 1


def test_a_change_that_waits_for_its_period_restates_its_item_itself() -> None:
    made = pair(schema=LIVES)
    for n in range(3):
        made.write("upsert", "Meter", {"name": f"m{n}", "rev": n})
    go(made, 3 * MINUTE_MS)
    item = made.rig.item((PK, "meter#m0"))
    assert item is not None
    made.rig.table.put_back((PK, "meter#m0"), {**item, "rev": 55})
    for _ in range(120):
        if not made.device.session.digests.is_healing:
            made.write("upsert", "Meter", {"name": "m1", "rev": 99})
            go(made, 10_000, 5_000)
    assert made.device.session.digests.is_healing
    made.write("upsert", "Meter", {"name": "m1", "rev": 100})
    assert made.device.database.get("Meter", {"name": "m1"})["rev"] == 100  # type: ignore[index]
    go(made, 10_000, 500)
    assert made.device.database.get("Meter", {"name": "m1"})["rev"] == 100  # type: ignore[index]
    assert made.device.session.digests.is_healing  # the sweep waits for it
    go(made, 3 * MINUTE_MS)
    assert agree(made) and not made.device.session.digests.is_healing
    assert not any(ORPHAN in item for item in made.rig.table.scan())


def test_a_model_with_an_item_that_the_cloud_refused_is_restated_without_it_and_without_a_sweep() -> None:
    made = filled()
    made.device.connection.execute("UPDATE item SET rejected='unique' WHERE sk='fault#f1'")
    made.device.store.load()
    put_back(made, "fault#f2")
    made.heard.clear()
    restating(made)
    go(made, 10_000)
    assert [op.key[1] for op in ops(made)] == ["fault#f0", "fault#f2", "fault#f3"]
    assert not any(ORPHAN in item for item in made.rig.table.scan())


def test_a_new_epoch_ends_a_restatement() -> None:
    made = filled(AgentConfig(digest_period_ms=5 * MINUTE_MS, digest_retry_ms=5_000, batch_ops_max=1))
    put_back(made, "fault#f0", rev=66)
    restating(made)
    go(made, 1_500, 100)
    made.rig.execute(Delete(("_fleet#head#home-1", "head")))
    go(made, 25 * MINUTE_MS, 2_000)
    assert not made.device.session.digests.is_healing and agree(made)


@pytest.mark.parametrize("statements", range(0, 30, 3))
def test_the_power_may_fail_at_any_statement_of_it(statements: int) -> None:
    made = filled()
    put_back(made, "fault#f2")
    lose_on_device(made, "setting#s1")
    restating(made)
    arm(made.device.store, statements)
    go_until_cut(made)
    assert memory_of(made.device.store) == fresh_memory(made.device.connection)
    go(made, 30 * MINUTE_MS, 2_000)
    assert agree(made) and made.device.session.mints == 0


def go_until_cut(made: Pair) -> None:
    for _ in range(100):
        if not made.device.powered:
            made.act(made.device.boot)
            return
        made.pass_time(500)
        if made.device.powered:
            made.settle()
    made.device.store.execute = made.device.connection.cursor().execute


# Hostile and late answers


def asked(made: Pair) -> tuple[Device, Digest]:
    """A device whose question is on the wire."""
    device = made.device
    device.feed(COMPARE)
    for _ in range(100):
        if not device.out:
            made.rig.now_ms += 1
            device.tick()
    message = decode_from_device(device.out[-1])
    assert isinstance(message, Digest)
    device.out.clear()
    return device, message


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 99}, {"hn": "another"}])
def test_an_answer_to_another_question_counts_nothing(wrong: dict[str, Any]) -> None:
    device, message = asked(filled(AgentConfig(digest_period_ms=0)))
    before = device.dump()
    fields: dict[str, Any] = {"hn": message.hn, "n": message.n, "differs": {"Fault": "1" * 16}, "heal": ["Fault"]}
    device.hear(Compared(**{**fields, **wrong}))
    assert device.probes["stale_compared"] == 1 and device.dump() == before and not device.sent()


def test_an_answer_that_comes_again_counts_nothing() -> None:
    device, message = asked(filled(AgentConfig(digest_period_ms=0)))
    answer = Compared(hn=message.hn, n=message.n, differs={"Config": "1" * 16}, heal=["Config"])
    device.hear(answer)
    assert "device" not in device.store.cursors
    device.sent()
    after = device.dump()
    device.hear(answer, answer)
    assert device.dump() == after and device.probes["stale_compared"] == 2 and not device.sent()


@pytest.mark.parametrize(
    "answer",
    [
        {"differs": {"Nonsense": "1" * 16}, "heal": ["Nonsense"]},
        {"heal": ["Fault"]},
        {"differs": {"Diagnostic": "1" * 16}, "heal": ["Diagnostic"]},
        {"skipped": ["Nonsense", "Fault"]},
    ],
)
def test_models_that_were_not_asked_for_or_do_not_differ_are_not_healed(answer: dict[str, Any]) -> None:
    device, message = asked(filled(AgentConfig(digest_period_ms=0)))
    before = device.dump()
    device.hear(Compared(hn=message.hn, n=message.n, **answer))
    assert device.dump() == before and not device.session.digests.is_healing


@pytest.mark.parametrize("broken", [{"after_ms": -1}, {"after_ms": 1 << 60}, {"differs": {"Fault": "x"}}])
def test_an_answer_out_of_range_is_refused(broken: dict[str, Any]) -> None:
    device, message = asked(filled(AgentConfig(digest_period_ms=0)))
    device.hear(Compared(hn=message.hn, n=message.n, **broken))
    assert device.probes["message_refused_malformed"] == 1


def test_a_relay_cannot_put_a_comparison_off_for_ever() -> None:
    device, message = asked(filled(AgentConfig(digest_period_ms=0)))
    device.hear(Compared(hn=message.hn, n=message.n, differs={"Fault": "1" * 16}, after_ms=1 << 50))
    assert device.session.digests.at_ms <= device.monotonic_ms() + AFTER_MS_MAX + MINUTE_MS


def test_an_answer_that_nobody_asked_for_is_harmless() -> None:
    made = filled()
    before = made.device.dump()
    made.device.hear(encode(Compared(hn=made.device.session.hn, n=1, differs={"Fault": "1" * 16}, heal=["Fault"])))
    assert made.device.dump() == before and made.device.probes["stale_compared"] == 1
