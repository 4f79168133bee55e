"""The functions as AWS Lambda calls them: `stream_handler` and `message_handler`, set up once from the environment.

    FLEET_TABLE          the table's name (needed)
    FLEET_SCHEMA         the schema's file (schema.json5, beside the code)
    FLEET_TOPIC_PREFIX   of all topics (ioto)
    FLEET_TTL_ATTRIBUTE  of the table (ttl)
    FLEET_DEAD_LETTERS   URL of the queue for records that cannot be done; without one they are tried until they expire
    FLEET_IOT_ENDPOINT   where to publish, where it is not the account's own
    FLEET_ENDPOINT_URL   where the table is, where it is not AWS's

What is wrong with them ends the function's start with an error that says so. Deployed by cloud.template.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Final

from agent.protocol.schema import Schema
from agent.protocol.topics import PREFIX
from cloud import system
from cloud.accounts import Accounts
from cloud.config import RelayConfig
from cloud.dynamodb import DynamoTable
from cloud.dynamodb_errors import RAISED, Unusable
from cloud.dynamodb_table import Timeouts, connect
from cloud.functions import Functions, NotSetAside
from cloud.functions_log import Log
from cloud.relay import Relay
from cloud.retry import Retry
from cloud.table import Publish

RESERVE_MS: Final = 12_000  # kept for one request: its attempts, their pauses, and what follows
_TIMEOUTS: Final = Timeouts(connect_s=1.0, read_s=2.0)
_RETRY: Final = Retry(attempts_max=4, base_ms=50, cap_ms=500)
_PUBLISH_ATTEMPTS: Final = 3
_LETTER_CHARS_MAX: Final = 200_000  # a queue takes 256 KB


def stream_handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """For an event-source mapping with ReportBatchItemFailures."""
    return functions().on_stream(event, context.get_remaining_time_in_millis)


def message_handler(event: Mapping[str, Any], context: Any) -> None:
    """For an IoT rule whose SQL is cloud.template's."""
    functions().on_message(event, context.get_remaining_time_in_millis)


@cache
def functions() -> Functions:
    """Once a process: the clients, the schema."""
    return build(os.environ)


def build(environment: Mapping[str, str]) -> Functions:
    """Raises Unusable, InputError, ValueError or OSError for what the environment has wrong. Sends nothing."""
    name = environment.get("FLEET_TABLE", "")
    if not name:
        raise Unusable("FLEET_TABLE is not set", "Set it to the table's name in the function's environment")
    schema = Schema.load(environment.get("FLEET_SCHEMA") or "schema.json5")
    config = RelayConfig(
        topic_prefix=environment.get("FLEET_TOPIC_PREFIX") or PREFIX,
        ttl_attribute=environment.get("FLEET_TTL_ATTRIBUTE") or "ttl",
    )
    table = DynamoTable(
        connect(endpoint_url=environment.get("FLEET_ENDPOINT_URL") or None, timeouts=_TIMEOUTS),
        name,
        wait=system.pause,
        chance=system.chance,
        token=system.token,
        retry=_RETRY,
    )
    counters: Counter[str] = Counter()
    log = Log(print, system.wall_ms, {"table": name})
    accounts = Accounts(system.monotonic_ms)
    relay = Relay(schema, config, system.wall_ms, system.random_hex, counters, accounts.of)
    relay.digests.tell = partial(log.say, "error")
    broker = connect(service="iot-data", endpoint_url=environment.get("FLEET_IOT_ENDPOINT") or None, timeouts=_TIMEOUTS)
    queue_url = environment.get("FLEET_DEAD_LETTERS", "")
    letters = DeadLetters(connect(service="sqs", timeouts=_TIMEOUTS) if queue_url else None, queue_url)
    return Functions(relay, accounts, table.execute, Broker(broker, counters, log), letters, log, RESERVE_MS)


class Broker:
    """Publishes through AWS IoT's data plane; what it does not take after some attempts is dropped and counted."""

    def __init__(self, client: Any, counters: Counter[str], log: Log) -> None:
        self._client = client
        self._counters = counters
        self._log = log

    def __call__(self, message: Publish) -> None:
        for attempt in range(_PUBLISH_ATTEMPTS):
            if attempt:
                system.pause(_RETRY.pause_s(attempt, system.chance()))
            try:
                self._client.publish(topic=message.topic, qos=message.qos, payload=message.payload)
            except RAISED as error:
                failure = error
            else:
                self._counters["published"] += 1
                return
        self._counters["publish_dropped"] += 1
        self._log.say("warning", "a message was dropped", topic=message.topic, reason=str(failure))


class DeadLetters:
    """Puts records that cannot be done into a queue, each with its reason."""

    def __init__(self, client: Any | None, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def __call__(self, reason: str, record: Mapping[str, Any]) -> None:
        if self._client is None:
            raise NotSetAside("FLEET_DEAD_LETTERS is not set")
        letter = json.dumps({"reason": reason, "record": record}, default=str)
        if len(letter) > _LETTER_CHARS_MAX:
            change = record.get("dynamodb", {})
            named = {name: change.get(name) for name in ("Keys", "SequenceNumber", "SizeBytes")}
            letter = json.dumps({"reason": reason[:1000], "record": {"dynamodb": named}}, default=str)
        try:
            self._client.send_message(QueueUrl=self._queue_url, MessageBody=letter)
        except RAISED as error:
            raise NotSetAside(str(error)) from None
