"""Faults of a live run that reach the real parts of the cloud's side: the broker is gone altogether, a relay is frozen.
What is done is seen at the processes themselves, not in what the run reports of it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from live_run_rig import SHORT, failed, run

from fleet.live.processes import Part
from fleet.live.run import Live

WHOLE = SHORT + "faults:\n  - {kind: broker-outage, at: 2m, duration: 90s}\n"
FROZEN = SHORT + "faults:\n  - {kind: relay-stall, at: 2m, duration: 2m}\n"


@pytest.fixture(autouse=True)
def installed(mosquitto_is_there: None) -> None:
    """Runs start brokers of their own."""


def state_of(pid: int) -> str:
    """As the kernel has it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_whole_broker_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[str, int]] = []
    original = Part.kill

    def kill(part: Part) -> None:
        if part.alive:
            killed.append((part.name, part.pid))
        original(part)

    broker: list[tuple[int, int]] = []

    async def look(live: Live) -> None:
        part = live.cloud.broker
        assert part is not None
        broker.append((part.starts, part.pid))

    monkeypatch.setattr(Part, "kill", kill)
    result = run(tmp_path, WHOLE, tamper=look)
    assert result.summary.verdict == "pass", failed(result)
    ((starts, pid),) = broker
    assert starts == 2
    assert [name for name, old in killed if old != pid and name == "mosquitto"] == ["mosquitto"], killed
    (window,) = result.faults
    assert (window.kind, window.devices) == ("broker-outage", result.summary.devices)
    assert window.healed_s is not None and window.recovered_s is not None
    counts = result.summary.counts
    assert counts.connects >= 2 * result.summary.devices and counts.disconnects >= result.summary.devices
    live = result.summary.live
    assert live is not None and live.comparison is not None
    assert [total for total in live.comparison.totals if total.name.endswith("_writes") and total.equal]


def test_a_relay_is_frozen_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str, str]] = []
    pause, resume = Part.pause, Part.resume

    def paused(part: Part) -> None:
        pause(part)
        part.wait(lambda: state_of(part.pid) == "T", "is not stopped")
        seen.append(("pause", part.name, state_of(part.pid)))

    def resumed(part: Part) -> None:
        seen.append(("before", part.name, state_of(part.pid)))
        resume(part)
        part.wait(lambda: state_of(part.pid) != "T", "does not go on")
        seen.append(("resume", part.name, ""))

    monkeypatch.setattr(Part, "pause", paused)
    monkeypatch.setattr(Part, "resume", resumed)
    starts: list[int] = []

    async def look(live: Live) -> None:
        starts.extend(relay.starts for relay in live.cloud.relays)

    result = run(tmp_path, FROZEN, tamper=look)
    assert result.summary.verdict == "pass", failed(result)
    assert [what for what, _, _ in seen] == ["pause", "before", "resume"], seen
    assert {state for what, _, state in seen if what != "resume"} == {"T"}
    assert len({name for _, name, _ in seen}) == 1 and seen[0][1].startswith("relay-")
    assert starts == [1, 1], "the same process goes on"
    (window,) = result.faults
    assert window.kind == "relay-stall" and window.healed_s is not None
