"""A relay on a memory table under a clock that tests set; tasks that stop before every request; every interleaving.

Used by the tests of the relay's logic. Nothing here decides anything: it only runs, records and enumerates.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.protocol.messages import (
    NO_IMAGE,
    Ack,
    FeedName,
    FeedState,
    FromDevice,
    Hello,
    Kind,
    Op,
    ToDevice,
    Up,
    decode_to_device,
    encode,
    encode_image,
)
from agent.protocol.schema import Schema
from cloud.config import RelayConfig
from cloud.drive import run
from cloud.head import head_key, log_feed, log_position
from cloud.memory import MemoryTable
from cloud.metered import MeteredTable
from cloud.relay import Relay
from cloud.table import Item, Key, Publish, Record, Request, TableError, TableRequest, Work

FILE: Final = Path(__file__).resolve().parent.parent / "scenarios" / "schemas" / "fleet.json5"
SCHEMA: Final = Schema.load(FILE)
ACCOUNTS: Final = {"home-1": "main", "home-2": "main", "away-1": "other"}
NOW_MS: Final = 1_700_000_000_000
EPOCH: Final = "e" * 32


def status(rev: int, updated_ms: int = NOW_MS, device: str = "home-1", **more: Any) -> tuple[Key, dict[str, Any]]:
    return image("Status", f"device#{device}", "status#", rev, updated_ms, deviceId=device, **more)


def fault(rev: int, name: str, updated_ms: int = NOW_MS, device: str = "home-1") -> tuple[Key, dict[str, Any]]:
    return image("Fault", f"device#{device}", f"fault#{name}", rev, updated_ms, deviceId=device, id=name)


def setting(
    rev: int, name: str = "mode", updated_ms: int = NOW_MS, device: str = "home-1", **more: Any
) -> tuple[Key, dict[str, Any]]:
    return image("Setting", f"device#{device}", f"setting#{name}", rev, updated_ms, deviceId=device, name=name, **more)


def config(rev: int, device: str = "home-1", **more: Any) -> tuple[Key, dict[str, Any]]:
    return image("Config", f"device#{device}", "config#", rev, NOW_MS, deviceId=device, **more)


def notice(rev: int, name: str, account: str = "main") -> tuple[Key, dict[str, Any]]:
    return image("Notice", f"account#{account}", f"notice#{name}", rev, NOW_MS, accountId=account, id=name)


def image(model: str, pk: str, sk: str, rev: int, updated_ms: int, **more: Any) -> tuple[Key, dict[str, Any]]:
    return (pk, sk), {"_type": model, "rev": rev, "created": NOW_MS, "updated": updated_ms, **more}


def stored(written: tuple[Key, dict[str, Any]], op: list[Any] | None = None) -> dict[str, Any]:
    """The item that an application in the cloud (or with `op`, the relay) puts."""
    (pk, sk), attributes = written
    return {**attributes, "pk": pk, "sk": sk} | ({} if op is None else {"_op": op})


def op(u: int, kind: Kind, written: tuple[Key, dict[str, Any]] | None = None, name: str = "boot") -> Op:
    if written is None:
        return Op(u, kind, name)
    key, attributes = written
    raw = NO_IMAGE if kind == "delete" else msgspec.Raw(encode_image(attributes))
    return Op(u, kind, name, key, attributes["updated"], raw)


def up(*ops: Op, epoch: str = EPOCH, prev_id: str | None = "boot") -> Up:
    return Up(epoch=epoch, first_u=ops[0].u, ops=list(ops), hn="hn", prev_id=None if ops[0].u == 1 else prev_id)


def hello(
    epoch: str = EPOCH,
    replaces: str | None = None,
    feeds: dict[FeedName, FeedState] | None = None,
    n: int = 1,
) -> Hello:
    return Hello(epoch=epoch, hn="hn", n=n, schema="0.0.1", feeds=feeds or {}, replaces=replaces)


def schema_with(model: str, process: str) -> Schema:
    """The example schema with more in one model's entry of `process`."""
    text, count = re.subn(rf"(\b{model}: {{enable: 'both', sync: '\w+')", rf"\1, {process}", SCHEMA.text)
    assert count == 1
    return Schema.parse(text, "schema.json5")


