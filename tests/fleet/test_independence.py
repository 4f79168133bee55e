"""Leaving out a device, a fault or a workload leaves the random draws of all others as they were, also in a running
world; and no two purposes share a stream.

Every stream of a world is recorded under its names: the draws are compared, not the results. Two kinds:

- A device's own streams ("link", "power", "agent", "workload/...", "fault..."). They start equal whatever else is in
  the plan, and stay equal for as long as nothing that the other device did reaches this one. Devices of different
  accounts share no item and no feed, only the relay: while that has time for all, they stay equal to the end.
- The cloud's streams ("cloud", "applications", "table", "worker-N", "shard-N"). All devices use the one relay, which
  draws in the order in which it is needed: the digits of a feed's epoch, the worker that a fault hits. A device less is
  a draw less, and later ones move up. Through them, a device may see other digits, or an answer at another time.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from run_rig import BUSY, busy_plan

from fleet import rng as source
from fleet.rng import Stream
from fleet.scenario.plan import FaultPlan, Plan
from fleet.world.world import World

Names = tuple[str, str]
SHARED = ("cloud", "applications", "table", "worker-", "shard-")

APART = """\
name: apart
schema: fleet.json5
duration: 12m
devices:
  - {name: home, count: 3, account: acme, link: home-wifi, clock: {spread: 1s}}
  - {name: shop, count: 1, account: beta, link: home-wifi, clock: {spread: 1s}}
workload:
  - {name: status, side: device, model: Status, every: 20s, jitter: 20%, bytes: [200, 400]}
  - {name: fault, side: device, model: Fault, action: create, rate: 30/h, remove: 40%, keep: 4, bytes: 200}
  - {name: notice, side: cloud, model: Notice, action: create, every: 1m, keep: 3, bytes: 200}
faults:
  - {kind: reboots, rate: 10/h, off: [5s, 20s]}
  - {kind: power-cut, rate: 10/h, off: [10s, 30s]}
  - {kind: messages, lose: 5%, duplicate: 5%, reorder: 5%}
"""


class Recorded(Stream):
    """A stream that keeps what it drew."""

    __slots__ = ("drawn",)

    def __init__(self, state: int) -> None:
        super().__init__(state)
        self.drawn: list[int] = []

    def bits(self) -> int:
        value = super().bits()
        self.drawn.append(value)
        return value

    def unit(self) -> float:
        return (self.bits() >> 11) * 2.0**-53

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def below(self, n: int) -> int:
        return (self.bits() * n) >> 64


class Recorder:
    """Stands in for `rng` wherever the world has imported it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.streams: dict[Names, list[Recorded]] = {}
        for module in ("cloud", "device", "hops", "poison", "relays", "shards", "tasks", "workers", "workload"):
            monkeypatch.setattr(f"fleet.world.{module}.rng", self.rng)

    def rng(self, seed: int, entity: str, purpose: str) -> Stream:
        stream = Recorded(source.digest64(seed, entity, purpose))
        self.streams.setdefault((entity, purpose), []).append(stream)
        return stream

    def drawn(self) -> dict[Names, list[int]]:
        return {names: [value for one in streams for value in one.drawn] for names, streams in self.streams.items()}


Events = dict[str, list[tuple[int, str, bytes | str]]]


def draws(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[Names, list[int]], Events]:
    """What every stream of a run drew, and the events of each device."""
    with monkeypatch.context() as patch:
        recorder = Recorder(patch)
        world = World(plan)
        events: Events = {}

        def keep(block: list[tuple[int, str, str, bytes | str]]) -> None:
            for at_us, kind, entity, detail in block:
                events.setdefault(entity, []).append((at_us, kind, detail))

        world.trace.on_block = keep
        world.finish(world.run())
        world.trace.finish()
        return recorder.drawn(), events


def without_device(plan: Plan, device: str) -> Plan:
    """As a shrinker leaves one out: its own line and its events, nothing else."""
    faults = [
        msgspec.structs.replace(fault, events=[event for event in fault.events if event[1] != device])
        for fault in plan.faults
    ]
    return msgspec.structs.replace(plan, devices=[one for one in plan.devices if one.id != device], faults=faults)


