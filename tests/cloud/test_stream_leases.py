"""Leases of shards: taken, renewed, shared, given up, taken over; parents before children; whatever dies, all is done.

The stream is the scripted fake of stream_rig.py; readers, leases and record work are the real ones.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import Any

import pytest
from stream_rig import Reading, ScriptedStream, World

from cloud.stream import END, START
from cloud.stream_config import StreamConfig
from cloud.stream_leases import LEASE_PK, Usurped
from cloud.table import ConditionFailed, Get, Put, Unavailable, Update
from fleet.rng import rng

A = ("device#home-1", "a")
B = ("device#home-2", "b")
LEASE_MS = StreamConfig().lease_ms
RENEW_MS = StreamConfig().renew_ms
SETTLE_MS = 5 * RENEW_MS


def lease(world: World, shard: str) -> dict[str, Any] | None:
    item = world.execute(Get((LEASE_PK + "label", f"shard#{shard}")))
    return None if item is None else dict(item)


def checkpoint(world: World, shard: str) -> str:
    found = lease(world, shard)
    assert found is not None
    return str(found["checkpoint"])


def seqs(world: World) -> list[int]:
    return [record.seq for record in world.done]


def test_one_relay_takes_every_shard_reads_all_and_keeps_the_place() -> None:
    stream = ScriptedStream("s1", "s2", "s3", "s4", "s5")  # more than one page of the listing
    places = {name: stream.add(name, A) for name in sorted(stream.shards)}
    world = World(stream)
    world.start("one")
    world.pass_time(3_000)
    assert sorted(seqs(world)) == [1, 2, 3, 4, 5]
    assert world.owners() == dict.fromkeys(places, "one")
    assert {name: checkpoint(world, name) for name in places} == places


def test_a_relay_of_the_same_name_goes_on_at_once_where_the_killed_one_was() -> None:
    stream = ScriptedStream("s1")
    stream.add("s1", A)
    world = World(stream)
    first = world.start("one")
    world.pass_time(3_000)
    first.die()
    stream.add("s1", A)
    second = world.start("one")
    world.pass_time(1_000)
    assert [record.seq for record in second.relay.done] == [2]


def test_what_was_not_checkpointed_comes_again() -> None:
    stream = ScriptedStream("s1")
    world = World(stream)
    first = world.start("one")
    world.pass_time(2_000)
    stream.add("s1", A)
    first.read("s1", first.leases.held["s1"])
    assert seqs(world) == [1]
    first.die()  # worked on, and killed before the checkpoint
    second = world.start("one")
    world.pass_time(1_000)
    assert [record.seq for record in second.relay.done] == [1]


def test_an_orderly_stop_leaves_the_place_and_no_owner() -> None:
    stream = ScriptedStream("s1")
    world = World(stream)
    first = world.start("one")
    world.pass_time(2_000)
    place = stream.add("s1", A)
    first.turn()
    first.stop()
    assert lease(world, "s1") == {"pk": LEASE_PK + "label", "sk": "shard#s1", "checkpoint": place} | {
        "counter": (lease(world, "s1") or {})["counter"]
    }
    second = world.start("two")
    world.pass_time(500)
    assert list(second.leases.held) == ["s1"]
    assert not world.events("shard-taken-over")


def first_tick(stop_after: int) -> tuple[World, Reading]:
    """A relay's first look at three shards; it is told to stop while the answer to that request is under way."""
    world = World(ScriptedStream("s1", "s2", "s3"))
    relay = world.start("one")
    asked: list[Any] = []

    def execute(request: Any) -> Any:
        assert not (relay.leases.stopping and isinstance(request, Put) and "owner" in request.item), "one more is taken"
        asked.append(request)
        answer = world.execute(request)
        if len(asked) == stop_after:
            relay.leases.stop()
        return answer

    relay.execute = execute
    relay.run(relay.leases.tick())
    return world, relay


def test_a_stop_between_any_two_requests_of_the_first_tick_leaves_no_lease() -> None:
    taken = set()
    for stop_after in range(1, 100):
        world, relay = first_tick(stop_after)
        taken.add(len(relay.leases.held))
        if not relay.leases.stopping:
            break
        assert all(held.asked_back for held in relay.leases.held.values())
        relay.turn()  # the readers end,
        relay.turn()  # and the leases go
        assert not any("owner" in (lease(world, shard) or {}) for shard in ("s1", "s2", "s3"))
    assert taken == {0, 1, 2, 3} and not relay.leases.stopping


def test_a_dead_relay_is_taken_over_after_the_lease_and_not_before() -> None:
    stream = ScriptedStream("s1")
    world = World(stream)
    first, second = world.start("one"), world.start("two")
    world.pass_time(SETTLE_MS)
    assert world.owners() == {"s1": "one"}
    died_ms = world.now_ms
    first.die()
    stream.add("s1", A)
    while not second.leases.held:
        world.pass_time(500)
    took_ms = world.now_ms - died_ms
    assert LEASE_MS - RENEW_MS <= took_ms <= LEASE_MS + 2 * RENEW_MS
    world.pass_time(1_000)
    assert seqs(world) == [1]
    assert [event["shard"] for event in world.events("shard-taken-over")] == ["s1"]


