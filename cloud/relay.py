"""The relay: from what a device sends, and from what changes in the table, to the work that answers it.

Pure logic: a Work is a generator of table requests and messages that a driver runs (`cloud.drive`, a service, the
simulator). Nothing here waits, keeps state that a restart would miss, or takes a device's name from a payload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ClassVar, Final

from agent.protocol.digest import is_sum
from agent.protocol.errors import MessageError
from agent.protocol.messages import (
    APART_MAX,
    OPS_MAX,
    OVERLOAD,
    RATE,
    Digest,
    FromDevice,
    Hello,
    Up,
    Wait,
    decode_from_device,
    is_compact,
)
from agent.protocol.schema import Schema
from agent.protocol.topics import valid_id
from cloud.answer import Answer
from cloud.catchup import CatchUp
from cloud.config import RelayConfig
from cloud.digests import Digests
from cloud.feed import Sequencer
from cloud.flow import Flow, Verdict
from cloud.incarnation import Incarnation
from cloud.ingest import Ingest
from cloud.orphans import Orphans
from cloud.table import Key, Publish, Record, Work

_TOKEN_CHARS_MAX: Final = 128  # of an epoch, id or nonce
_U_MAX: Final = 1 << 53


class Relay:
    """`account_of` names a device's account, None for a device that is not known. `random_hex(n)`: n random digits.

    `counters` counts, by name, what a check of the checks wants to have seen and what an operator should look at.
    The parts are class attributes, so that a test may put another in a part's place.
    Raises ValueError when the schema keeps its time to live elsewhere than the configuration says."""

    sequencer_type: ClassVar[type[Sequencer]] = Sequencer
    orphans_type: ClassVar[type[Orphans]] = Orphans
    ingest_type: ClassVar[type[Ingest]] = Ingest
    catchup_type: ClassVar[type[CatchUp]] = CatchUp
    digests_type: ClassVar[type[Digests]] = Digests
    incarnation_type: ClassVar[type[Incarnation]] = Incarnation

    def __init__(
        self,
        schema: Schema,
        config: RelayConfig,
        clock_ms: Callable[[], int],
        random_hex: Callable[[int], str],
        counters: Counter[str],
        account_of: Callable[[str], str | None],
    ) -> None:
        for model in schema.models.values():
            if model.in_cloud and model.ttl_attribute not in (None, config.ttl_attribute):
                raise ValueError(
                    f"{model.name} has its ttl in {model.ttl_attribute!r}, the table in {config.ttl_attribute!r}: "
                    "a table has one attribute for it"
                )
        self.schema = schema
        self.config = config
        self.clock_ms = clock_ms
        self.counters = counters
        self.account_of = account_of
        self.incarnation = self.incarnation_type(config, clock_ms, counters)
        self.sequencer = self.sequencer_type(schema, config, clock_ms, random_hex, counters, self.incarnation)
        self.orphans = self.orphans_type(schema, config, counters)
        self.ingest = self.ingest_type(schema, config, clock_ms, counters, self.orphans, self.incarnation)
        self.catchup = self.catchup_type(schema, config, clock_ms, counters, self.sequencer, self.incarnation)
        self.digests = self.digests_type(schema, config, clock_ms, counters, self.sequencer)
        self.flow = Flow(config, clock_ms)

    def on_message(self, device_id: str, payload: bytes, *, has_room: bool = True) -> Work:
        """The answer to a message. `device_id` comes from the connection. What must be refused is counted."""
        account = self.account_of(device_id)
        if account is None or not valid_id(device_id):
            return self.refuse("device")
        try:
            message = decode_from_device(payload)
            check_form(message)
        except MessageError as error:
            return self.refuse(error.code)
        answer = Answer(device_id, self.config.topic_prefix, is_compact(payload))
        if not has_room:
            self.counters["message_refused_overload"] += 1
            return _say(answer(Wait(hn=message.hn, retry_after=self.config.overload_retry_ms, reason=OVERLOAD)))
        if isinstance(message, Digest):
            if self.flow.digest(device_id):
                return self.digests.compare(device_id, account, message, answer)
            return self.refuse("digest_rate")
        if isinstance(message, Up):
            verdict = self.flow.count(self.flow.ups, device_id, self.config.up_per_window)
        else:
            verdict = self.flow.count(self.flow.hellos, device_id, self.config.hello_per_window)
        if verdict is not Verdict.TAKE:
            self.counters["message_refused_rate"] += 1
            wait = Wait(hn=message.hn, retry_after=self.flow.left_ms(), reason=RATE)
            return _say(answer(wait)) if verdict is Verdict.TELL else _nothing()
        if isinstance(message, Up):
            return self.ingest.up(device_id, account, message, answer)
        return self.catchup.hello(device_id, account, message, answer)

    def on_overload(self, device_id: str, payload: bytes) -> Work:
        """For a message that its driver has no room for: the device is asked to wait. Asks nothing of the table."""
        return self.on_message(device_id, payload, has_room=False)

    def on_record(self, record: Record) -> Work:
        """The row that a change of an item calls for. May run for any record, any number of times."""
        return self.sequencer.on_record(record)

    def wants(self, key: Key) -> bool:
        """Whether `on_record` has anything to do for this item."""
        return self.sequencer.wants(key)

    def lane(self, key: Key) -> str:
        """Names the feed that a change of this item goes into. Whoever works on several records at once takes one of a
        lane at a time: two would only take each other's place at the feed's end, and begin again."""
        return self.sequencer.feed_pk(key) or key[0]

    def refuse(self, code: str) -> Work:
        self.counters[f"message_refused_{code}"] += 1
        return _nothing()


def _say(message: Publish) -> Work:
    yield message


def _nothing() -> Work:
    return
    yield


def check_form(message: FromDevice) -> None:
    """What types alone do not say. Raises MessageError."""
    if not 0 < len(message.epoch) <= _TOKEN_CHARS_MAX or len(message.hn) > _TOKEN_CHARS_MAX:
        raise MessageError("malformed", "epoch or hn")
    if isinstance(message, Hello):
        if len(message.inc or "") > _TOKEN_CHARS_MAX:
            raise MessageError("malformed", "inc")
        if any(len(state.nonce) > _TOKEN_CHARS_MAX for state in message.feeds.values()):
            raise MessageError("malformed", "nonce")
        return
    if isinstance(message, Digest):
        _check_digest(message)
        return
    ops, first_u = message.ops, message.first_u
    if not 0 < len(ops) <= OPS_MAX or not 0 < first_u < _U_MAX:
        raise MessageError("malformed", f"{len(ops)} operations from {first_u}")
    for u, op in enumerate(ops, first_u):
        if op.u != u or not 0 < len(op.id) <= _TOKEN_CHARS_MAX:
            raise MessageError("malformed", f"operation {op.u}")


def _check_digest(message: Digest) -> None:
    if len(message.inc or "") > _TOKEN_CHARS_MAX or len(message.apart) > APART_MAX:
        raise MessageError("malformed", "inc or apart")
    if not 0 <= message.up < _U_MAX or not 0 <= message.cut_s < _U_MAX:
        raise MessageError("malformed", "up or cut_s")
    for name, claim in message.models.items():
        if not is_sum(claim.sum) or not (is_sum(claim.delta) or not claim.delta) or not 0 <= claim.age_ms < _U_MAX:
            raise MessageError("malformed", f"digest of {name!r:.60}")