class Rig:
    """One table, one relay, and everything that was published."""

    def __init__(
        self, settings: RelayConfig | None = None, schema: Schema = SCHEMA, relay_type: type[Relay] = Relay
    ) -> None:
        self.now_ms = NOW_MS
        self.table = MemoryTable(shards=1)
        self.counters: Counter[str] = Counter()
        self.published: list[Publish] = []
        self.drawn = 0
        self.relay = relay_type(
            schema, settings or RelayConfig(), lambda: self.now_ms, self.random_hex, self.counters, ACCOUNTS.get
        )
        self.table.stream.wants = self.relay.wants
        self.commits: list[Record] = []
        self.table.subscribe(self.commits.append)
        self.position = 1

    def random_hex(self, digits: int) -> str:
        self.drawn += 1
        return f"{self.drawn:0{digits}x}"

    def execute(self, request: TableRequest) -> Any:
        return self.table.execute(request, self.now_ms)

    def message(self, message: FromDevice, device: str = "home-1", compact: bool = False) -> Work:
        return self.relay.on_message(device, encode(message, compact=compact))

    def send(self, message: FromDevice, device: str = "home-1", compact: bool = False) -> list[ToDevice]:
        """Runs a device's message to its end; what was published meanwhile."""
        return self.run(self.message(message, device, compact))

    def run(self, work: Work) -> list[ToDevice]:
        before = len(self.published)
        run(work, self.execute, self.published.append)
        return [decode_to_device(sent.payload) for sent in self.published[before:]]

    def ack(self, message: FromDevice, device: str = "home-1") -> Ack:
        (answer,) = self.send(message, device)
        assert isinstance(answer, Ack)
        return answer

    def records(self) -> list[Record]:
        """The stream's records since the last call."""
        records, self.position = self.table.read(0, self.position)
        return records

    def sequence(self) -> list[ToDevice]:
        """Runs every waiting record through the sequencer."""
        sent: list[ToDevice] = []
        while records := self.records():
            for record in records:
                sent.extend(self.run(self.relay.on_record(record)))
        return sent

    def item(self, key: Key) -> Item | None:
        return self.table.peek(key)

    def head(self, device: str = "home-1") -> Item:
        head = self.table.peek(head_key(device))
        assert head is not None
        return head

    def log(self, feed: FeedName = "device", owner: str = "home-1") -> list[Item]:
        """The stored rows of a feed, oldest first."""
        return [item for item in self.table.scan(private=True) if log_feed((item["pk"], item["sk"])) == (feed, owner)]

    def tail(self, feed: FeedName = "device", owner: str = "home-1") -> tuple[str, int]:
        return log_position(self.log(feed, owner)[-1])


class Task:
    """A work that stops before every request, so that others may come between."""

    def __init__(self, rig: Rig, work: Work) -> None:
        self.rig = rig
        self.work = work
        self.request: Request | None = None
        self.steps = 0
        self._go(lambda: next(work))

    @property
    def done(self) -> bool:
        return self.request is None

    def _go(self, resume: Callable[[], Request]) -> None:
        try:
            self.request = resume()
        except StopIteration:
            self.request = None

    def step(self) -> None:
        """Carries out the request at which the work waits, and runs it up to the next."""
        request = self.request
        assert request is not None
        self.steps += 1
        if isinstance(request, Publish):
            self.rig.published.append(request)
            self._go(lambda: self.work.send(None))
            return
        try:
            answer = self.rig.execute(request)
        except TableError as error:
            thrown = error
            self._go(lambda: self.work.throw(thrown))
        else:
            self._go(lambda: self.work.send(answer))

    def finish(self) -> None:
        while not self.done:
            self.step()


Build = Callable[[], tuple[Rig, Sequence[Task]]]


def every_interleaving(build: Build, most: int = 5_000) -> Iterator[Rig]:
    """Runs the tasks that `build` makes, anew each time, in every order of their steps; yields each final rig."""
    prefixes: list[tuple[int, ...]] = [()]
    count = 0
    while prefixes:
        prefix = prefixes.pop()
        rig, tasks = build()
        taken: list[int] = []
        while True:
            ready = [index for index, task in enumerate(tasks) if not task.done]
            if not ready:
                break
            if len(taken) < len(prefix):
                chosen = prefix[len(taken)]
            else:
                chosen = ready[0]
                prefixes.extend((*taken, other) for other in ready[1:])
            taken.append(chosen)
            tasks[chosen].step()
        count += 1
        assert count <= most, "too many interleavings: make the case smaller"
        yield rig


def killed_at_every_step(build: Callable[[], tuple[Rig, Callable[[], Work]]]) -> Iterator[tuple[int, Rig]]:
    """Starts a work, leaves it for dead after each number of steps, then runs it again to its end."""
    steps = 0
    while True:
        rig, start = build()
        task = Task(rig, start())
        while not task.done and task.steps < steps:
            task.step()
        if task.done:
            assert steps > 0
            return
        del task
        Task(rig, start()).finish()
        yield steps, rig
        steps += 1


class MeteredRig(Rig):
    """The same on a table with a bill."""

    def __init__(self) -> None:
        super().__init__()
        self.table = self.metered = MeteredTable(shards=1)
        self.table.stream.wants = self.relay.wants
