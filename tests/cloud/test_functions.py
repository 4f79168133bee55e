"""The functions in AWS: what is done, what comes again, what is set aside; and who is believed.

Called by pytest only.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from lambda_rig import AMPLE_MS, lambda_record, rule_message, sequence
from relay_rig import NOW_MS, Rig, config, fault, hello, op, setting, status, stored, up

from agent.protocol.messages import Ack, FeedState, Rows, decode_to_device, encode
from cloud.accounts import HEARD_MS, Accounts
from cloud.feed import Sequencer
from cloud.functions import Functions, NotSetAside
from cloud.functions_log import Log
from cloud.head import head_key
from cloud.registry import device_key, registration
from cloud.table import MARKER_KEY, Get, InvalidRequest, Put, Query, Record, TableError, Throttled, Unavailable


class Deployed(Rig):
    """The relay of the rig, as functions. `answers`: what a request gets instead of the table's answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []
        self.letters: list[tuple[str, Mapping[str, Any]]] = []
        self.takes_letters = True
        self.fault: Callable[[Any], TableError | None] = lambda request: None
        self.requests: list[Any] = []
        self.remaining: Callable[[], int] = lambda: AMPLE_MS
        self.reserve_ms = 1_000
        log = Log(lambda line: self.lines.append(json.loads(line)), lambda: self.now_ms, {"table": "ioto"})
        accounts = Accounts(lambda: self.now_ms)
        self.relay.account_of = accounts.of
        self.functions = Functions(
            self.relay, accounts, self.asked, self.published.append, self.set_aside, log, self.reserve_ms
        )
        self.execute(registration("home-1", "main", NOW_MS))
        self.records()

    def asked(self, request: Any) -> Any:
        self.requests.append(request)
        error = self.fault(request)
        if error is not None:
            raise error
        return self.execute(request)

    def set_aside(self, reason: str, record: Mapping[str, Any]) -> None:
        if not self.takes_letters:
            raise NotSetAside("the queue is full")
        self.letters.append((reason, record))

    def written(self, *items: Any) -> list[dict[str, Any]]:
        """Puts items in the cloud; their records as Lambda gets them."""
        for item in items:
            self.execute(Put(stored(item)))
        return list(map(lambda_record, self.records()))

    def stream(self, *records: dict[str, Any]) -> list[str]:
        """The sequence numbers that are to come again."""
        answer = self.functions.on_stream({"Records": list(records)}, lambda: self.remaining())
        assert set(answer) == {"batchItemFailures"}
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def up(self, event: Mapping[str, Any]) -> list[Any]:
        """What was published in answer to a message."""
        before = len(self.published)
        self.functions.on_message(event, lambda: self.remaining())
        return [decode_to_device(sent.payload) for sent in self.published[before:]]

    def counted(self) -> Counter[str]:
        """All that the log's metrics say."""
        total: Counter[str] = Counter()
        for line in self.lines:
            for metric in line.get("_aws", {}).get("CloudWatchMetrics", [{}])[0].get("Metrics", ()):
                total[metric["Name"]] += line[metric["Name"]]
        return total


@pytest.fixture
def deployed() -> Deployed:
    return Deployed()


# The stream


def test_a_change_is_logged_and_published_to_its_device(deployed: Deployed) -> None:
    (record,) = deployed.written(config(1))
    assert deployed.stream(record) == []
    (sent,) = deployed.published
    assert (sent.topic, sent.qos) == ("ioto/device/home-1/sync", 1)
    message = decode_to_device(sent.payload)
    assert isinstance(message, Rows) and message.rows[0].key == ("device#home-1", "config#")
    assert len(deployed.log()) == 1
    assert deployed.counted()["stream_records"] == 1


def test_the_relays_own_items_and_models_that_stay_up_are_dropped_without_a_request(deployed: Deployed) -> None:
    own = Record(0, 7, head_key("home-1"), None, {"pk": "x", "sk": "y"}, NOW_MS)
    up_only = Record(0, 8, ("device#home-1", "status#"), None, stored(status(1)), NOW_MS)
    records = [lambda_record(own), lambda_record(up_only)]
    deployed.requests.clear()
    assert deployed.stream(*records) == []
    assert (deployed.requests, deployed.published) == ([], [])
    assert deployed.counted()["stream_ignored"] == 2


