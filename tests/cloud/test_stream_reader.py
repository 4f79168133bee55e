"""Reading a shard and working on its records: expired iterators, trimmed records, poison, what the table refuses.

The stream is the scripted fake of stream_rig.py; the reader, the record work and the dead letters are the real ones.
"""

from __future__ import annotations

from typing import Any

import pytest
from relay_rig import NOW_MS
from stream_rig import ITERATOR_LIFE_MS, Reading, ScriptedStream, World

from cloud.stream import END, Pause
from cloud.stream_config import StreamConfig
from cloud.stream_letters import LETTERS_PK, REASON_CHARS_MAX, read_letters, record_of
from cloud.stream_records import change_of
from cloud.table import Cancelled, InvalidRequest, Item, Put, Record, TableError, Throttled, Unavailable

A = ("device#home-1", "a")
B = ("device#home-1", "b")


def started(stream: ScriptedStream, config: StreamConfig | None = None) -> tuple[World, Reading]:
    world = World(stream, config)
    relay = world.start("one")
    world.pass_time(1_000)
    return world, relay


def letters(world: World, relay: Reading) -> list[Item]:
    found: list[Item] = relay.run(read_letters())
    return found


def seqs(world: World) -> list[int]:
    return [record.seq for record in world.done]


# Reading.


def test_an_expired_iterator_is_opened_anew_where_it_was() -> None:
    stream = ScriptedStream("s1")
    stream.add("s1", A)
    world, relay = started(stream)
    world.now_ms += ITERATOR_LIFE_MS + 1  # the process slept
    stream.now_ms = world.now_ms
    relay.leases.held["s1"].renewed_ms = world.now_ms
    stream.add("s1", A)
    held = relay.leases.held["s1"]
    relay.read("s1", held)
    relay.read("s1", held)
    assert seqs(world) == [1, 2]
    assert world.counters["stream_iterator_expired"] == 1
    assert not world.events("records-trimmed")


def test_a_checkpoint_older_than_the_horizon_goes_on_at_the_horizon_and_says_so() -> None:
    stream = ScriptedStream("s1")
    place = stream.add("s1", A)
    world, relay = started(stream)
    world.pass_time(2_000)
    relay.die()
    for _ in range(4):
        stream.add("s1", A)
    stream.trim("s1", 3)
    world.start("one")
    world.pass_time(2_000)
    assert seqs(world) == [1, 4, 5]
    assert world.counters["stream_trimmed"] == 1
    (told,) = world.events("records-trimmed")
    assert (told["shard"], told["place"]) == ("s1", place)


def test_records_trimmed_under_an_open_iterator_are_told_too() -> None:
    stream = ScriptedStream("s1")
    world, _ = started(stream, StreamConfig(batch_records=1))
    for _ in range(4):
        stream.add("s1", A)
    world.pass_time(500)
    stream.trim("s1", 3)
    world.pass_time(2_000)
    assert seqs(world) == [1, 4]
    assert world.counters["stream_trimmed"] == 1


def test_a_shard_that_vanishes_while_it_is_read_ends() -> None:
    stream = ScriptedStream("s1")
    world, relay = started(stream)
    stream.forget("s1")
    world.pass_time(1_000)
    assert not relay.leases.held
    assert world.counters["stream_shard_gone"] == 1


def test_trouble_with_the_stream_is_told_with_growing_pauses_and_ends() -> None:
    stream = ScriptedStream("s1")
    world, relay = started(stream)
    held = relay.leases.held["s1"]
    _, reader = relay.readers["s1"]
    trouble: list[TableError] = [Unavailable("no answer"), Throttled("busy"), Unavailable("no answer")]

    def execute(request: Any) -> Any:
        if trouble:
            raise trouble.pop(0)
        return world.execute(request)

    relay.execute = execute
    batches = [relay.run(reader.look()) for _ in range(4)]
    assert [batch.problem.partition(":")[0] for batch in batches] == ["Unavailable", "Throttled", "Unavailable", ""]
    assert [batch.pause_ms for batch in batches] == [100, 200, 400, world.config.poll_ms]
    assert held.place == batches[-1].place


