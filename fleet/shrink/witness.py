"""Watches one run of a small plan: every message from where it was sent to where it came, and what happened around it.

The listeners are the world's own parts with an ear: the oracle is told of what applications and devices do, the cloud
of what its workers take, ask and publish. They change nothing: the trace's hash of a watched run is that of the run.
Called by `fleet shrink` in a worker process; what is drawn of it is reports.sequence's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.protocol import topics
from agent.protocol.messages import Key
from cloud.head import LOG_PK, head_device, position_of
from cloud.table import PRIVATE_PREFIX, Delete, Publish, Put, Record, Request, Transact, Update, Work
from fleet.oracle.wire import Downward, Upward, downward, upward
from fleet.plants import types_with
from fleet.run import Request as RunRequest
from fleet.run import execute
from fleet.scenario.plan import Plan
from fleet.world.tasks import Task
from fleet.world.world import Types
from reports.rundir import TRACE, read_trace
from reports.sequence import BROKER, TABLE, Arrow, Note, Story

STORY_MAX: Final = 20_000  # of each: a plan that has not been shrunk may run for days
# Kinds of trace events that are told, and in which words.
_TOLD: Final = {
    "boot": "power on",
    "power-off": "power off",
    "stop": "stopped in good order",
    "connect": "connected",
    "disconnect": "disconnected",
    "fault": "fault",
    "healed": "healed",
    "worker-killed": "killed",
    "worker-started": "started again",
    "worker-stalled": "stalls",
    "worker-woken": "goes on",
    "damage": "damaged without a word",
}


class Watched(msgspec.Struct, frozen=True):
    """What was seen, and the run's trace hash, by which whoever asked knows that it was the same run."""

    story: Story
    trace_hash: str


def watch(data: bytes) -> Watched:
    """Runs the plan to its end, with all that can be listened to. Raises what the world raises."""
    plan = Plan.decode(data)
    ear = Ear(plan)
    with tempfile.TemporaryDirectory(prefix="fleet-") as scratch:
        result = execute(plan, RunRequest(trace_path=Path(scratch) / TRACE), types=ear.types(types_with(plan.plant)))
        ear.trace(Path(scratch))
    return Watched(ear.story(), result.summary.trace_hash)