@pytest.mark.parametrize("swept", [True, False])
def test_a_sweep_of_the_service_is_told_from_a_delete(deployed: Deployed, swept: bool) -> None:
    gone = Record(0, 9, ("device#home-1", "config#"), stored(config(1)), None, NOW_MS, swept)
    assert deployed.stream(lambda_record(gone)) == []
    (row,) = deployed.log()
    assert ("expired" in row) is swept


@pytest.mark.parametrize(
    "identity",
    [
        {"type": "Service", "principalId": "somebody"},
        {"type": "AssumedRole", "principalId": "dynamodb.amazonaws.com"},
        None,
    ],
)
def test_nobody_else_passes_for_the_sweeper(deployed: Deployed, identity: Any) -> None:
    raw = lambda_record(Record(0, 9, ("device#home-1", "config#"), stored(config(1)), None, NOW_MS))
    assert deployed.stream({**raw, "userIdentity": identity}) == []
    assert "expired" not in deployed.log()[0]


@pytest.mark.parametrize("error", [Throttled("busy"), Unavailable("no answer")])
def test_what_cannot_be_done_now_comes_again_from_there_and_nothing_behind_it_is_tried(
    deployed: Deployed, error: TableError
) -> None:
    records = deployed.written(config(1), setting(1), config(2))
    deployed.fault = lambda request: error if request == Get(("device#home-1", "setting#mode")) else None
    assert deployed.stream(*records) == [sequence(records[1])]
    assert len(deployed.log()) == 1
    deployed.fault = lambda request: None
    assert deployed.stream(*records[1:]) == []
    assert [row["key"][1] for row in deployed.log()] == ["config#", "setting#mode", "config#"]
    assert deployed.counted()["stream_failed"] == 1
    assert any(line.get("message") == "a record has to come again" for line in deployed.lines)


def test_what_can_never_be_done_is_set_aside_with_its_reason_and_blocks_nobody(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = deployed.written(config(1), setting(1), config(2))
    fill = Sequencer.fill

    def poisoned(self: Sequencer, row: Any, feed: Any, key: Any, by_ttl: bool) -> Any:
        if key[1] == "setting#mode":
            raise KeyError("poison")
        yield from fill(self, row, feed, key, by_ttl)

    monkeypatch.setattr(Sequencer, "fill", poisoned)
    assert deployed.stream(*records) == []
    ((reason, letter),) = deployed.letters
    assert reason == "KeyError: 'poison'" and letter == records[1]
    assert [row["key"][1] for row in deployed.log()] == ["config#", "config#"]
    assert deployed.counted()["stream_set_aside"] == 1
    deployed.takes_letters = False
    assert deployed.stream(*records) == [sequence(records[1])]


def test_a_request_that_the_table_can_never_take_is_poison(deployed: Deployed) -> None:
    records = deployed.written(config(1), setting(1))
    refused = Get(("device#home-1", "config#"))
    deployed.fault = lambda request: InvalidRequest("no") if request == refused else None
    assert deployed.stream(*records) == []
    assert [reason for reason, _ in deployed.letters] == ["InvalidRequest: no"]
    assert len(deployed.log()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"Keys": {"pk": {"S": "device#home-1"}}},
        {"Keys": {"pk": {"N": "1"}, "sk": {"S": "config#"}}},
        {"Keys": {"pk": {"S": "device#home-1"}, "sk": {"S": "config#"}}, "NewImage": {"a": {"Q": 1}}},
        {"Keys": "nothing"},
    ],
)
def test_a_record_that_nobody_can_read_is_set_aside(deployed: Deployed, change: dict[str, Any]) -> None:
    (good,) = deployed.written(config(1))
    bad = {"eventName": "INSERT", "dynamodb": {"SequenceNumber": "5", **change}}
    assert deployed.stream(bad, good) == []
    assert len(deployed.letters) == 1 and deployed.letters[0][0].startswith("RecordError")
    assert len(deployed.log()) == 1


def test_when_time_runs_out_the_rest_comes_again(deployed: Deployed) -> None:
    records = deployed.written(config(1), setting(1), config(2))
    left = iter([AMPLE_MS] * 5 + [500] * 100)  # one record's requests and the marker, then not enough
    deployed.remaining = lambda: next(left)
    assert deployed.stream(*records) == [sequence(records[1])]
    assert len(deployed.log()) == 1
    assert deployed.counted()["stream_out_of_time"] == 1