@pytest.mark.parametrize(("shards", "relays"), [(4, 2), (4, 3), (5, 2), (1, 3), (7, 4)])
def test_relays_share_evenly_and_no_shard_has_two(shards: int, relays: int) -> None:
    names = [f"s{i}" for i in range(shards)]
    stream = ScriptedStream(*names)
    world = World(stream)
    for i in range(relays):
        world.start(f"relay{i}")
        world.pass_time(6_000)
    world.pass_time(SETTLE_MS)
    owned: dict[str, list[str]] = defaultdict(list)
    for relay in world.relays:
        owned[relay.name].extend(relay.leases.held)
    counts = [len(owned[relay.name]) for relay in world.relays]
    assert sorted(shard for each in owned.values() for shard in each) == names
    assert max(counts) - min(counts) <= 1
    assert not world.events("shard-lost")  # given up, never torn away


def test_children_wait_for_their_parent_also_across_relays() -> None:
    stream = ScriptedStream("s1")
    for _ in range(3):
        stream.add("s1", A)
    stream.split("s1", "s2", "s3")
    stream.add("s2", A)
    stream.add("s3", B)
    world = World(stream, StreamConfig(batch_records=1))
    world.start("one")
    world.start("two")
    world.pass_time(SETTLE_MS)
    order = [record.seq for record in sorted(world.done, key=lambda each: each.seq)]
    assert order == [1, 2, 3, 4, 5]
    finished = [name for name, fields in world.told if name == "shard-finished" or fields.get("shard") in ("s2", "s3")]
    assert finished[0] == "shard-finished"
    assert checkpoint(world, "s1") == END


def test_a_shard_whose_parent_is_forgotten_is_read() -> None:
    stream = ScriptedStream("s1")
    stream.split("s1", "s2")
    stream.add("s2", A)
    stream.forget("s1")
    world = World(stream)
    world.start("one")
    world.pass_time(2_000)
    assert seqs(world) == [1]


def test_a_lease_of_a_shard_that_is_gone_is_cleared_away_and_unread_records_are_told() -> None:
    stream = ScriptedStream("s1", "s2")
    config = StreamConfig()
    world = World(stream, config)
    first = world.start("one")
    world.pass_time(2_000)
    stream.split("s1", "s3")
    world.pass_time(2_000)
    assert checkpoint(world, "s1") == END
    first.die()  # s2 keeps its lease, and its checkpoint, while nobody reads
    stream.forget("s1")
    stream.forget("s2")
    world.start("two")
    world.pass_time(3 * config.discover_ms)
    assert lease(world, "s1") is None and lease(world, "s2") is None
    assert [event["shard"] for event in world.events("shard-lost-unread")] == ["s2"]
    assert world.counters["stream_shard_lost"] == 1


def test_idle_shards_write_renewals_and_nothing_else() -> None:
    """A checkpoint is a change of the table: a stream that fed on its own checkpoints would never be still."""
    stream = ScriptedStream("s1")
    world = World(stream)
    relay = world.start("one")
    world.pass_time(2_000)
    writes: list[Any] = []

    def execute(request: Any) -> Any:
        if isinstance(request, Update):
            writes.append(request)
            stream.add("s1", request.key, private=True)
        return world.execute(request)

    relay.execute = execute
    world.pass_time(10 * RENEW_MS)
    assert 8 <= len(writes) <= 12
    assert checkpoint(world, "s1") != START  # saved along with a renewal


def test_a_relay_that_woke_up_late_cannot_say_what_is_done() -> None:
    stream = ScriptedStream("s1")
    world = World(stream)
    late = world.start("late")
    world.pass_time(2_000)
    held = late.leases.held["s1"]
    world.relays.remove(late)  # it stalls
    other = world.start("other")
    stream.add("s1", A)
    world.pass_time(LEASE_MS + 3 * RENEW_MS)
    assert list(other.leases.held) == ["s1"]
    before = checkpoint(world, "s1")
    late.leases.done(held, "999")  # it wakes, and has done something more
    late.run(late.leases.tick())
    assert held.lost and not late.leases.held
    assert checkpoint(world, "s1") == before
    assert [event["shard"] for event in world.events("shard-lost")] == ["s1"]


def test_a_second_relay_of_one_name_ends_the_first() -> None:
    stream = ScriptedStream("s1")
    world = World(stream)
    first = world.start("one")
    world.pass_time(2_000)
    second = world.start("one")
    world.relays.remove(first)
    world.pass_time(1_000)
    assert list(second.leases.held) == ["s1"]
    world.now_ms += RENEW_MS
    with pytest.raises(Usurped):
        first.run(first.leases.tick())