class Ear:
    """Gathers what the listeners hear."""

    def __init__(self, plan: Plan) -> None:
        self.now_us = 0
        self._devices = [device.id for device in plan.devices]
        self._to = {topics.to_device(name): [name] for name in self._devices}
        for device in plan.devices:
            account = plan.groups[device.group].account
            self._to.setdefault(topics.to_account(account), []).append(device.id)
        self._to[topics.to_all()] = list(self._devices)
        self._notes: list[Note] = []
        self._arrows: list[Arrow] = []
        self._up: dict[tuple[str, bytes], list[Arrow]] = {}
        self._down: dict[tuple[str, bytes], list[Arrow]] = {}
        self._drops: list[tuple[int, str, str]] = []

    # ---------------------------------------------------------------- what the listeners tell

    def note(self, t_us: int, lane: str, text: str, key: Key | None = None, tone: str = "") -> None:
        if len(self._notes) < STORY_MAX:
            keys = [] if key is None else [_name(key)]
            self._notes.append(Note(t_us=t_us, lane=lane, text=text, keys=keys, tone=tone))

    def sent_up(self, t_us: int, device: str, payload: bytes) -> None:
        label, keys = _of_upward(upward(payload))
        arrow = self._arrow(t_us, device, BROKER, label, keys, device)
        self._up.setdefault((device, payload), []).append(arrow)

    def came_up(self, t_us: int, worker: str, device: str, payload: bytes) -> None:
        waiting = self._up.get((device, payload), [])
        arrow = next((one for one in waiting if one.came_us is None), None)
        if arrow is None:
            label, keys = _of_upward(upward(payload))
            arrow = self._arrow(t_us, BROKER, worker, f"again: {label}", keys, device)
        arrow.to, arrow.came_us = worker, t_us

    def published(self, t_us: int, worker: str, topic: str, payload: bytes) -> None:
        label, keys = _of_downward(downward(payload))
        for device in self._to.get(topic, ()):
            arrow = self._arrow(t_us, worker, device, label, keys, device)
            self._down.setdefault((device, payload), []).append(arrow)

    def came_down(self, t_us: int, device: str, payload: bytes) -> None:
        waiting = self._down.get((device, payload), [])
        arrow = next((one for one in waiting if one.came_us is None), None)
        if arrow is None:
            label, keys = _of_downward(downward(payload))
            arrow = self._arrow(t_us, BROKER, device, f"again: {label}", keys, device)
        arrow.came_us = t_us

    def asked(self, t_us: int, worker: str, request: Request, device: str) -> Arrow | None:
        """A write to the table; reads are not told."""
        actions = request.actions if isinstance(request, Transact) else (request,)
        writes = [action for action in actions if isinstance(action, Put | Update | Delete)]
        if not writes:
            return None
        keys = [_name(_subject(action)) for action in writes]
        return self._arrow(t_us, worker, TABLE, f"write {_of_writes(writes)}", keys, device)

    def _arrow(self, t_us: int, start: str, to: str, label: str, keys: list[str], device: str) -> Arrow:
        arrow = Arrow(sent_us=t_us, start=start, to=to, label=label, keys=keys, device=device)
        if len(self._arrows) < STORY_MAX:
            self._arrows.append(arrow)
        return arrow

    # ---------------------------------------------------------------- the trace

    def trace(self, directory: Path) -> None:
        """Faults, power, connections, and why messages were lost."""
        for line in read_trace(directory):
            event = json.loads(line)
            kind, entity, detail, t_us = event["kind"], event["entity"], event["detail"], event["t_us"]
            if kind == "drop":
                self._drops.append((t_us, entity, detail))
            elif kind in ("fault", "healed"):
                aim = f" ({detail})" if detail else ""
                word = "begins" if kind == "fault" else "is over"
                self.note(t_us, detail, f"{entity} {word}{aim}", tone="fault")
            elif kind in _TOLD:
                more = f": {detail}" if detail and kind in ("disconnect", "damage") else ""
                tone = "fault" if kind.startswith("worker") or kind in ("power-off", "damage") else ""
                self.note(t_us, entity, _TOLD[kind] + more, tone=tone)

    def story(self) -> Story:
        for arrow in self._arrows:
            if arrow.came_us is None:
                arrow.lost = self._why(arrow)
        self._notes.sort(key=lambda note: note.t_us)
        return Story(devices=self._devices, notes=self._notes, arrows=self._arrows)

    def _why(self, arrow: Arrow) -> str:
        """By the next loss on its way that the trace tells of."""
        for t_us, entity, reason in self._drops:
            if t_us >= arrow.sent_us and (entity == arrow.device or arrow.device in self._to.get(entity, ())):
                return f"lost: {reason}"
        return "did not come"

    # ---------------------------------------------------------------- the listeners

    def types(self, types: Types) -> Types:
        """The same, listening."""
        ear = self
        oracle_type: Any = types.oracle
        cloud_type: Any = types.cloud

        class Oracle(oracle_type):  # type: ignore[misc]
            def wire_up(self, t_us: int, device: str, payload: bytes) -> None:
                ear.sent_up(t_us, device, payload)
                super().wire_up(t_us, device, payload)

            def wire_down(self, t_us: int, device: str, payload: bytes) -> None:
                ear.came_down(t_us, device, payload)
                super().wire_down(t_us, device, payload)

            def device_wrote(self, t_us: int, device: str, key: Key, kind: str, rev: Any, *rest: Any) -> None:
                ear.note(t_us, device, f"application: {kind} {key[1]}{_rev(rev)}", key, "write")
                super().device_wrote(t_us, device, key, kind, rev, *rest)

            def device_saw(self, t_us: int, device: str, key: Key, rev: Any, *rest: Any) -> None:
                ear.note(t_us, device, f"now shows {key[1]}{_rev(rev)}", key)
                super().device_saw(t_us, device, key, rev, *rest)

            def device_verdict(self, t_us: int, device: str, key: Key, updated: Any, event: str) -> None:
                ear.note(t_us, device, f"{key[1]}: {event}", key)
                super().device_verdict(t_us, device, key, updated, event)

            def cloud_wrote(self, t_us: int, key: Key, rev: Any, kind: str) -> None:
                ear.note(t_us, TABLE, f"application: {kind} {key[1]}{_rev(rev)}", key, "write")
                super().cloud_wrote(t_us, key, rev, kind)

            def committed(self, t_us: int, record: Record) -> None:
                if not record.key[0].startswith(PRIVATE_PREFIX):
                    rev = None if record.new is None else record.new.get("rev")
                    ear.note(t_us, TABLE, f"holds {record.key[1]}{_rev(rev)}", record.key)
                super().committed(t_us, record)

        class Cloud(cloud_type):  # type: ignore[misc]
            def _start_message(self, worker: Any, tie: Any, device_id: str, payload: bytes) -> None:
                ear.came_up(self.clock.now, worker.name, device_id, payload)
                super()._start_message(worker, tie, device_id, payload)

            def _start(self, task: Task, work: Work) -> None:
                super()._start(task, ear.overheard(self.clock, task, work))

        return Types(agent=types.agent, relay=types.relay, cloud=Cloud, oracle=Oracle)

    def overheard(self, clock: Any, task: Task, work: Work) -> Work:
        """The same work; each request is noted when it is made and when it is answered."""

        def pass_on() -> Generator[Request, Any, None]:
            answer: Any = None
            error: BaseException | None = None
            while True:
                try:
                    request = work.send(answer) if error is None else work.throw(error)
                except StopIteration:
                    return
                arrow: Arrow | None = None
                if isinstance(request, Publish):
                    self.published(clock.now, task.worker.name, request.topic, request.payload)
                else:
                    arrow = self.asked(clock.now, task.worker.name, request, task.device_id)
                try:
                    answer, error = (yield request), None
                except Exception as refused:
                    answer, error = None, refused
                if arrow is not None:
                    arrow.came_us = clock.now
                    if error is not None:
                        arrow.label += f": {type(error).__name__}"

        return pass_on()


