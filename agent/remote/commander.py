"""The commander: runs what the cloud orders, at most once, as a state machine without I/O.

`receive(event, now_ms)` returns effects. A command is an item of the model Command; its answer is an item of
CommandResult with the same id. Before anything is done, that is written as `started`, durably, and the relay has it.
What has a result is never done again. Nothing is done before the relay has told the time and the device's epoch is
adopted. Starts no thread and calls no handler: the driver (the daemon, the simulated device) does what the effects say.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from agent.changes import Change
from agent.database import Database
from agent.due import CLOCK_BACK_MS
from agent.file_errors import StoreError
from agent.protocol.errors import ModelError
from agent.protocol.onetable.dates import from_ms, to_ms
from agent.protocol.remote import COMMAND, RESULT, Code, State
from agent.remote.events import (
    CommandConfig,
    Effect,
    Event,
    Failed,
    Finished,
    Reboot,
    Reconnect,
    Run,
    WakeAt,
)
from agent.remote.handlers import Handlers, NoArguments

NEVER: Final = 1 << 62
_NOTE: Final = "commands"  # of the file: the epoch in which the commands of the time before were settled
_DATE_MS_MAX: Final = 253_000_000_000_000  # in the year 9987: what a date can hold, with room
_PAST: Final = "from before this device's database began or was put back: it may have been done"
Properties = Mapping[str, Any]
Deed = Callable[[], None]


class _Refused(Exception):
    """A command that is answered without being done."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Commander:
    """One device's. `boot_id` names the machine's boot, as /proc/sys/kernel/random/boot_id does: a restart of the
    agent alone keeps it. `extra`: further fields of each result, which the application's schema has.

    May be called from any thread: it holds the database's lock while it works. What an error of the disk interrupts is
    tried again at the next call; nothing was done of it. What was decided before it is to be done all the same."""

    __slots__ = (
        "_begun", "_boot_id", "_busy", "_confirmed", "_effects", "_ended", "_epoch", "_extra", "_hold_ms", "_now_ms",
        "_prefix", "_queue", "_rebooted_ms", "_rebooting", "_result_prefix", "_running", "_waiting", "config",
        "database", "handlers", "probes", "store", "wake_at_ms",
    )  # fmt: skip

    def __init__(
        self,
        database: Database,
        handlers: Handlers,
        config: CommandConfig,
        *,
        boot_id: str,
        probes: Counter[str],
        extra: Callable[[], Properties] | None = None,
    ) -> None:
        """The schema must fit: see agent.protocol.remote."""
        self.database = database
        self.store = database.store
        self.handlers = handlers
        self.config = config
        self.probes = probes
        self.wake_at_ms = NEVER
        self._boot_id = boot_id
        self._extra: Callable[[], Properties] = dict if extra is None else extra
        self._epoch = ""  # in which stock was taken
        self._ended: list[Finished | Failed] = []  # not yet written
        self._hold_ms = -NEVER  # nothing is started before
        self._waiting: dict[str, None] = {}  # ids of commands that came and were not looked at, in order
        self._running: dict[str, Properties] = {}  # id -> its result as it was started
        self._begun: dict[str, Deed] = {}  # of those: what is to be done once the relay has the record
        self._confirmed: list[str] = []  # the relay has it
        self._busy = False  # receiving: events of its own writes wait in the queue
        self._queue: list[Event] = []
        self._rebooting = False
        self._rebooted_ms = -NEVER  # when the last command to reboot was started
        self._effects: list[Effect] = []
        self._now_ms = 0
        self._prefix = len(database.model(COMMAND).search({}, database.context)[1])
        self._result_prefix = len(database.model(RESULT).search({}, database.context)[1])
        database.on(COMMAND, "*", self._changed)
        for verdict in ("synced", "rejected", "lost"):
            database.on(RESULT, verdict, self._recorded)

    def _changed(self, change: Change) -> None:
        command_id = change.key[1][self._prefix :]
        if change.event in ("created", "updated"):
            self._waiting[command_id] = None
        else:
            self._waiting.pop(command_id, None)

    def _recorded(self, change: Change) -> None:
        """HEAD has moved past the record, whatever the relay has made of it."""
        command_id = change.key[1][self._result_prefix :]
        if command_id in self._begun:
            self._confirmed.append(command_id)

    @property
    def is_ready(self) -> bool:
        """Whether commands may be looked at: the relay has told the time since the boot, the epoch is adopted, and what
        is in the file of the cloud's orders belongs to that epoch."""
        store = self.store
        return self.database.clock.corrected and store.identity.adopted and "device" in store.cursors

    @property
    def is_busy(self) -> bool:
        """Whether something is to be done still; before commands may be looked at, nobody knows."""
        return bool(not self.is_ready or self._waiting or self._running or self._ended)

    def receive(self, event: Event, now_ms: int) -> list[Effect]:
        """One event in, what is to be done out. `now_ms`: monotonic. To be called after each event that the session has
        handled, with LOOK, and whenever a handler has ended.

        An event that comes out of this call (its writes are told to the session) waits for its end; its effects are
        among this call's. An error of the disk comes out of a call without effects only, mostly the next."""
        with self.database.lock:
            if self._busy:
                self._queue.append(event)
                return []
            effects: list[Effect] = []
            self._effects = effects
            self._now_ms = now_ms
            self._busy = True
            try:
                self._step(event)
                while self._queue:
                    self._step(self._queue.pop(0))
            except (sqlite3.Error, StoreError):
                if not effects:
                    raise
                self.wake_at_ms = now_ms + 1
                effects.append(WakeAt(self.wake_at_ms))
            finally:
                self._busy = False
            return effects

    def _step(self, event: Event) -> None:
        if isinstance(event, Finished | Failed):
            self._ended.append(event)
        self._end_all()
        if self.is_ready:
            if self._epoch != self.store.identity.epoch:
                self.take_stock()
            if self._confirmed:
                self._go()
                self._end_all()
            if self._waiting:
                self._look()

    # ---------------------------------------------------------------- after a boot, and in a new epoch

    def take_stock(self) -> None:
        """What was cut off is told, once; what came before this device can know of it is refused (see docs/commands.md,
        "What a device does not know")."""
        db, store = self.database, self.store
        epoch = store.identity.epoch
        is_past = store.note(_NOTE) != epoch.encode()
        results = {result["id"]: result for result in db.find(RESULT)}
        waiting = {one["id"]: one for one in db.find(COMMAND) if "id" in one and one["id"] not in results}
        with db.transaction():
            for command_id, result in results.items():
                if result.get("state") == "started" and command_id not in self._running:
                    self.cut_off(result)
            if is_past:
                for command_id, command in waiting.items():
                    self.settle_past(command_id, command)
                for command_id in list(self._begun):  # what had this epoch before it may have done it
                    self._close(command_id, {"state": "refused", "code": "unknown_past", "message": _PAST})
                store.set_note(_NOTE, epoch.encode())
        for command_id, result in results.items():
            if result.get("name") == "reboot" and result.get("state") not in ("expired", "refused"):
                self._rebooted_ms = max(self._rebooted_ms, self._rebooted_by(command_id, result))
        self._waiting = {} if is_past else dict.fromkeys(waiting)
        self._hold_ms = self._now_ms + self.config.settle_ms
        self._epoch = epoch

    def _rebooted_by(self, command_id: str, result: Properties) -> int:
        """By when the restart of that result had begun: its record may have waited long for the relay's word."""
        started_ms = _ms(result.get("started"), -NEVER)
        if result.get("state") == "started" and command_id not in self._running:
            return max(started_ms, self.database.clock.now_ms())  # cut off, and told just now
        return max(started_ms, _ms(result.get("finished"), -NEVER))

    def cut_off(self, result: Properties) -> None:
        """Of a result that an earlier boot has left as `started`."""
        data = result.get("data")
        before = data.get("boot") if isinstance(data, dict) else None
        if result.get("name") == "reboot" and before != self._boot_id:
            self._write({"id": result["id"], "state": "done", "finished": self._now()})
            return
        self.probes["command_interrupted"] += 1
        message = "the agent or the device stopped before it was done"
        self._write({"id": result["id"], "state": "interrupted", "finished": self._now(), "message": message})

    def settle_past(self, command_id: str, command: Properties) -> None:
        """Of a command that was there when this epoch began: it may have been done by what this database was before."""
        if not self.is_forgotten(command):
            self.probes["command_unknown_past"] += 1
            self.answer(command_id, command, "refused", "unknown_past", _PAST)

    # ---------------------------------------------------------------- commands that wait

    def _look(self) -> None:
        if self._now_ms < self._hold_ms:
            self._wake_at(self._hold_ms)
            return
        wake_ms = NEVER
        for command_id in list(self._waiting):
            if self._decide(command_id):
                self._waiting.pop(command_id, None)
            else:
                wake_ms = min(wake_ms, self._left_ms(command_id))
        if wake_ms < NEVER:
            self._wake_at(self._now_ms + max(1, wake_ms))

    def _wake_at(self, at_ms: int) -> None:
        """One call is enough, and one that comes too early does no harm."""
        if at_ms < self.wake_at_ms or self.wake_at_ms <= self._now_ms:
            self.wake_at_ms = at_ms
            self._effects.append(WakeAt(at_ms))

    def _left_ms(self, command_id: str) -> int:
        command = self.database.get(COMMAND, {"id": command_id}) or {}
        return _ms(command.get("expires"), 0) - self.database.clock.now_ms()

    def _decide(self, command_id: str) -> bool:
        """Whether nothing has to be done about a command any more. False: it waits its turn."""
        db = self.database
        command = db.get(COMMAND, {"id": command_id})
        if command is None:
            self.probes["command_withdrawn"] += 1
            return True
        if db.get(RESULT, {"id": command_id}) is not None:
            self.probes["command_repeated"] += 1
            return True
        if self.is_forgotten(command):
            self.probes["command_forgotten"] += 1
            return True
        if self.is_expired(command):
            self.answer(command_id, command, "expired")
            return True
        try:
            return self._start(command_id, command)
        except _Refused as refused:
            self.answer(command_id, command, "refused", refused.code, str(refused))
            return True

    def is_forgotten(self, command: Properties) -> bool:
        """Whether a result of this command, if there was one, may have been dropped: nothing is to be said of it."""
        expires_ms = _ms(command.get("expires"), NEVER)
        return self.database.clock.now_ms() >= expires_ms + self.config.keep_ms

    def is_expired(self, command: Properties) -> bool:
        return self.database.clock.now_ms() >= _ms(command.get("expires"), NEVER)

    def _start(self, command_id: str, command: Properties) -> bool:
        """Records that it begins; it is done when the relay has the record. False: others run, and it has to wait.
        Raises _Refused."""
        name, config = command.get("name"), self.config
        left_ms = _ms(command.get("expires"), NEVER) - self.database.clock.now_ms()
        if left_ms > config.life_max_ms:
            raise _Refused("invalid", f"expires must be a date within {config.life_max_ms // 1000} s from now")
        if not isinstance(name, str) or not name:
            raise _Refused("invalid", "it has no name")
        arguments = self._arguments(name, command.get("args"))
        if self._rebooting:
            return False  # its record may wait long for the relay: what expires meanwhile is answered all the same
        if name == "reboot":
            return self._reboot(command_id, command)
        if name == "resync":
            self.begin(command_id, command, lambda: self._resync(command_id))
            return True
        if len(self._running) >= config.running_max:
            return False
        self.begin(command_id, command, lambda: self._effects.append(Run(command_id, name, arguments)))
        return True

    def _go(self) -> None:
        """The relay has the records: from now on a copy of this database, or an older one, cannot pass for it."""
        while self._confirmed:
            command_id = self._confirmed[0]
            deed = self._begun.get(command_id)
            if deed is not None:
                self._begin_deed(command_id, deed)
            del self._confirmed[0]

    def _begin_deed(self, command_id: str, deed: Deed) -> None:
        command = self.database.get(COMMAND, {"id": command_id})
        if command is None:
            message = "it was withdrawn before it began"
            self._close(command_id, {"state": "refused", "code": "withdrawn", "message": message})
        elif self.is_expired(command):
            self._close(command_id, {"state": "expired"})
        else:
            deed()
            del self._begun[command_id]

    def _arguments(self, name: str, given: Any) -> Any:
        handler = self.handlers.get(name)
        kind = NoArguments if handler is None else handler.arguments
        if handler is None and name not in ("reboot", "resync"):
            raise _Refused("unknown", f"this device knows no command {name!r:.80}")
        try:
            return msgspec.convert({} if given is None else given, kind)
        except msgspec.ValidationError as error:
            raise _Refused("invalid", f"args: {error}") from None

    def _reboot(self, command_id: str, command: Properties) -> bool:
        if not self.config.allow_reboot:
            raise _Refused("not_allowed", "this device's configuration does not allow it")
        if self.is_too_soon():
            raise _Refused("too_soon", f"at most one in {self.config.reboot_spacing_ms // 1000} s")
        if self._running:
            return False  # what runs is not cut off
        self._rebooting = self.begin(command_id, command, lambda: self._reboot_now(command_id))
        return True

    def _reboot_now(self, command_id: str) -> None:
        self._rebooted_ms = self.database.clock.now_ms()
        self._effects.append(Reboot(command_id))

    def is_too_soon(self) -> bool:
        """To reboot once more."""
        return self.database.clock.now_ms() < self._rebooted_ms + self.config.reboot_spacing_ms

    def _resync(self, command_id: str) -> None:
        """Every feed is fetched anew, as a snapshot. Own writes that wait are sent as ever."""
        feeds = sorted(self.store.cursors)
        with self.store.transaction():
            for feed in feeds:
                self.store.drop_cursor(feed)
        self._effects.append(Reconnect(command_id))
        self._ended.append(Finished(command_id, {"feeds": feeds}))

    # ---------------------------------------------------------------- results

    def begin(self, command_id: str, command: Properties, deed: Deed) -> bool:
        """The durable record that comes before the deed. False: it cannot be made, and nothing is to be done."""
        started = self._result(command_id, command)
        started.update(state="started", started=self._now())
        if command.get("name") == "reboot":
            started["data"] = {"boot": self._boot_id}
        if not self._create(started):
            return False
        self._running[command_id] = started
        self._begun[command_id] = deed
        self.probes["command_started"] += 1
        return True

    def _end_all(self) -> None:
        while self._ended:
            self._end(self._ended[0])
            del self._ended[0]

    def _end(self, event: Finished | Failed) -> None:
        if event.id in self._running and event.id not in self._begun:
            self._close(event.id, self._outcome(event))
        else:
            self.probes["command_end_unknown"] += 1

    def _close(self, command_id: str, outcome: dict[str, Any]) -> None:
        """The last word on a command that was recorded as started."""
        started = self._running[command_id]
        ended_ms = self.database.clock.now_ms()
        ended = {
            "id": command_id,
            "finished": from_ms(ended_ms),
            "ttl": max(started["ttl"], self._ttl(ended_ms)),
        }
        try:
            self._write({**ended, **outcome})
        except ModelError as error:
            if error.code == "missing":
                self.probes["command_result_missing"] += 1  # the application has removed it
            else:
                outcome = {"state": "failed", "message": f"it ended, and its result cannot be stored: {error}"}
                self._write({**ended, **outcome})
        del self._running[command_id]
        self._begun.pop(command_id, None)
        if started["name"] == "reboot":
            self._rebooting = False
        self.probes[f"command_{outcome['state']}"] += 1

    def _outcome(self, event: Finished | Failed) -> dict[str, Any]:
        """The data is bounded; what cannot be stored is said to have failed, though it was done."""
        if isinstance(event, Failed):
            return {"state": "failed", "message": event.message}
        if event.data is None:
            return {"state": "done"}
        limit = self.config.result_bytes_max
        try:
            data = msgspec.to_builtins(event.data)
            size = len(msgspec.json.encode(data))
        except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
            return {"state": "failed", "message": f"it ended, and its result cannot be stored: {error}"}
        if not isinstance(data, dict):
            return {"state": "failed", "message": f"it ended with {data!r:.80}; a result is an object"}
        if size > limit:
            message = f"a result of {size} bytes, at most {limit}: left out"
            return {"state": "done", "code": "too_large", "message": message}
        return {"state": "done", "data": data}

    def answer(
        self, command_id: str, command: Properties, state: State, code: Code | None = None, message: str | None = None
    ) -> None:
        """Of a command that is not done."""
        self.probes[f"command_{state}"] += 1
        self._create({**self._result(command_id, command), "state": state, "code": code, "message": message})

    def _result(self, command_id: str, command: Properties) -> dict[str, Any]:
        name = command.get("name")
        now_ms = self.database.clock.now_ms()
        return {
            "id": command_id,
            "name": self._cut(name) if isinstance(name, str) else "",
            "ttl": self._ttl(max(_ms(command.get("expires"), now_ms), now_ms)),
        }

    def _ttl(self, from_then_ms: int) -> datetime:
        """A result outlives its command's end: by the time that it is dropped, the command has long expired."""
        return from_ms(min(from_then_ms + self.config.keep_ms + CLOCK_BACK_MS, _DATE_MS_MAX))

    def _create(self, result: Properties) -> bool:
        """False: there is such a result, or none can be made."""
        try:
            self.database.create(RESULT, self._filled(result))
        except ModelError as error:
            self.probes["command_not_recorded"] += 1
            self.probes["command_repeated"] += error.code == "exists"
            return False
        return True

    def _write(self, changed: Properties) -> None:
        self.database.update(RESULT, self._filled(changed))

    def _filled(self, properties: Properties) -> dict[str, Any]:
        """With the application's own fields, without those that say nothing, texts cut to their limit."""
        filled = {**self._extra(), **properties}
        if (message := filled.get("message")) is not None:
            filled["message"] = self._cut(message)
        return {name: value for name, value in filled.items() if value is not None}

    def _cut(self, text: str) -> str:
        clean = text.encode(errors="replace").decode()  # half a character cannot be stored
        limit = self.config.text_chars_max
        return clean if len(clean) <= limit else clean[: limit - 3] + "..."

    def _now(self) -> datetime:
        return from_ms(self.database.clock.now_ms())


def _ms(value: Any, otherwise: int) -> int:
    """Milliseconds of a date of an item; of anything else, `otherwise`."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        return otherwise
    return max(to_ms(value), 0)
