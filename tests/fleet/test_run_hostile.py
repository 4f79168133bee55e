"""Whole worlds under attack: messages that are broken, oversized, old, foreign or of another version, at both ends, at
any time. They are refused, counted, and change nothing.

What is compared with the undisturbed run is what applications have at the end: the writes, by `rev` and text. Times and
identifiers may differ, since an answer to an attack uses a device's link and randomness; what is true may not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from run_rig import BUSY, busy_plan

from agent.events import Received
from agent.protocol import topics
from agent.protocol.messages import MESSAGE_BYTES_MAX
from cloud.table import Update
from fleet.rng import Stream
from fleet.scenario.plan import Plan
from fleet.world.device import SimDevice
from fleet.world.world import World

EVERY_US = 1_500_000
REMEMBERED = 400

# Nothing that two sides write: who wins a conflict is a matter of times.
PLAIN = """\
name: plain
schema: fleet.json5
duration: 12m
devices:
  - {name: home, count: 3, account: acme, link: lte}
  - {name: shop, count: 2, account: beta, link: lte, encoding: msgpack}
workload:
  - {name: status, side: device, model: Status, every: 20s, jitter: 20%, bytes: [200, 400]}
  - {name: fault, side: device, model: Fault, action: create, rate: 30/h, remove: 40%, keep: 4, bytes: 200}
  - {name: config, side: cloud, model: Config, every: 40s, jitter: 20%, bytes: [200, 400]}
  - {name: command, side: cloud, model: Command, action: create, rate: 40/h, remove: 40%, keep: 3, bytes: 200}
  - {name: notice, side: cloud, model: Notice, action: create, every: 1m, keep: 3, bytes: 200}
  - {name: diagnostic, side: device, model: Diagnostic, rate: 20/h, items: 2, bytes: 200}
  - {name: audit, side: cloud, model: Audit, action: create, rate: 20/h, keep: 3, bytes: 200}
phases: {warm_up: 1m, quiesce: 3m, converge_within: 20m}
"""


class Attacked:
    """A world whose messages are overheard. `attack` is called every EVERY_US until the applications stop."""

    def __init__(self, plan: Plan, monkeypatch: pytest.MonkeyPatch, attack: Callable[[Attacked], None] | None) -> None:
        heard = self.down = []  # type: list[tuple[str, bytes]]

        class Tapped(SimDevice):
            """Tells what it got."""

            __slots__ = ()

            def on_message(self, topic: str, payload: bytes, qos: int) -> None:
                heard.append((self.device_id, payload))
                super().on_message(topic, payload, qos)

        with monkeypatch.context() as patch:
            patch.setattr("fleet.world.world.SimDevice", Tapped)
            self.world = World(plan)
        self.up: list[tuple[str, bytes]] = []
        self.world.broker.deliver_to_cloud = self._take
        self.draw = Stream(plan.seed)
        self.attacks = 0
        self._attack = attack
        self._tie = self.world.clock.tie("attacker")
        if attack is not None:
            for at_us in range(EVERY_US, plan.duration_us, EVERY_US):
                self.world.clock.post_at(at_us, self._tie, self._strike, attack)

    def _take(self, topic: str, payload: bytes, device: str) -> None:
        self.up.append((device, payload))
        self.world.cloud.take(topic, payload, device)

    def _strike(self, attack: Callable[[Attacked], None]) -> None:
        del self.up[:-REMEMBERED], self.down[:-REMEMBERED]
        attack(self)

    def to_relay(self, device: str, payload: bytes) -> None:
        """As the broker's rule hands over what the connection of `device` published."""
        self.attacks += 1
        self.world.cloud.take(topics.from_device(device), payload, device)

    def to_device(self, name: str, payload: bytes) -> None:
        """If it is connected: a transport that is not gives nothing to a session. Past the oracle, which judges what
        the relay sends."""
        device = self.world.devices[name]
        if device.conn is not None and device.conn.ready:
            self.attacks += 1
            device.feed(Received(payload))

    def any_device(self) -> str:
        return self.draw.choice(list(self.world.devices))

    def run(self) -> World:
        self.world.finish(self.world.run())
        return self.world


def truth(world: World) -> dict[str, Any]:
    """What applications have, in the cloud and on each device."""
    found: dict[str, Any] = {
        name: sorted((model.name, image["rev"], image.get("text", "")) for model, _, image in device.database.items())
        for name, device in world.devices.items()
        if device.database is not None
    }
    found["table"] = sorted((item["_type"], item["rev"], item.get("text", "")) for item in world.table.scan())
    return found