# ---------------------------------------------------------------- in words


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


def _rev(rev: Any) -> str:
    return "" if rev is None else f" (rev …{str(rev)[-5:]})"


def _short(keys: list[Key]) -> str:
    names = list(dict.fromkeys(key[1] for key in keys))
    return ", ".join(names[:3]) + (f", … ({len(names)})" if len(names) > 3 else "")


def _subject(action: Put | Update | Delete) -> Key:
    """The item that a write is about: of a row of a feed, the one that it tells of."""
    if isinstance(action, Put) and action.key[0].startswith(LOG_PK) and "key" in action.item:
        pk, sk = action.item["key"]
        return pk, sk
    return action.key


def _of_writes(writes: Sequence[Put | Update | Delete]) -> str:
    """The items, then what the relay keeps for itself."""
    names: dict[str, None] = {}
    for action in sorted(writes, key=lambda action: action.key[0].startswith(PRIVATE_PREFIX)):
        about = _subject(action)[1]
        if action.key[0].startswith(LOG_PK):
            position = position_of(action.key[1])
            names[f"row {position[1]}" + (f": {about}" if about != action.key[1] else "")] = None
        elif head_device(action.key) is not None:
            names["HEAD"] = None
        else:
            names[f"{'delete ' if isinstance(action, Delete) else ''}{about}"] = None
    shown = list(names)
    return ", ".join(shown[:4]) + (f", … ({len(shown)})" if len(shown) > 4 else "")


def _of_upward(message: Upward | None) -> tuple[str, list[str]]:
    if message is None:
        return "unreadable", []
    if message.t != "up":
        return message.t, []
    ops = message.ops
    span = f"{ops[0].u}" if len(ops) == 1 else f"{ops[0].u}–{ops[-1].u}" if ops else "nothing"
    what = ", ".join(dict.fromkeys(f"{op.kind} {op.key[1]}".rstrip() for op in ops[:3]))
    return f"up {span}: {what}", [_name(op.key) for op in ops if op.key[0]]


def _of_downward(message: Downward | None) -> tuple[str, list[str]]:
    if message is None:
        return "unreadable", []
    if message.t == "ack":
        verdicts = ", ".join(f"{u} {verdict or 'accepted'}" for u, verdict in list(message.verdicts.items())[:3])
        return f"ack up to {message.up}" + (f" ({verdicts})" if verdicts else ""), []
    if message.t == "rows":
        keys = [row.key for row in message.rows]
        rows = f"{message.b}" if message.a + 1 >= message.b else f"{message.a + 1}–{message.b}"
        return f"rows {rows} of {message.feed}" + (f": {_short(keys)}" if keys else ""), [_name(key) for key in keys]
    if message.t == "snapshot":
        keys = [item.key for item in message.items]
        return f"snapshot of {message.feed} at {message.seq}: {len(keys)} items", [_name(key) for key in keys]
    return message.t, []