def test_a_renewal_whose_answer_was_lost_keeps_the_lease() -> None:
    stream = ScriptedStream("s1")
    world = World(stream)
    relay = world.start("one")
    world.pass_time(2_000)
    held = relay.leases.held["s1"]
    losing = [True]

    def execute(request: Any) -> Any:
        answer = world.execute(request)
        if isinstance(request, Update) and losing:
            losing.clear()
            raise Unavailable("no answer")
        return answer

    relay.execute = execute
    world.pass_time(3 * RENEW_MS)
    assert relay.leases.held["s1"] is held and not held.lost
    assert held.counter == (lease(world, "s1") or {})["counter"]


def test_a_relay_that_cannot_reach_the_table_stops_reading_before_another_may_take_over() -> None:
    stream = ScriptedStream("s1")
    world = World(stream)
    relay = world.start("one")
    world.pass_time(2_000)

    def execute(request: Any) -> Any:
        if isinstance(request, Update):
            raise Unavailable("no answer")
        return world.execute(request)

    relay.execute = execute
    world.pass_time(LEASE_MS + RENEW_MS)
    assert not relay.leases.held
    assert world.events("shard-lost")


def test_items_of_dead_relays_are_removed() -> None:
    world = World(ScriptedStream("s1"))
    world.start("dead").turn()
    world.relays[0].die()
    alive = world.start("alive")
    world.pass_time(12 * LEASE_MS)
    names = [key for key in alive.leases._relays_seen]
    assert names == [alive.leases.me]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_killed_every_record_is_worked_on_in_order(seed: int) -> None:
    """Relays start, die between any two requests, and stop in order; shards split; all is done in the end."""
    draw = rng(seed, "streams", "chaos")
    stream = ScriptedStream("s0", "s1", page=1 + draw.below(3))
    world = World(stream, StreamConfig(batch_records=1 + draw.below(4)))
    names = iter(f"t{i}" for i in range(1_000))
    leaves = ["s0", "s1"]
    where = {("device#home-1", f"k{i}"): f"s{i % 2}" for i in range(6)}
    written: dict[tuple[str, str], list[int]] = defaultdict(list)
    boots = 0
    for _ in range(120):
        for _ in range(draw.below(4)):
            key = sorted(where)[draw.below(len(where))]
            written[key].append(int(stream.add(where[key], key)))
        action = draw.below(12)
        if action == 0 and len(world.relays) < 3:
            world.start(f"relay{boots % 4}-{boots if draw.chance(0.5) else 'same'}")
            boots += 1
        elif action == 1 and world.relays:
            kill_midway(world, world.relays[draw.below(len(world.relays))], draw.below(6))
        elif action == 2 and world.relays:
            world.relays[draw.below(len(world.relays))].stop()
        elif action == 3 and len(stream.shards) < 12:
            old = leaves.pop(draw.below(len(leaves)))
            new = [next(names), next(names)]
            leaves.extend(new)
            stream.split(old, *new)
            for key in sorted(where):
                if where[key] == old:
                    where[key] = new[draw.below(2)]
        try:
            world.pass_time(500 * (1 + draw.below(8)))
        except Usurped:
            world.relays.pop(0)  # one of two of the same name, whichever
    for relay in list(world.relays):
        relay.die()
    world.start("last")
    world.pass_time(2 * LEASE_MS + 12 * RENEW_MS)
    finished = world.relays[-1]
    assert set(finished.leases.held) == set(leaves)
    first_done: dict[tuple[str, str], list[int]] = defaultdict(list)
    for record in world.done:
        if record.seq not in first_done[record.key]:
            first_done[record.key].append(record.seq)
    assert dict(first_done) == dict(written)


def kill_midway(world: World, relay: Reading, requests: int) -> None:
    """It makes so many more requests, and is gone with whatever it was at."""

    class Killed(Exception):
        pass

    left = requests

    def execute(request: Any) -> Any:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return world.execute(request)

    relay.execute = execute
    world.now_ms += RENEW_MS
    with contextlib.suppress(Killed, Usurped):
        relay.turn()
    relay.die()


def test_the_numbers_must_not_contradict_each_other() -> None:
    for wrong in ({"renew_ms": 8_000}, {"batch_records": 0}, {"lanes": 0}, {"backoff_base_ms": 20_000}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            StreamConfig(**wrong)


@pytest.mark.parametrize("known", [False, True])
def test_of_two_that_take_a_lease_at_once_one_gets_it(known: bool) -> None:
    stream = ScriptedStream("s1")
    world = World(stream)
    if known:
        world.start("before")
        world.pass_time(1_000)
        world.relays[0].stop()
    slow, fast = world.start("slow"), world.start("fast")
    steps = slow.leases.tick()
    request = next(steps)
    while not (isinstance(request, Put | Update) and request.key[1] == "shard#s1"):
        request = steps.send(world.execute(request))
    fast.run(fast.leases.tick())
    assert list(fast.leases.held) == ["s1"]
    with pytest.raises(ConditionFailed):
        world.execute(request)
    with pytest.raises(StopIteration):
        steps.throw(ConditionFailed())
    assert not slow.leases.held