def passed(world: World) -> None:
    failed = {check.name: check.detail for check in world.checks if check.failed}
    assert not failed and world.converged_us is not None and world.not_done == []


def refused(world: World) -> dict[str, int]:
    return {name.removeprefix("message_refused_"): n for name, n in world.probes.items() if "message_refused" in name}


# ---------------------------------------------------------------- attacks


def envelope(tag: str, **fields: Any) -> bytes:
    return msgspec.json.encode({"t": tag, "v": 1, **fields})


BROKEN: tuple[bytes, ...] = (
    b"",
    b"{",
    b"{}",
    b"null",
    b"[1,2,3]",
    b"\x00" * 64,
    b"\xff\xfe\xfd",
    b"{" * 50_000,
    b"\x91" * 50_000,
    b'{"t":"up","v":1,"epoch":"e","first_u":1,"ops":[' + b"[" * 5_000,
    envelope("up", epoch="e" * 10, first_u=1 << 70, prev_id="", hn="", ops=[]),
    envelope("up", epoch="e", first_u=-1, prev_id="", hn="", ops=[{"u": -1}]),
    envelope("up", epoch=None, first_u="1", prev_id=1, hn=[], ops={}),
    envelope("hello", epoch="", hn="x", n=-1, feeds={"device": None}),
    envelope("hello", epoch="e" * 100_000, hn="h", n=1, replaces=None, schema="", feeds={}),
    envelope("rows", feed="nonsense", epoch="e", a=5, b=1, last=-7, rows=[]),
    envelope("rows", feed="device", epoch="e", a=0, b=1, last=1, rows=[{"key": ["", ""]}]),
    envelope("rows", feed="device", epoch="e", a=0, b=1 << 60, last=1 << 60, rows=[]),
    envelope("ack", epoch="e", up=1 << 60, upid="x", now=1e300, verdicts={}),
    envelope("ack", epoch="e", up=-1, upid="x", now=-1, verdicts={"1": "no"}),
    envelope("snapshot", feed="device", nonce="n", part=3, parts=2, scan="s", epoch="e", seq=-5, items=[]),
    envelope("reset", hn=7),
)


def broken(attacked: Attacked) -> None:
    payload = attacked.draw.choice(BROKEN)
    attacked.to_relay(attacked.any_device(), payload)
    attacked.to_device(attacked.any_device(), payload)


def garbled(attacked: Attacked) -> None:
    """Messages that were overheard, with bytes changed, cut off, or another's tail."""
    draw = attacked.draw
    for heard, send in ((attacked.up, attacked.to_relay), (attacked.down, attacked.to_device)):
        if not heard:
            continue
        device, payload = draw.choice(heard)
        changed = bytearray(payload)
        how = draw.below(3)
        if how == 0:
            del changed[draw.below(len(changed)) :]
        elif how == 1:
            changed[draw.below(len(changed))] = 0xFF  # in no UTF-8 text, and a number in MessagePack
            changed[draw.below(len(changed))] = 0xC1  # in neither
        else:
            changed += payload[draw.below(len(payload)) :]
        if bytes(changed) != payload:
            send(device, bytes(changed))


def oversized(attacked: Attacked) -> None:
    for tag in ("up", "snapshot"):
        payload = envelope(tag, padding="x" * (MESSAGE_BYTES_MAX + 1))
        attacked.to_relay(attacked.any_device(), payload)
        attacked.to_device(attacked.any_device(), payload)


def of_another_version(attacked: Attacked) -> None:
    """Real messages that say that they are of a later version, and kinds that nobody knows."""
    draw = attacked.draw
    for heard, send in ((attacked.up, attacked.to_relay), (attacked.down, attacked.to_device)):
        if heard:
            device, payload = draw.choice(heard)
            content = msgspec.json.decode(payload) if payload[:1] == b"{" else msgspec.msgpack.decode(payload)
            encode = draw.choice((msgspec.json.encode, msgspec.msgpack.encode))
            send(device, encode({**content, "v": 2}))
            send(device, encode({**content, "t": "upp"}))