def test_a_record_in_the_middle_of_which_time_runs_out_comes_again_and_does_no_harm(deployed: Deployed) -> None:
    (record,) = deployed.written(config(1))
    left = iter([AMPLE_MS, AMPLE_MS, 500, 500])  # asked once for each request, and for the text of the error
    deployed.remaining = lambda: next(left)
    assert deployed.stream(record) == [sequence(record)]
    assert deployed.log() == []
    deployed.remaining = lambda: AMPLE_MS
    assert deployed.stream(record) == []
    assert len(deployed.log()) == 1


def test_a_record_twice_adds_a_row_that_changes_nothing(deployed: Deployed) -> None:
    (record,) = deployed.written(config(1))
    deployed.stream(record)
    deployed.stream(record)
    first, second = (row["image"] for row in deployed.log())
    assert first == second


# Messages


def test_a_message_is_answered_on_the_devices_topic(deployed: Deployed) -> None:
    (ack,) = deployed.up(rule_message("home-1", encode(hello())))
    assert isinstance(ack, Ack) and ack.up == 0
    (ack,) = deployed.up(rule_message("home-1", encode(up(op(1, "create", status(1))))))
    assert isinstance(ack, Ack) and ack.up == 1
    assert deployed.item(("device#home-1", "status#")) is not None
    assert {sent.topic for sent in deployed.published} == {"ioto/device/home-1/sync"}


def test_messagepack_passes_the_rule(deployed: Deployed) -> None:
    (ack,) = deployed.up(rule_message("home-1", encode(hello(), compact=True)))
    assert isinstance(ack, Ack)
    assert deployed.published[0].payload[:1] != b"{"


def test_a_payload_may_come_as_the_object_itself(deployed: Deployed) -> None:
    event = {**rule_message("home-1", b""), "payload": json.loads(encode(hello()))}
    (ack,) = deployed.up(event)
    assert isinstance(ack, Ack)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"client": "home-2"}, "identity"),
        ({"client": "N/A"}, "identity"),
        ({"client": None}, "identity"),
        ({"topic": "ioto/service/home-2/sync"}, "identity"),
        ({"topic": "ioto/device/home-1/sync"}, "identity"),
        ({"topic": "ioto/service/home-1/sync/more"}, "identity"),
        ({"topic": 7}, "identity"),
        ({"topic": "ioto/service/all/sync", "client": "all"}, "identity"),
        ({"topic": "ioto/service/home-2/sync", "client": "home-2"}, "device"),  # not registered
        ({"payload": "***"}, "malformed"),
        ({"payload": None}, "malformed"),
        ({"payload": "A" * 200_000}, "oversize"),
        ({"payload": base64.b64encode(b"x" * 131_073).decode()}, "oversize"),
        ({"payload": base64.b64encode(b'{"t":"up","device":"home-2"}').decode()}, "malformed"),
    ],
)
def test_who_sends_is_told_by_topic_and_connection_together(
    deployed: Deployed, changed: dict[str, Any], code: str
) -> None:
    before = list(deployed.table.scan(private=True))
    assert deployed.up({**rule_message("home-1", encode(hello())), **changed}) == []
    assert deployed.counted()[f"message_refused_{code}"] == 1
    assert list(deployed.table.scan(private=True)) == before


def test_a_name_in_the_payload_is_nothing(deployed: Deployed) -> None:
    payload = json.loads(encode(hello())) | {"device": "home-2", "deviceId": "home-2", "topic": "ioto/service/home-2"}
    deployed.up(rule_message("home-1", json.dumps(payload).encode()))
    assert {sent.topic for sent in deployed.published} == {"ioto/device/home-1/sync"}


def test_a_message_that_the_table_cannot_take_now_gets_no_answer_and_is_not_tried_again(deployed: Deployed) -> None:
    deployed.up(rule_message("home-1", encode(hello())))
    deployed.fault = lambda request: Throttled("busy")
    assert deployed.up(rule_message("home-1", encode(up(op(1, "create", status(1)))))) == []
    assert deployed.counted()["message_failed"] == 1
    deployed.fault = lambda request: None
    (ack,) = deployed.up(rule_message("home-1", encode(up(op(1, "create", status(1))))))
    assert ack.up == 1


def test_a_message_without_time_left_changes_nothing(deployed: Deployed) -> None:
    deployed.up(rule_message("home-1", encode(hello())))
    deployed.remaining = lambda: 500
    assert deployed.up(rule_message("home-1", encode(up(op(1, "create", status(1)))))) == []
    assert deployed.item(("device#home-1", "status#")) is None
    assert deployed.counted()["message_failed"] == 1