def test_the_end_of_a_closed_shard_comes_after_its_last_record() -> None:
    stream = ScriptedStream("s1")
    stream.add("s1", A)
    stream.split("s1", "s2")
    world, relay = started(stream, StreamConfig(batch_records=1))
    world.pass_time(1_000)
    assert seqs(world) == [1]
    assert [event["place"] for event in world.events("shard-finished")] == [END]
    assert list(relay.leases.held) == ["s2"]


# Working on records.


def test_private_and_unwanted_records_cost_no_work() -> None:
    stream = ScriptedStream("s1")
    stream.add("s1", ("_fleet#log#all", "1"), private=True)
    stream.add("s1", ("audit#1", "x"))
    stream.add("s1", A)
    world, _ = started(stream)
    assert seqs(world) == [3]
    assert world.counters["stream_record_private"] == 1
    assert world.counters["stream_record_unwanted"] == 1


def test_a_deletion_by_the_service_is_handed_on_as_one() -> None:
    stream = ScriptedStream("s1")
    stream.add("s1", A, by_ttl=True)
    world, _ = started(stream)
    assert [record.by_ttl for record in world.done] == [True]
    assert world.counters["stream_record_by_ttl"] == 1


class Bug(Exception):
    """What a fault of the relay's own code would raise."""


@pytest.mark.parametrize("error", [InvalidRequest("size"), Cancelled(("size",)), Bug("surprise")])
def test_poison_is_set_aside_with_its_reason_and_its_shard_goes_on(error: Exception) -> None:
    stream = ScriptedStream("s1")
    poison = int(stream.add("s1", A))
    stream.add("s1", A)
    stream.add("s1", B)
    world = World(stream)
    relay = world.start("one")
    relay.relay.fails = lambda record: error if record.seq == poison else None
    world.pass_time(5_000)
    assert sorted(seqs(world)) == [2, 3]
    (item,) = letters(world, relay)
    assert item["key"] == list(A) and item["tries"] == world.config.record_tries and item["relay"] == "one"
    assert type(error).__name__ in item["reason"]
    assert item["ttl"] > NOW_MS // 1000
    assert world.counters["stream_record_set_aside"] == 1
    assert len(world.events("record-retried")) == world.config.record_tries - 1
    assert relay.leases.held["s1"].place == stream.shards["s1"].changes[-1].seq


def test_a_letter_is_one_however_often_its_record_comes_and_holds_what_is_needed_to_try_again() -> None:
    stream = ScriptedStream("s1")
    stream.add("s1", A, by_ttl=True)
    world = World(stream)
    for _ in range(2):
        relay = world.start("one")
        relay.relay.fails = lambda record: InvalidRequest("x" * 10_000)
        world.now_ms += 1
        change = stream.shards["s1"].changes[0]
        relay.run(relay.work.lane([change]))
        relay.die()
    (item,) = letters(world, relay)
    assert len(item["reason"]) == REASON_CHARS_MAX
    assert item["pk"] == LETTERS_PK
    assert record_of(item) == Record(0, 1, A, None, None, NOW_MS, True)


def test_a_record_that_cannot_be_read_is_set_aside_at_once() -> None:
    stream = ScriptedStream("s1")
    stream.add("s1", A, problem="ValueError: a number of 50 digits")
    stream.add("s1", A)
    world, relay = started(stream)
    assert seqs(world) == [2]
    assert [item["reason"] for item in letters(world, relay)] == ["ValueError: a number of 50 digits"]


@pytest.mark.parametrize("error", [Throttled("busy"), Unavailable("no answer")])
def test_what_the_table_refuses_is_tried_for_long_and_then_set_aside(error: TableError) -> None:
    stream = ScriptedStream("s1")
    stream.add("s1", A)
    world = World(stream)
    relay = world.start("one")
    relay.relay.fails = lambda record: error if world.now_ms < 30 * 60_000 else None
    relay.run(relay.work.lane([stream.shards["s1"].changes[0]]))
    assert seqs(world) == [1] and not letters(world, relay)
    assert world.now_ms >= 30 * 60_000
    relay.relay.fails = lambda record: error
    relay.run(relay.work.lane([stream.shards["s1"].changes[0]]))
    assert len(letters(world, relay)) == 1
    assert world.now_ms >= 30 * 60_000 + world.config.record_retry_ms