def foreign_up(attacked: Attacked) -> None:
    """What one device sent, published under its topic by another: the connection says whose it is. (A device that has
    not said hello yet is whoever says so first on its connection: that is what connections are authenticated for.)"""
    if not attacked.up:
        return
    device, payload = attacked.draw.choice(attacked.up)
    other = attacked.world.devices[attacked.any_device()]
    joined = other.session is not None and other.session.store.identity.adopted
    if joined and other.device_id != device:
        attacked.attacks += 1
        attacked.world.broker.publish(other, topics.from_device(device), payload, 1)
    attacked.to_relay("home-9999", payload)


def foreign_down(attacked: Attacked) -> None:
    """What one device got, at another, which takes it for its own."""
    for device, payload in [attacked.draw.choice(attacked.down) for _ in range(2)] if attacked.down else ():
        other = attacked.any_device()
        if other != device:
            attacked.to_device(other, payload)


def replayed(attacked: Attacked) -> None:
    """The same device's own messages again, the older the likelier."""
    for heard, send in ((attacked.up, attacked.to_relay), (attacked.down, attacked.to_device)):
        if heard:
            send(*heard[min(attacked.draw.below(len(heard)), attacked.draw.below(len(heard)))])


ATTACKS: dict[str, tuple[Callable[[Attacked], None], frozenset[str]]] = {
    "broken": (broken, frozenset({"malformed", "unknown"})),
    "garbled": (garbled, frozenset({"malformed"})),
    "oversized": (oversized, frozenset({"oversize"})),
    "of another version": (of_another_version, frozenset({"version", "unknown"})),
    "foreign, up": (foreign_up, frozenset({"device"})),
    "foreign, down": (foreign_down, frozenset()),
    "replayed": (replayed, frozenset()),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_messages_are_refused_counted_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    attack, codes = ATTACKS[name]
    plan = busy_plan(tmp_path, text=PLAIN)
    calm = Attacked(plan, monkeypatch, None).run()
    attacked = Attacked(plan, monkeypatch, attack)
    world = attacked.run()
    passed(calm)
    passed(world)
    assert refused(calm) == {} and attacked.attacks > 400
    assert codes <= set(refused(world)) <= codes | {"unknown"}
    if name in ("broken", "oversized", "of another version"):
        assert sum(refused(world).values()) == attacked.attacks, "each of them is counted"
    assert truth(world) == truth(calm)
    assert not any(device.identity_changes() for device in world.devices.values())


def test_old_and_foreign_messages_are_counted_by_what_was_wrong_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = busy_plan(tmp_path, text=PLAIN)
    old = Attacked(plan, monkeypatch, replayed).run().probes
    assert min(old["duplicate_batch"], old["duplicate_dropped"], old["stale_snapshot"]) > 0
    others = Attacked(plan, monkeypatch, foreign_down).run().probes
    assert min(others["stale_ack"], others["stale_snapshot"]) > 0
    assert Attacked(plan, monkeypatch, foreign_up).run().probes["stale_reset"] > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_attacks_at_once_among_all_faults_break_no_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    attacks = [attack for attack, _ in ATTACKS.values() if attack is not foreign_down]

    def all_of_them(attacked: Attacked) -> None:
        attacked.draw.choice(attacks)(attacked)

    plan = busy_plan(tmp_path, seed, BUSY.replace("lose: 2%", "lose: 4%"))
    attacked = Attacked(plan, monkeypatch, all_of_them)
    passed(attacked.run())
    assert attacked.attacks > 400 and set(refused(attacked.world)) >= {"malformed", "oversize", "version", "device"}


def test_who_owns_the_broker_costs_a_device_its_epoch_but_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hello that was stolen and sent from another's connection gets a reset; carried back to the device that it was
    stolen from, the reset answers its nonce. No broker with a policy does either; if one did, nothing would be lost."""

    def both(attacked: Attacked) -> None:
        foreign_up(attacked)
        foreign_down(attacked)

    world = Attacked(busy_plan(tmp_path, text=PLAIN), monkeypatch, both).run()
    assert {check.name for check in world.checks if check.failed} <= {"no-epoch-change"}
    assert world.converged_us is not None and world.not_done == []


def test_an_attack_that_succeeds_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: one update of an item that no application wrote."""
    plan = busy_plan(tmp_path, text=PLAIN)
    calm = Attacked(plan, monkeypatch, None).run()
    attacked = Attacked(plan, monkeypatch, None)
    world = attacked.run()
    item = next(item for item in world.table.scan() if item["_type"] == "Status")
    world.table.execute(Update((item["pk"], item["sk"]), {"rev": 1}), 0)
    assert truth(world) != truth(calm)
