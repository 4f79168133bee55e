"""The parts of the relay's process that need no other process: its inbox, log, settings, figures, accounts, driver."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.errors import InputError
from agent.protocol.log import AGAIN_MS, Log
from agent.protocol.messages import Hello, encode
from cloud.accounts import HEARD_MS, KNOWN_MS, UNKNOWN_MS, Accounts
from cloud.registry import device_key
from cloud.service_drive import Driver
from cloud.service_inbox import DEVICE_MAX, Inbox, Incoming
from cloud.service_metrics import Figures, serve
from cloud.service_settings import settings_of
from cloud.stream import ListShards, Pause, ReadRecords
from cloud.table import Get, Item, Publish, Throttled, Update

# The inbox.


async def unheard(message: Publish) -> None:
    raise AssertionError(message)


def message(device: str, text: str = "") -> Incoming:
    return Incoming(device, text.encode(), lambda: None, unheard)


def test_messages_of_one_device_wait_for_each_other_and_those_of_others_do_not() -> None:
    inbox = Inbox(10)
    first, second, other = message("a", "1"), message("a", "2"), message("b")
    assert all(inbox.put(each) for each in (first, second, other))
    assert inbox.take() is first and inbox.take() is other and inbox.take() is None
    inbox.finished(first)
    assert inbox.take() is second
    inbox.finished(second)
    inbox.finished(other)
    assert inbox.waiting == 0 and inbox.put(message("a"))


def test_a_device_has_few_places_and_the_inbox_says_when_it_is_full() -> None:
    inbox = Inbox(DEVICE_MAX + 3)
    taken = [inbox.put(message("a")) for _ in range(DEVICE_MAX + 5)]
    assert taken.count(True) == DEVICE_MAX + 1  # one may be worked on
    assert not inbox.full
    assert inbox.put(message("b")) and inbox.put(message("c"))
    assert inbox.full


def test_the_next_message_of_a_device_that_has_no_place_left_asks_it_to_wait() -> None:
    inbox = Inbox(DEVICE_MAX + 3)
    sent = [message("a", str(n)) for n in range(DEVICE_MAX + 1)]
    assert all(map(inbox.put, sent)) and not any(each.is_crowded for each in sent)
    assert not inbox.put(message("a")) and not inbox.put(message("a"))
    assert [each.is_crowded for each in sent] == [False, True] + [False] * (DEVICE_MAX - 1), "the one worked on goes on"
    first = inbox.take()
    assert first is sent[0]
    inbox.finished(first)
    assert inbox.take() is sent[1] and inbox.put(message("a")) and not inbox.put(message("a"))
    assert sent[2].is_crowded


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_every_message_that_was_put_is_taken_once_in_the_order_of_its_device(steps: list[tuple[str, bool]]) -> None:
    inbox = Inbox(1_000)
    put: list[Incoming] = []
    taken: list[Incoming] = []
    busy: list[Incoming] = []
    for number, (device, work) in enumerate(steps):
        each = message(device, str(number))
        if inbox.put(each):
            put.append(each)
        if work and (found := inbox.take()) is not None:
            assert found.device not in [one.device for one in busy]
            taken.append(found)
            busy.append(found)
        if len(busy) > 2:
            inbox.finished(busy.pop(0))
    while busy or inbox.waiting:
        if busy:
            inbox.finished(busy.pop(0))
        while (found := inbox.take()) is not None:
            taken.append(found)
            busy.append(found)
    assert inbox.waiting == 0
    for device in "abc":
        assert [one for one in taken if one.device == device] == [one for one in put if one.device == device]


# The log.


class Clock:
    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        return self.ms


def test_a_problem_is_told_once_then_with_a_count_and_when_it_is_over() -> None:
    clock, lines = Clock(), list[str]()
    log = Log(lines.append, wall_ms=lambda: 1_700_000_000_123, monotonic_ms=clock)
    for _ in range(100):
        log.problem("broker-unreachable", reason="refused")
    assert len(lines) == 1 and log.problems == ["broker-unreachable"]
    clock.ms += AGAIN_MS
    log.problem("broker-unreachable", reason="refused")
    log.over("broker-unreachable")
    log.over("broker-unreachable")
    told = [json.loads(line) for line in lines]
    assert told[0] == {
        "at": "2023-11-14T22:13:20.123Z",
        "level": "warning",
        "event": "broker-unreachable",
        "reason": "refused",
    }
    assert told[1]["again"] == 100
    assert (told[2]["event"], told[2]["times"]) == ("broker-unreachable-over", 101)
    assert len(told) == 3 and not log.problems
    log.problem("shard-unreadable", "s1")
    log.problem("shard-unreadable", "s2")
    log.over("shard-unreadable", "s1")
    assert log.problems == ["shard-unreadable s2"]
    assert [json.loads(line)["about"] for line in lines[3:]] == ["s1", "s2", "s1"]


def test_a_line_for_a_person_is_plain_and_one_line() -> None:
    lines: list[str] = []
    log = Log(lines.append, wall_ms=lambda: 0, monotonic_ms=lambda: 0, plain=True)
    log.event("started", relay="one", key=("a", "b"), reason="two\nlines", empty="")
    log.event("failed", "error")
    assert lines == [
        '1970-01-01T00:00:00.000Z started relay=one key=["a", "b"] reason="two\\nlines" empty=""',
        "1970-01-01T00:00:00.000Z ERROR failed",
    ]


# Settings.

GIVEN = {"table": "ioto", "schema": "schema.json5", "broker": "mqtt://localhost"}


def written(tmp_path: Path, text: str, name: str = "relay.json5") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_options_go_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    json5 = written(tmp_path, "{table: 'file', group: 'g', stream: {lease_ms: 9000}, relay: {retention_ms: 900000000}}")
    toml = written(
        tmp_path,
        'table = "file"\ngroup = "g"\n[stream]\nlease_ms = 9000\n[relay]\nretention_ms = 900000000\n',
        "r.toml",
    )
    for path in (json5, toml):
        settings = settings_of({**GIVEN, "table": "option"}, path)
        assert (settings.table, settings.group, settings.messages) == ("option", "g", 64)
        assert (settings.stream.lease_ms, settings.stream.renew_ms) == (9000, 4000)
        assert settings.relay.retention_ms == 900_000_000


@pytest.mark.parametrize(
    ("text", "name", "parts"),
    [
        ("{tabel: 'x'}", "r.json5", ["tabel: unknown setting (did you mean 'table'?)"]),
        ("{stream: {lease: 1}, relay: {retention: 1}}", "r.json5", ["stream.lease", "'lease_ms'", "relay.retention"]),
        ("{stream: {lease_ms: 'long'}}", "r.json5", ["stream: Expected 'int', got 'str' - at 'lease_ms'"]),
        ("{stream: {lease_ms: 10}}", "r.json5", ["renew_ms 4000 must be at most half of lease_ms 10"]),
        ("{stream: 7}", "r.json5", ["stream: expected a section, got 7"]),
        ("{messages: 0, stop_s: 'x'}", "r.json5", ["messages: 0: at least 1", "stop_s: expected a number, got 'x'"]),
        ("{mqtt: '4', log: 'loud'}", "r.json5", ["one of 5, 3.1.1", "one of auto, json, plain"]),
        (
            "{name: 'a/b', messages: true}",
            "r.json5",
            ["name: 'a/b' is no name", "messages: expected a number, got True"],
        ),
        ("{table: 7", "r.json5", ["r.json5:1:1"]),
        ("table = ", "r.toml", ["no TOML"]),
        ("[]", "r.json5", ["expected an object"]),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_key(text: str, name: str, parts: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, text, name)
    with pytest.raises(InputError) as error:
        settings_of(GIVEN if name.endswith("5") else {}, path)
    told = "\n".join(map(str, error.value.problems))
    for part in parts:
        assert part in told
    assert all(str(problem).startswith(path) for problem in error.value.problems)


def test_everything_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        settings_of({}, None)
    assert [problem.key for problem in error.value.problems] == ["table", "schema", "broker"]
    with pytest.raises(InputError, match="no such file"):
        settings_of({}, str(tmp_path / "missing.toml"))


# Figures.


def test_counters_become_metrics_and_health_tells_what_is_wrong() -> None:
    counters = Counter(message_refused_version=2, message_done=3, stream_record_done=4, stream_trimmed=1, conflict=5)
    counters.update({"call_GetItem": 6, "fault_lost": 7, "lease_taken": 8, "publish_taken": 9, "broker_lost": 1})
    problems = ["no connection to the broker"]
    figures = Figures(
        counters, Counter({"GetItem": 10}), lambda: {"fleet_relay_shards_held": ("shards", 2)}, lambda: problems
    )
    figures.message_seconds.observe(0.2)
    server, port = serve(figures, "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        for line in (
            'fleet_relay_messages_refused_total{reason="version"} 2.0',
            'fleet_relay_messages_total{event="done"} 3.0',
            'fleet_relay_records_total{result="done"} 4.0',
            'fleet_relay_stream_events_total{event="trimmed"} 1.0',
            'fleet_relay_events_total{event="conflict"} 5.0',
            'fleet_relay_table_calls_total{operation="GetItem"} 6.0',
            'fleet_relay_table_faults_total{verdict="lost"} 7.0',
            'fleet_relay_lease_events_total{event="taken"} 8.0',
            'fleet_relay_publishes_total{result="taken"} 9.0',
            'fleet_relay_table_units_total{operation="GetItem"} 10.0',
            "fleet_relay_shards_held 2.0",
            "fleet_relay_message_seconds_count 1.0",
        ):
            assert line in lines
        with pytest.raises(urllib.error.HTTPError) as failing:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
        assert failing.value.code == 503
        assert json.loads(failing.value.read()) == {"status": "failing", "problems": problems}
        failing.value.close()
        problems.clear()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/")
        assert missing.value.code == 404
        missing.value.close()
    finally:
        server.shutdown()
        server.server_close()


# Accounts.


def test_an_account_is_asked_for_once_in_a_while() -> None:
    clock = Clock()
    accounts = Accounts(clock)
    items: dict[Any, Item] = {device_key("a"): {"account": "main"}, device_key("odd"): {"account": 7}}
    asked: list[str] = []

    def find(device: str) -> str | None:
        work: Generator[Any, Any, None] = accounts.find(device)
        for request in work:
            assert isinstance(request, Get)
            asked.append(device)
            with pytest.raises(StopIteration):
                work.send(items.get(request.key))
        return accounts.of(device)

    assert find("a") == find("a") == "main"
    assert find("b") is None and find("b") is None and find("odd") is None
    assert find("no id/") is None
    assert asked == ["a", "b", "odd"]
    clock.ms += UNKNOWN_MS
    items[device_key("b")] = {"account": "other"}
    assert find("b") == "other"
    clock.ms += KNOWN_MS
    items[device_key("a")] = {"account": "moved"}
    assert find("a") == "moved"
    assert Accounts(clock, "every").of("whoever") == "every"


def test_a_registered_device_is_noted_by_its_hello_now_and_then() -> None:
    clock = Clock()
    accounts = Accounts(clock)
    hello = encode(Hello(epoch="e", hn="h", n=1, schema="1", feeds={}))
    assert list(accounts.note("a", hello, 5)) == []  # nobody knows it
    with pytest.raises(StopIteration):
        work = accounts.find("a")
        next(work)
        work.send({"account": "main"})
    assert list(accounts.note("a", b"rubbish", 5)) == []
    (noted,) = accounts.note("a", hello, 5)
    assert isinstance(noted, Update) and noted.key == device_key("a") and noted.set["seen"] == 5
    assert list(accounts.note("a", hello, 6)) == []
    clock.ms += HEARD_MS
    assert len(list(accounts.note("a", hello, 7))) == 1


# The driver.


def test_the_driver_sends_each_request_where_it_belongs_and_errors_into_the_work() -> None:
    published: list[Publish] = []

    async def publish(message: Publish) -> None:
        published.append(message)

    def table(request: Any) -> str:
        if request.key[0] == "busy":
            raise Throttled("busy")
        return f"table {request.key[0]}"

    def work() -> Generator[Any, Any, list[Any]]:
        answers: list[Any] = []
        answers.append((yield Get(("a", "b"))))
        answers.append((yield Publish("t", b"x", 1)))
        answers.append((yield ListShards()))
        answers.append((yield ReadRecords("i")))
        answers.append((yield Pause(1)))
        try:
            yield Get(("busy", "b"))
        except Throttled as error:
            answers.append(str(error))
        return answers

    driver = Driver(table, lambda request: type(request).__name__, publish, table_threads=1, stream_threads=1)
    assert trio.run(driver.run, work()) == ["table a", None, "ListShards", "ReadRecords", None, "busy"]
    assert published == [Publish("t", b"x", 1)]

    def raising() -> Generator[Any, Any, None]:
        yield Get(("busy", "b"))

    with pytest.raises(Throttled):
        trio.run(driver.run, raising())