def test_where_only_a_person_can_help_the_record_waits_for_ever() -> None:
    class Unusable(TableError):
        pass

    stream = ScriptedStream("s1")
    stream.add("s1", A)
    world = World(stream)
    relay = world.start("one")
    relay.relay.fails = lambda record: Unusable("access denied") if world.now_ms < 10 * 3_600_000 else None
    relay.run(relay.work.lane([stream.shards["s1"].changes[0]]))
    assert seqs(world) == [1] and not letters(world, relay)


def test_a_letter_that_the_table_refuses_waits_and_one_that_it_can_never_take_is_told() -> None:
    stream = ScriptedStream("s1")
    stream.add("s1", A, problem="odd")
    world = World(stream)
    relay = world.start("one")
    answers: list[TableError | None] = [Unavailable("no answer"), Throttled("busy"), None, InvalidRequest("size")]
    pauses: list[int] = []

    def execute(request: Any) -> Any:
        if isinstance(request, Pause):
            pauses.append(request.ms)
            return None
        assert isinstance(request, Put)
        error = answers.pop(0)
        if error is not None:
            raise error

    relay.execute = execute
    change = stream.shards["s1"].changes[0]
    relay.run(relay.work.lane([change]))
    assert pauses == [100, 200]
    assert not world.counters["stream_letter_failed"]
    relay.run(relay.work.lane([change]))
    assert dict(world.counters)["stream_letter_failed"] == 1


# Records as the service tells them.


def raw(**more: Any) -> dict[str, Any]:
    keys = {"pk": {"S": "device#home-1"}, "sk": {"S": "config#"}}
    told = {"Keys": keys, "NewImage": {**keys, "rev": {"N": "1"}}, "SequenceNumber": "000000000000000000042"}
    return {"dynamodb": {**told, "ApproximateCreationDateTime": 1_700_000_000.5, **more}}


def test_a_record_has_its_key_time_and_images() -> None:
    change = change_of(raw())
    assert change.record is not None
    assert change.record.new == {"pk": "device#home-1", "sk": "config#", "rev": 1}
    assert (change.seq, change.at_ms, change.record.old) == ("000000000000000000042", 1_700_000_000_500, None)


@pytest.mark.parametrize(
    "who",
    [
        {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"},  # as boto3 tells it
        {"type": "Service", "principalId": "dynamodb.amazonaws.com"},  # as a function's event does
    ],
)
def test_a_sweep_is_known_by_who_did_it(who: dict[str, str]) -> None:
    gone = {**raw(), "eventName": "REMOVE"}
    swept = change_of({**gone, "userIdentity": who}).record
    assert swept is not None and swept.by_ttl
    written = change_of({**raw(), "eventName": "MODIFY", "userIdentity": who}).record
    assert written is not None and not written.by_ttl
    for other in ({}, {"Type": "Service", "PrincipalId": "other"}, {"Type": "User", **who, "type": "User"}):
        by_hand = change_of({**gone, "userIdentity": {**other, "Type": "User"}}).record
        assert by_hand is not None and not by_hand.by_ttl


def test_a_private_record_is_told_by_its_key_before_its_images_are_read() -> None:
    change = change_of(
        raw(Keys={"pk": {"S": "_fleet#log#all"}, "sk": {"S": "x"}}, NewImage={"rev": {"N": "no number"}})
    )
    assert change.record is None and not change.problem


@pytest.mark.parametrize(
    "broken",
    [{"Keys": {"id": {"S": "x"}}}, {"Keys": None}, {"NewImage": {"rev": {"Q": "?"}}}, {"NewImage": {"rev": "x"}}],
)
def test_a_record_that_makes_no_sense_has_a_problem(broken: dict[str, Any]) -> None:
    change = change_of(raw(**broken))
    assert change.record is None and change.problem