def without_fault(plan: Plan, kind: str) -> Plan:
    left: list[FaultPlan] = [fault for fault in plan.faults if fault.kind != kind]
    assert len(left) == len(plan.faults) - 1
    return msgspec.structs.replace(plan, faults=left)


def own(names: Names) -> bool:
    return not names[0].startswith(SHARED)


def test_a_recorded_stream_draws_what_a_stream_draws() -> None:
    for method, arguments in (("bits", ()), ("unit", ()), ("chance", (0.5,)), ("below", (1000,)), ("bytes", (9,))):
        first, second = Recorded(7), Stream(7)
        for _ in range(5):
            assert getattr(first, method)(*arguments) == getattr(second, method)(*arguments)


def test_no_two_purposes_share_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workloads with the names that the device's own streams have, which a scenario may give them."""
    text = BUSY.replace("name: status,", "name: link,").replace("name: fault,", "name: power,")
    text = text.replace("name: setting-device,", "name: agent,").replace("name: config,", "name: workers,")
    recorder = Recorder(monkeypatch)
    world = World(busy_plan(tmp_path, text=text))
    for name in world.devices:
        purposes = {purpose for entity, purpose in recorder.streams if entity == name}
        assert purposes >= {"link", "power", "agent", "workload/link", "workload/power", "workload/agent"}
    asked = Counter({names: len(streams) for names, streams in recorder.streams.items()})
    assert asked and set(asked.values()) == {1}
    states = [stream._block >> 64 for streams in recorder.streams.values() for stream in streams]
    assert len(set(states)) == len(states)


def test_without_a_device_every_stream_of_the_others_starts_as_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = busy_plan(tmp_path)
    whole, _ = draws(plan, monkeypatch)
    less, _ = draws(without_device(plan, "home-0002"), monkeypatch)
    gone = {names for names in whole if names not in less}
    assert gone and all("home-0002" in entity for entity, _ in gone) and set(less) < set(whole)
    for names, drawn in less.items():
        assert drawn[:1] == whole[names][:1], names


def test_without_a_device_of_another_account_all_draws_and_events_stay_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = busy_plan(tmp_path, text=APART)
    whole, events = draws(plan, monkeypatch)
    less, fewer = draws(without_device(plan, "shop-0001"), monkeypatch)
    mine = [names for names in less if own(names)]
    assert len([names for names in mine if names[0].startswith("home-") and len(less[names]) > 20]) >= 9
    for names in mine:
        if names != ("cloud/account/beta", "workload/notice"):
            assert less[names] == whole[names], names
    for device in ("home-0001", "home-0002", "home-0003"):
        times, times_before = ([(at, kind) for at, kind, _ in one[device]] for one in (fewer, events))
        assert times == times_before and len(times) > 200


def test_without_a_fault_the_draws_of_all_writers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that takes no power from a device: applications write as before, to the last draw."""
    plan = busy_plan(tmp_path, text=APART)
    whole, _ = draws(plan, monkeypatch)
    for kind in ("messages", "reboots", "power-cut"):
        less, _ = draws(without_fault(plan, kind), monkeypatch)
        for names, drawn in whole.items():
            if kind == "messages" and names[1].startswith("fault:"):
                assert names not in less
            elif own(names):
                same = names[1] == "workload/status" or (kind == "messages" and names[1].startswith("workload/"))
                length = len(drawn) if same else min(1, len(less[names]))
                assert less[names][:length] == drawn[:length], (kind, names)


def test_without_a_workload_the_draws_of_the_other_writers_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = busy_plan(tmp_path, text=APART)
    whole, _ = draws(plan, monkeypatch)
    rest = [workload for workload in plan.workloads if workload.name != "fault"]
    less, _ = draws(msgspec.structs.replace(plan, workloads=rest), monkeypatch)
    assert {names[1] for names in whole.keys() - less.keys()} == {"workload/fault"}
    for names, drawn in less.items():
        length = len(drawn) if names[1] in ("workload/status", "workload/notice") else 1
        assert drawn[:length] == whole[names][:length], names
