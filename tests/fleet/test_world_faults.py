"""Faults as the world carries them out: windows that overlap, clocks, and applications that the table refuses."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_rig import BUSY, CALM, busy_plan, failures, ran, run_plan

from agent.protocol.errors import InputError
from cloud.table import Get
from fleet.scenario.plan import FaultPlan, Plan
from fleet.trace import Trace
from fleet.world import disk
from fleet.world.clock import Clock
from fleet.world.faults import Faults
from fleet.world.world import World

SECOND = 1_000_000
MINUTE = 60 * SECOND


@dataclasses.dataclass
class Cloud:
    """What the faults ask of it."""

    share: float = 0.0
    silent: float = 0.0
    replayed: tuple[float, int, int] = (0.0, 0, 0)
    late: tuple[int, int] = (0, 0)

    def throttle(self, share: float) -> None:
        self.share = share

    def silence(self, share: float) -> None:
        self.silent = share

    def replay(self, share: float, low: int, high: int) -> None:
        self.replayed = (share, low, high)

    def delay_stream(self, low: int, high: int) -> None:
        self.late = (low, high)

    @property
    def state(self) -> tuple[Any, ...]:
        return dataclasses.astuple(self)


def fault(name: str, kind: str, begin_s: int, length_s: int, **params: Any) -> FaultPlan:
    begin, length = begin_s * SECOND, length_s * SECOND
    event = (begin, "", length)
    return FaultPlan(name=name, kind=kind, at_us=begin, until_us=begin + length, params=params, events=[event])


def begun(plans: list[FaultPlan]) -> tuple[Clock, Cloud, list[str]]:
    clock, cloud, healed = Clock(1), Cloud(), list[str]()
    Faults(
        plans,
        clock=clock,
        seed=1,
        devices={},
        broker=None,  # type: ignore[arg-type]  # not touched by faults of the cloud
        cloud=cloud,  # type: ignore[arg-type]
        trace=Trace(clock),
        on_heal=healed.append,
        clone=lambda device: None,
        damage=lambda device, plan: None,
        damage_again=lambda device, copied_us: None,
    )
    return clock, cloud, healed


def at(clock: Clock, cloud: Cloud, seconds: int) -> tuple[Any, ...]:
    clock.run_until(seconds * SECOND + SECOND // 2)
    return cloud.state


def test_the_first_of_two_overlapping_windows_to_end_leaves_the_other_open() -> None:
    clock, cloud, healed = begun(
        [fault("a", "table-throttle", 10, 20, share=0.5), fault("b", "table-throttle", 20, 30, share=0.2)]
    )
    assert at(clock, cloud, 5)[0] == 0.0
    assert at(clock, cloud, 15)[0] == 0.5
    assert at(clock, cloud, 25)[0] == pytest.approx(0.6)  # half, and a fifth of the other half
    assert at(clock, cloud, 35)[0] == 0.2 and healed == ["a"]
    assert at(clock, cloud, 55)[0] == 0.0 and healed == ["a", "b"]


def test_delays_of_the_stream_add_up_and_replays_reach_as_far_as_the_furthest() -> None:
    clock, cloud, _ = begun(
        [
            fault("a", "stream-delay", 10, 20, delay_min_us=1, delay_max_us=5),
            fault("b", "stream-delay", 20, 20, delay_min_us=2, delay_max_us=2),
            fault("c", "stream-replay", 10, 20, share=0.1, late_min_us=5, late_max_us=9),
            fault("d", "stream-replay", 20, 20, share=0.1, late_min_us=2, late_max_us=7),
        ]
    )
    assert at(clock, cloud, 15)[2:] == ((0.1, 5, 9), (1, 5))
    assert at(clock, cloud, 25)[2:] == ((pytest.approx(0.19), 2, 9), (3, 7))
    assert at(clock, cloud, 35)[2:] == ((0.1, 2, 7), (2, 2))
    assert at(clock, cloud, 45)[2:] == ((0.0, 0, 0), (0, 0))


@given(windows=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50), st.floats(0.01, 1.0)), max_size=6))
@settings(max_examples=30)
def test_whatever_overlaps_what_is_open_counts_and_nothing_is_left(windows: list[tuple[int, int, float]]) -> None:
    plans = [
        fault(str(n), kind, begin, length, share=share)
        for n, (begin, length, share) in enumerate(windows)
        for kind in ("table-throttle", "table-silence")
    ]
    plans = [msgspec.structs.replace(plan, name=f"{plan.name}-{plan.kind}") for plan in plans]
    clock, cloud, _ = begun(plans)
    for second in range(101):
        left = 1.0
        for begin, length, share in windows:
            if begin <= second < begin + length:
                left *= 1.0 - share
        assert at(clock, cloud, second)[:2] == (pytest.approx(1.0 - left), pytest.approx(1.0 - left))
    assert cloud.state == Cloud().state


def test_overlapping_windows_in_a_whole_run_heal(tmp_path: Path) -> None:
    text = BUSY.replace(
        "faults:\n",
        "faults:\n"
        "  - {name: t1, kind: table-throttle, share: 30%, at: 3m, duration: 4m}\n"
        "  - {name: t2, kind: table-throttle, share: 30%, at: 5m, duration: 4m}\n"
        "  - {name: d1, kind: stream-delay, delay: [1s, 2s], at: 3m, duration: 4m}\n"
        "  - {name: d2, kind: stream-delay, delay: [1s, 2s], at: 5m, duration: 4m}\n",
    )
    result = run_plan(busy_plan(tmp_path, text=text))
    assert (result.summary.verdict, failures(result.summary)) == ("pass", [])
    assert {window.name for window in result.faults if window.healed_s} >= {"t1", "t2", "d1", "d2"}


# ---------------------------------------------------------------- applications and the table


def throttled(tmp_path: Path, share: str) -> World:
    text = CALM.replace(
        "phases:", f"faults:\n  - {{kind: table-throttle, share: {share}, at: 2m, duration: 5m}}\nphases:"
    )
    return ran(busy_plan(tmp_path, text=text))


def test_throttling_reaches_applications_and_loses_none_of_their_writes(tmp_path: Path) -> None:
    calm, world = ran(busy_plan(tmp_path, text=CALM)), throttled(tmp_path, "60%")
    assert world.probes["throttled"] > 50 and not [check for check in world.checks if check.failed]
    # Told to the oracle when the table takes it: never before, never twice, never not at all.
    assert world.oracle.cloud_writes == pytest.approx(calm.oracle.cloud_writes, abs=5)


def test_an_application_that_is_refused_for_minutes_writes_in_order_afterwards(tmp_path: Path) -> None:
    world = throttled(tmp_path, "99%")
    commits: dict[str, list[int]] = {}
    assert world.converged_us is not None and not [check for check in world.checks if check.failed]
    for item in world.table.scan():
        if item["_type"] == "Config":
            commits.setdefault(item["pk"], []).append(item["rev"])
    calm = ran(busy_plan(tmp_path, text=CALM))
    last = {item["pk"]: item["rev"] for item in calm.table.scan() if item["_type"] == "Config"}
    assert {pk: revs[-1] for pk, revs in commits.items()} == last


# ---------------------------------------------------------------- clocks


def clocks(plan: Plan, marks_us: list[int]) -> list[tuple[int, int]]:
    """The wall clock and the monotonic clock of the first device at each mark."""
    world = World(plan)
    device = world.devices["home-0001"]
    seen = []
    for mark in marks_us:
        world.clock.run_until(mark)
        seen.append((device.wall_ms(), device.monotonic_ms()))
    return seen


def test_a_rate_that_changes_counts_from_the_next_boot_and_ends_with_the_fault(tmp_path: Path) -> None:
    world = World(busy_plan(tmp_path, text=CALM))
    device = world.devices["home-0001"]
    world.clock.run_until(MINUTE)
    before = device.wall_ms()
    device.shift_clock(5 * SECOND, 1_000_000)  # 1000 ppm
    assert device.wall_ms() - before == 5_000
    monotonic = device.monotonic_ms()
    world.clock.run_until(3 * MINUTE)
    assert device.monotonic_ms() - monotonic == 2 * 60_000, "a running clock does not change its rate"
    device.power_off()
    wall = device.wall_ms()
    device.boot()
    assert abs(device.wall_ms() - wall) <= 1, "nor does it jump at the boot"
    world.clock.run_until(5 * MINUTE)
    assert device.monotonic_ms() == 2 * 60_000 + 120
    assert device.wall_ms() - wall == pytest.approx(2 * 60_000 + 120, abs=2)
    device.shift_clock(0, -1_000_000)
    device.power_off()
    device.boot()
    world.clock.run_until(7 * MINUTE)
    assert device.monotonic_ms() == 2 * 60_000


def test_a_clock_fault_sets_the_clock_right_again_whether_the_device_was_on_or_off(tmp_path: Path) -> None:
    text = CALM.replace(
        "phases:",
        "faults:\n"
        "  - {kind: clock, at: 3m, jump: 10m, drift: 200ppm, duration: 5m}\n"
        "  - {kind: power-cut, at: 4m, off: 20s}\n"
        "  - {kind: reboots, at: 9m, off: 5s}\nphases:",
    )
    try:
        plan = busy_plan(tmp_path, text=text)
    except InputError as error:
        raise AssertionError([str(problem) for problem in error.problems]) from None
    calm = clocks(busy_plan(tmp_path, text=CALM), [2 * MINUTE, 11 * MINUTE])
    seen = clocks(plan, [2 * MINUTE, 7 * MINUTE, 11 * MINUTE])
    assert seen[0] == calm[0]
    assert seen[1][0] - calm[0][0] == pytest.approx(15 * 60_000, abs=100)
    # What the drift had gained by then stays; the jump and the rate are taken back.
    assert seen[2][0] == pytest.approx(calm[1][0], abs=100)


# ---------------------------------------------------------------- disks that are set back, or wiped


def with_faults(directory: Path, *faults: str) -> Plan:
    """The busy scenario with these faults instead of its own."""
    text = CALM.replace("phases:", "faults:\n" + "".join(f"  - {fault}\n" for fault in faults) + "phases:")
    return busy_plan(directory, text=text)


def test_a_device_whose_disk_is_set_back_takes_a_new_epoch_and_loses_nothing_of_the_cloud(tmp_path: Path) -> None:
    restore = "{kind: device-restore, at: 6m, back: 2m, off: [5s, 10s], target: {devices: home-0001}}"
    world = ran(with_faults(tmp_path, restore))
    assert [check.name for check in world.checks if check.status == "fail"] == []
    assert {name: device.identity_changes() for name, device in world.devices.items() if device.identity_changes()} == {
        "home-0001": 1
    }
    assert world.probes["rollback_seen"] == 1 and world.devices["home-0001"].reboots == 1


def test_a_device_that_is_wiped_begins_anew_under_its_name(tmp_path: Path) -> None:
    reset = "{kind: factory-reset, at: 6m, off: [5s, 10s], target: {devices: home-0001}}"
    world = ran(with_faults(tmp_path, reset))
    assert [check.name for check in world.checks if check.status == "fail"] == []
    assert world.probes["epoch_adopted"] == 1  # in the place of the one before
    assert world.probes["sweep_kept"] > 0  # what only the cloud has of it is marked, not lost


def test_a_copy_that_is_older_than_the_device_is_an_empty_disk(tmp_path: Path) -> None:
    restore = "{kind: device-restore, at: 6m, back: 1h, target: {devices: home-0001}}"
    world = ran(with_faults(tmp_path, restore))
    assert [check.name for check in world.checks if check.status == "fail"] == []
    assert world.probes["epoch_adopted"] == 1  # in the place of the one before


def test_a_device_that_is_off_is_not_restored(tmp_path: Path) -> None:
    cut = "{kind: power-cut, at: 5m, off: 3m, target: {devices: home-0001}}"
    restore = "{kind: device-restore, at: 6m, back: 2m, off: 10s, target: {devices: home-0001}}"
    world = ran(with_faults(tmp_path, cut, restore))
    assert world.devices["home-0001"].reboots == 1 and world.probes["rollback_seen"] == 0


# ---------------------------------------------------------------- disks that are full


def test_a_full_disk_refuses_writes_holds_up_what_comes_and_is_in_step_when_there_is_room(tmp_path: Path) -> None:
    full = "{kind: disk-full, at: 4m, duration: 3m, target: {devices: home-0001}}"
    world = World(with_faults(tmp_path, full))
    behind: list[int] = []

    def look(progress: object) -> None:
        if world.devices["home-0001"].full:
            database, key = world.devices["home-0001"].database, ("device#home-0001", "config#")
            assert database is not None
            image = database.store.visible(*key).image
            held = world.table.execute(Get(key), world.now_ms())
            behind.append(int(image is None or held is None or msgspec.json.decode(image)["rev"] != held["rev"]))

    world.finish(world.run(look))
    assert [check.name for check in world.checks if check.status == "fail"] == []
    assert world.probes["disk_full_write_refused"] > 0 and world.probes["disk_full_session_ended"] > 2
    assert any(behind) and world.devices["home-0001"].reboots == 0 and world.devices["home-0001"].full == 0
    untouched = ran(with_faults(tmp_path, "{kind: disconnects, at: 4m}"))
    assert untouched.probes["disk_full_write_refused"] == untouched.probes["disk_full_session_ended"] == 0


def test_a_disk_that_is_full_from_the_start_lets_no_agent_begin_until_there_is_room(tmp_path: Path) -> None:
    world = ran(with_faults(tmp_path, "{kind: disk-full, at: 1ms, duration: 2m, target: {group: home}}"))
    assert world.probes["disk_full_boot_failed"] >= 4
    assert [check.name for check in world.checks if check.status == "fail"] == []
    assert all(device.powered and not device.outbox_rows() for device in world.devices.values())


def test_faults_that_fill_one_disk_at_once_end_when_the_last_one_does_and_a_new_disk_is_full_too(
    tmp_path: Path,
) -> None:
    first = "{name: a, kind: disk-full, at: 4m, duration: 2m, target: {devices: home-0001}}"
    second = "{name: b, kind: disk-full, at: 5m, duration: 3m, target: {devices: home-0001}}"
    reset = "{kind: factory-reset, at: 5m30s, off: 5s, target: {devices: home-0001}}"
    world = World(with_faults(tmp_path, first, second, reset))
    seen: set[tuple[int, int]] = set()

    def look(progress: object) -> None:
        seen.add((world.clock.now // 60_000_000, world.devices["home-0001"].full))

    world.finish(world.run(look))
    assert {(5, 2), (6, 1), (7, 1), (8, 0)} <= seen and not {(9, 1), (9, 2)} & seen
    assert world.probes["disk_full_boot_failed"] > 0
    assert [check.name for check in world.checks if check.status == "fail"] == []


def test_only_a_full_disk_is_excused_of_the_errors_of_a_database(tmp_path: Path) -> None:
    device = ran(busy_plan(tmp_path, text=CALM)).devices["home-0001"]
    broken = sqlite3.OperationalError("no such table: item")
    for what in (disk.refused, disk.failed, disk.not_opened):
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            what(device, broken)