def test_a_mistake_of_the_program_is_raised_so_that_the_service_sets_the_event_aside(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployed.relay, "on_message", lambda device, payload: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        deployed.up(rule_message("home-1", encode(hello())))
    assert deployed.counted()["messages"] == 1


def test_the_account_is_remembered_for_a_while_and_then_asked_for_again(deployed: Deployed) -> None:
    def reads() -> int:
        return deployed.requests.count(Get(device_key("home-1")))

    for _ in range(3):
        deployed.up(rule_message("home-1", encode(hello())))
    assert reads() == 1
    deployed.now_ms += 61_000
    deployed.up(rule_message("home-1", encode(hello())))
    assert reads() == 2


def test_a_hello_is_noted_for_people_now_and_then(deployed: Deployed) -> None:
    cursor = FeedState(nonce="n", epoch="e", seq=4)
    deployed.up(rule_message("home-1", encode(hello(feeds={"device": cursor}))))
    item = deployed.item(device_key("home-1"))
    assert item is not None and (item["seen"], item["feeds"]) == (NOW_MS, {"device": ["e", 4]})
    deployed.now_ms += HEARD_MS - 1
    deployed.up(rule_message("home-1", encode(hello())))
    item = deployed.item(device_key("home-1"))
    assert item is not None and item["seen"] == NOW_MS
    deployed.now_ms += 1
    deployed.up(rule_message("home-1", encode(hello())))
    item = deployed.item(device_key("home-1"))
    assert item is not None and item["seen"] == deployed.now_ms


def test_what_a_device_says_of_itself_is_cut(deployed: Deployed) -> None:
    long = FeedState(nonce="n", epoch="e" * 10_000, seq=4)
    many = FeedState(nonce="n", epoch="e", seq=1 << 62)
    message = hello(feeds={"device": long, "account": many})
    deployed.up(rule_message("home-1", encode(message)))
    item = deployed.item(device_key("home-1"))
    assert item is not None and item["feeds"] == {}


# What is said


def test_every_line_is_json_and_metrics_have_the_embedded_form(deployed: Deployed) -> None:
    deployed.up(rule_message("home-1", b"{", client="home-1"))
    deployed.up({**rule_message("home-1", b"{"), "client": "other"})
    assert all(line["table"] == "ioto" for line in deployed.lines)
    (metrics,) = [line for line in deployed.lines if line.get("message_refused_malformed")]
    (about,) = metrics["_aws"]["CloudWatchMetrics"]
    assert about["Namespace"] == "Fleet" and about["Dimensions"] == [["table"]]
    assert {metric["Name"] for metric in about["Metrics"]} == {"message_refused_malformed", "messages"}
    assert metrics["_aws"]["Timestamp"] == NOW_MS
    warnings = [line for line in deployed.lines if line.get("level") == "warning"]
    assert [line["principal"] for line in warnings] == ["0123abcd"]


def test_counters_begin_anew_with_each_event(deployed: Deployed) -> None:
    for _ in range(3):
        deployed.up(rule_message("home-1", b"{"))
    assert deployed.counted()["messages"] == 3
    assert not +deployed.counters


def test_a_device_that_sends_many_messages_is_guarded_as_anywhere(deployed: Deployed) -> None:
    for _ in range(deployed.relay.config.hello_per_window + 2):
        deployed.up(rule_message("home-1", encode(hello())))
    assert deployed.counted()["message_refused_rate"] == 2


def test_requests_of_the_whole_path_are_what_the_log_says(deployed: Deployed) -> None:
    """The stream's function asks for the tail, HEAD and the item, and puts the row: no more."""
    first, record = deployed.written(config(1), config(2))
    deployed.requests.clear()
    deployed.stream(first)
    assert [type(request) for request in deployed.requests] == [Query, Get, Get, Get, Put]
    assert deployed.requests[1] == Get(MARKER_KEY), "once in a while"
    deployed.requests.clear()
    deployed.published.clear()
    deployed.stream(record)
    assert [type(request) for request in deployed.requests] == [Query, Get, Get, Put]
    assert len(deployed.published) == 1


def test_a_fault_of_one_device_leaves_others_answered(deployed: Deployed) -> None:
    deployed.execute(registration("home-2", "main", NOW_MS))
    deployed.up(rule_message("home-1", encode(up(op(1, "create", fault(1, "x"))), compact=False)))
    (ack,) = deployed.up(rule_message("home-2", encode(hello())))
    assert isinstance(ack, Ack)
