"""The relay as two functions: one for a DynamoDB stream, one for the messages that an IoT rule passes on.

The same logic as everywhere (cloud.relay), run to its end for one event; knows nothing of boto3 and reads no clock but
the one given. Made and called by cloud.functions_aws.

Records: in their order; what cannot be done now (throttled, no answer, no time left) is reported as the first failed
record of the batch, and the service sends it and all behind it again. What can never be done is set aside with its
reason, and holds up nobody. Messages: whatever goes wrong, the device sends again; so there is no answer and no retry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from agent.protocol.errors import MessageError
from cloud.accounts import Accounts
from cloud.drive import run
from cloud.functions_events import RecordError, message_of, record_of, sequence_of
from cloud.functions_log import Log
from cloud.relay import Relay
from cloud.table import InvalidRequest, Publish, TableError, TableRequest, Work

Remaining = Callable[[], int]


class OutOfTime(Exception):
    """The function would be ended before the next request has its answer."""


class NotSetAside(Exception):
    """Nobody took what cannot be done: it has to stay where it is."""


class Functions:
    """`accounts`: what the relay's `account_of` goes by. `execute`: the table. `publish` never raises: a message that
    the broker does not take is lost, and the device asks for it again. `set_aside(reason, record)`: raises NotSetAside.
    `reserve_ms`: what one request may take."""

    def __init__(
        self,
        relay: Relay,
        accounts: Accounts,
        execute: Callable[[TableRequest], Any],
        publish: Callable[[Publish], None],
        set_aside: Callable[[str, Mapping[str, Any]], None],
        log: Log,
        reserve_ms: int,
    ) -> None:
        self._relay = relay
        self._accounts = accounts
        self._execute = execute
        self._publish = publish
        self._set_aside = set_aside
        self._log = log
        self._reserve_ms = reserve_ms

    @property
    def _counters(self) -> Counter[str]:
        return self._relay.counters

    # The stream

    def on_stream(self, event: Mapping[str, Any], remaining_ms: Remaining) -> dict[str, Any]:
        """Answers with `batchItemFailures`: none, or the first record that is to come again."""
        records = event.get("Records", ())
        failed = ""
        for raw in records:
            if not self._take(raw, remaining_ms):
                failed = sequence_of(raw)
                break
        self._counters["stream_records"] += len(records)
        self._log.count(self._counters, function="stream")
        return {"batchItemFailures": [{"itemIdentifier": failed}] if failed else []}

    def _take(self, raw: Mapping[str, Any], remaining_ms: Remaining) -> bool:
        """Whether the record is done with."""
        try:
            record = record_of(raw)
            if record is None or not self._relay.wants(record.key):
                self._counters["stream_ignored"] += 1
                return True
            self._run(self._relay.on_record(record), remaining_ms)
        except InvalidRequest as error:
            return self._is_set_aside(raw, error)
        except (TableError, OutOfTime) as error:
            self._counters["stream_out_of_time" if isinstance(error, OutOfTime) else "stream_failed"] += 1
            self._log.say("warning", "a record has to come again", reason=_reason(error), record=sequence_of(raw))
            return False
        except Exception as error:  # whatever it is, it would be the same the next time
            return self._is_set_aside(raw, error)
        return True

    def _is_set_aside(self, raw: Mapping[str, Any], error: Exception) -> bool:
        key = raw.get("dynamodb", {}).get("Keys") if not isinstance(error, RecordError) else None
        self._log.say("error", "a record was set aside", reason=_reason(error), key=key, record=sequence_of(raw))
        try:
            self._set_aside(_reason(error), raw)
        except NotSetAside as refused:
            self._log.say("error", "a record could not be set aside", reason=str(refused), record=sequence_of(raw))
            return False
        self._counters["stream_set_aside"] += 1
        return True

    # Messages

    def on_message(self, event: Mapping[str, Any], remaining_ms: Remaining) -> None:
        """One message of one device. Raises only what is a mistake of the program: the service sets the event aside."""
        try:
            device, payload = message_of(event, self._relay.config.topic_prefix)
            self._run(self._accounts.find(device), remaining_ms)
            self._run(self._relay.on_message(device, payload), remaining_ms)
            self._run(self._accounts.note(device, payload, self._relay.clock_ms()), remaining_ms)
        except MessageError as error:
            self._counters[f"message_refused_{error.code}"] += 1
            self._log.say("warning", "a message was refused", reason=str(error), principal=event.get("principal"))
        except (TableError, OutOfTime) as error:
            self._counters["message_failed"] += 1
            self._log.say("warning", "a message got no answer", reason=_reason(error), topic=event.get("topic"))
        finally:
            self._counters["messages"] += 1
            self._log.count(self._counters, function="message")

    # Both

    def _run(self, work: Work, remaining_ms: Remaining) -> None:
        def execute(request: TableRequest) -> Any:
            if remaining_ms() < self._reserve_ms:
                raise OutOfTime(f"{remaining_ms()} ms left, {self._reserve_ms} ms kept for a request")
            return self._execute(request)

        run(work, execute, self._publish)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
