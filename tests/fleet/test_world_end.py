"""The final read: it does not come upon devices in the middle of a feed that has only just begun anew."""

from __future__ import annotations

import msgspec
import pytest
from run_rig import CALM, busy_plan

from fleet.scenario.plan import Plan
from fleet.world.world import LOOK_EVERY_US, World

# Feeds expire while nobody writes any more; each hello afterwards finds one that has to begin anew.
FORGETFUL = CALM.replace("quiesce: 3m", "quiesce: 15m") + (
    "cloud: {feed_retention: 4m, record_life: 1m, worker_life: 30s, ttl_margin: 1m}\nagent: {hello_every: 3m}\n"
)
STEP_US = 20_000


class Watched(World):
    """Notes when it was found to have converged, and when a device fell behind after that."""

    verdict_us = behind_us = 0

    def _advance(self, until_us: int) -> None:
        while self.clock.now < until_us:
            if self.converged_us is not None and not self.behind_us:
                self.verdict_us = self.verdict_us or self.clock.now
                if any(not self._in_step(device) for device in self.devices.values()):
                    self.behind_us = self.clock.now
            super()._advance(min(self.clock.now + STEP_US, until_us))


class AtOnce(World):
    def _outlive(self, limit_us: int) -> None: ...


@pytest.fixture(scope="module")
def ends_between(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Its quiet ends while a device is told of the new epoch of its feed."""
    plan = busy_plan(tmp_path_factory.mktemp("end"), 1, FORGETFUL)
    world = Watched(plan)
    world.run()
    assert 0 < world.verdict_us < world.behind_us < world.verdict_us + plan.quiesce_us
    return msgspec.structs.replace(plan, quiesce_us=world.behind_us - world.verdict_us)


def test_a_run_whose_checks_pass_lists_no_device_that_was_about_to_be_in_step(ends_between: Plan) -> None:
    world = World(ends_between)
    world.run()
    world.finish()
    assert world.not_done == [] and not any(check.failed for check in world.checks)
    assert world.clock.now - (world.converged_us or 0) < ends_between.quiesce_us + 30 * LOOK_EVERY_US


def test_the_moment_is_there(ends_between: Plan) -> None:
    world = AtOnce(ends_between)
    world.run()
    world.finish()
    assert [row.reason for row in world.not_done] and {row.reason for row in world.not_done} == {"feed-behind"}
    assert not any(check.failed for check in world.checks)  # the data are equal all the same


def test_a_device_that_never_gets_there_stays_listed(ends_between: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(msgspec.structs.replace(ends_between, converge_within_us=ends_between.quiesce_us))
    lost = world.devices["home-0002"]
    in_step = World._in_step
    limit = ends_between.duration_us + ends_between.quiesce_us
    monkeypatch.setattr(
        World, "_in_step", lambda self, device: in_step(self, device) and (device is not lost or self.clock.now < limit)
    )
    world.run()
    world.finish()
    assert [row.device for row in world.not_done] == ["home-0002"]
