"""Works on the records of a shard: in order for each feed, tried again where they fail, set aside where that is no use.

Generators: each yields requests of the table, messages and pauses to a driver. A record that the relay cannot work on
(poison) becomes a dead letter after some tries, so that its shard goes on. One that the table refuses or does not
answer is tried for much longer, since that is no fault of the record. Where only a person can help (access,
credentials) the record waits. Every work may be repeated, after a crash above all: nothing here remembers what was
done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any

from cloud.relay import Relay
from cloud.stream import Change, Pause, Step
from cloud.stream_config import StreamConfig
from cloud.stream_letters import letter
from cloud.table import (
    Cancelled,
    ConditionFailed,
    InvalidRequest,
    Put,
    Record,
    TableError,
    Throttled,
    Unavailable,
)

Tell = Callable[..., None]  # (event, **fields): something that an operator should read


class RecordWork:
    """`counters`: stream_record_done, _unwanted, _private, _by_ttl, _retried, _set_aside, stream_letter_failed.

    `now_ms` is the time of day, `monotonic_ms` runs evenly; `chance` gives a number from 0 to 1."""

    def __init__(
        self,
        relay: Relay,
        config: StreamConfig,
        *,
        name: str,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        chance: Callable[[], float],
        counters: Counter[str],
        tell: Tell,
    ) -> None:
        self.relay = relay
        self.config = config
        self.name = name
        self.now_ms = now_ms
        self.monotonic_ms = monotonic_ms
        self.chance = chance
        self.counters = counters
        self.tell = tell

    def lanes(self, changes: Sequence[Change]) -> list[list[Change]]:
        """What is to be done of a batch: per feed, in order. What no feed wants is counted and left out."""
        lanes: dict[str, list[Change]] = {}
        counters = self.counters
        for change in changes:
            if change.problem:
                lanes.setdefault(change.key[0], []).append(change)
            elif change.record is None:
                counters["stream_record_private"] += 1
            elif not self.relay.wants(change.key):
                counters["stream_record_unwanted"] += 1
            else:
                lanes.setdefault(self.relay.lane(change.key), []).append(change)
        return list(lanes.values())

    def lane(self, changes: Sequence[Change]) -> Generator[Step, Any, None]:
        """The records of one feed, one after the other."""
        for change in changes:
            if change.record is None:
                yield from self.set_aside(change, change.problem, 0)
            else:
                yield from self.one(change, change.record)

    def one(self, change: Change, record: Record) -> Generator[Step, Any, None]:
        begun_ms = self.monotonic_ms()
        tries = 0
        while True:
            tries += 1
            try:
                yield from self.relay.on_record(record)
            except (Throttled, Unavailable) as error:
                patient = self.monotonic_ms() - begun_ms < self.config.record_retry_ms
                reason = _text(error)
            except (InvalidRequest, ConditionFailed, Cancelled) as error:
                patient, reason = tries < self.config.record_tries, _text(error)
            except TableError as error:
                patient, reason = True, _text(error)
            except Exception as error:
                # A fault of our own that this one record shows: the others must not wait for its repair.
                patient, reason = tries < self.config.record_tries, _text(error)
            else:
                self.counters["stream_record_done"] += 1
                self.counters["stream_record_by_ttl"] += record.by_ttl
                return
            if not patient:
                yield from self.set_aside(change, reason, tries)
                return
            self.counters["stream_record_retried"] += 1
            self.tell("record-retried", key=change.key, tries=tries, reason=reason)
            yield Pause(self.config.pause_ms(tries, self.chance()))

    def set_aside(self, change: Change, reason: str, tries: int) -> Generator[Step, Any, None]:
        """Into the dead letters, however long the table takes for that; a letter that no table takes is only told."""
        item = letter(
            change,
            reason,
            tries,
            relay=self.name,
            now_ms=self.now_ms(),
            ttl_attribute=self.relay.config.ttl_attribute,
            life_ms=self.config.letter_life_ms,
        )
        attempt = 0
        while True:
            attempt += 1
            try:
                yield Put(item)
            except InvalidRequest as error:
                self.counters["stream_letter_failed"] += 1
                self.tell("letter-failed", key=change.key, reason=_text(error))
                break
            except TableError as error:
                self.tell("letter-waits", key=change.key, reason=_text(error))
                yield Pause(self.config.pause_ms(attempt, self.chance()))
                continue
            break
        self.counters["stream_record_set_aside"] += 1
        self.tell("record-set-aside", key=change.key, seq=change.seq, tries=tries, reason=reason)


def _text(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
