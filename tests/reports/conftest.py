"""Sample runs with invented but likely values. Pure functions of their arguments: no clock, no chance."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from page_rig import Browser

from reports.result import (
    Checkpoint,
    DeviceRow,
    FaultWindow,
    LatencyPhase,
    LatencySlot,
    Row,
    RunResult,
    StoryEvent,
    Violation,
)
from reports.summary import Check, Counts, Latency, Part, Percentiles, Summary, Threshold, verdict

CONSOLE = re.compile(r"CONSOLE[:(].*")
HOSTILE = "<img src=x onerror=alert(1)>\"'&]]>\x1b[31m\n=cmd|' /C calc'!A0 $\\frac{1$ \u202eevil 名前" + "x" * 3000

# name, kind, from, to, healed, in step again, devices
_WINDOWS = (
    ("bursty loss", "messages", 0, 3600, 3600, None, 2000),
    ("region down", "broker-outage", 900, 1500, 1512, 1561, 2000),
    ("tower 3", "link-down", 2100, 2460, 2460, 2478, 412),
    ("power cut", "power-cut", 2280, 2520, 2610, 2634, 160),
    ("relay crash", "relay-kill", 3000, 3005, 3035, 3037, 0),
)
FAULTS = [
    FaultWindow(name=name, kind=kind, start_s=start, end_s=end, healed_s=healed, recovered_s=recovered, devices=devices)
    for name, kind, start, end, healed, recovered, devices in _WINDOWS
]

CHECK_NAMES = (
    "convergence", "no-acked-write-lost", "every-write-decided", "nothing-invented", "read-your-writes", "feed-dense",
    "writes-survive-power-cuts", "monotone-reads", "no-resurrection", "no-double-apply", "direction", "conservation",
)  # fmt: skip


def _wobble(t_s: float, phase: float) -> float:
    """Between -1 and 1, uneven enough to look like a measurement."""
    return 0.6 * math.sin(t_s / 37 + phase) + 0.4 * math.sin(t_s / 11.3 + 2.1 * phase)


def sample_timeline(rows: int = 360, step_s: float = 10.0) -> list[Row]:
    timeline: list[Row] = []
    outbox = 0.0
    for i in range(rows):
        t = i * step_s
        online = 2000.0 * min(1.0, (t + step_s) / 60)
        if 900 <= t < 1512:
            online = 0.0
        elif 1512 <= t < 1600:
            online = 2000 * (t - 1500) / 100
        if 2100 <= t < 2460:
            online -= 412
        if 2280 <= t < 2610:
            online -= 160 * (1 if t < 2520 else (2610 - t) / 90)
        written = step_s * (36 + 3 * _wobble(t, 1))
        sent = written if online > 500 else 0.0
        burst = min(outbox, step_s * 450) if online > 500 else 0.0
        outbox = max(0.0, outbox + written - sent - burst)
        storm = burst / 5
        slow = 1 + 8 * (burst > 100)
        timeline.append(
            {
                "t_s": t,
                "online": max(0, round(online)),
                "writes_device": round(written),
                "writes_cloud": round(step_s * (5 + _wobble(t, 3))),
                "messages_up": round(sent + storm),
                "messages_down": round(sent + storm * 2 + 50),
                "messages_lost": round(sent * 0.02),
                "retransmits": round(storm * 0.2 + 4 + 3 * _wobble(t, 5)),
                "synced": round(sent + burst + 50),
                "outbox": round(outbox + 12 + 6 * _wobble(t, 2) + (412 * (t - 2100) / 60 if 2100 <= t < 2460 else 0)),
                "feed_lag": round(30 + 12 * _wobble(t, 4) + (3100 * (t - 900) / 612 if 900 <= t < 1512 else 0)),
                "converged": max(0, round(online - outbox / 4)),
                "snapshots": 4 if t < 60 else 0,
                "duplicates": round(storm / 9),
                "throttled": 2 if storm else 0,
                "connects": round(storm * 3 if 1512 <= t < 1600 else 2 + _wobble(t, 7)),
                "disconnects": 2000 if t == 900 else round(2 + _wobble(t, 8)),
                "up_p50_s": 0.11 * slow,
                "up_p99_s": (0.8 + 0.2 * _wobble(t, 1)) * slow,
                "up_p90_s": 0.4 * slow,
                "down_p90_s": 0.9 * slow,
                "down_p50_s": 0.35 * slow,
                "down_p99_s": (1.4 + 0.5 * _wobble(t, 6)) * slow,
            }
        )
    return timeline


def sample_counts(middle_us: int, spread: float = 0.7, total: int = 4000) -> list[tuple[int, int]]:
    """A distribution about `middle_us` with a long tail: (value, how often)."""
    found = []
    for step in range(-30, 60):
        count = round(total * math.exp(-((step / 10) ** 2) / (2 * spread**2)) * (0.2 if step > 20 else 1))
        if count or step % 7 == 0:
            found.append((max(1, round(middle_us * 10 ** (step / 10))), max(1, count)))
    return found


def _latency(p50: float) -> Latency:
    values = Percentiles(count=4_000, p50=p50, p90=3 * p50, p99=10 * p50, p999=300 * p50, max=900 * p50)
    return Latency(up=values, down=values)


def _phases() -> list[LatencyPhase]:
    return [
        LatencyPhase(
            name=name, seconds=seconds, latency_s=_latency(us / 1e6), up=sample_counts(us), down=sample_counts(3 * us)
        )
        for name, seconds, us in (("before", 900.0, 110_000), ("during", 1170.0, 600_000), ("after", 1530.0, 130_000))
    ]


def _parts(*names: str) -> dict[str, Part]:
    counts = {
        "local_writes": 65_602, "updates_synced": 81_655, "devices": 1_000, "not_in_step": 1, "messages_up": 70_055,
        "messages_down": 85_935, "messages_lost": 1_405, "bytes_up": 30_616_560,
        "bytes_down": 24_000_772, "reboots": 80,
    }  # fmt: skip
    return {name: Part(counts=counts, latency_s=_latency(0.11)) for name in names}


ITEM = "device#home-0417/setting#heat"


def _story() -> list[StoryEvent]:
    up = '{"t":"up","first_u":88,"ops":[{"u":88,"kind":"update","key":["device#home-0417","setting#heat"]}]}'
    events = (
        (1_490_000_000, "boot", "home-0417", ""),
        (1_498_200_000, "write", "home-0417", "setting#heat 9123"),
        (1_499_000_000, "connect", "home-0417", ""),
        (1_499_100_000, "to-cloud", "home-0417", up),
        (1_499_200_000, "commit", "device#home-0417", "setting#heat 9123"),
        (1_507_000_000, "commit", "device#home-0417", "setting#heat None"),
        (1_508_000_000, "fault", "power cut", "home-0417"),
    )
    return [StoryEvent(t_us=t_us, kind=kind, entity=entity, detail=detail) for t_us, kind, entity, detail in events]


def _checks(failing: bool) -> list[Check]:
    checks = [
        Check(name=name, status="pass", checked=411_204 // (i + 1), required=i < 3)
        for i, name in enumerate(CHECK_NAMES)
    ]
    checks.append(Check(name="no-epoch-change", status="unknown"))
    if failing:
        detail = (
            "device home-0417, item (device#home-0417, setting#heat): expected revision 9123 (operation 88, "
            "acknowledged at 25m 7s), found revision 8711\n"
            "device home-0901, item (device#home-0901, status#): expected revision 9502, found nothing"
        )
        checks[1] = Check(
            name="no-acked-write-lost", status="fail", checked=205_602, failures=2, detail=detail, required=True
        )
    return checks


def build_sample(failing: bool = False, rows: int = 360) -> RunResult:
    checks = _checks(failing)
    thresholds = [
        Threshold(expr="latency_s.up.p99 < 5", status="pass", actual=1.262),
        Threshold(
            expr="converged_after_s < 120", status="fail" if failing else "pass", actual=131.5 if failing else 61.4
        ),
    ]
    summary = Summary(
        scenario="outage",
        seed=7,
        verdict=verdict(checks, thresholds),
        trace_hash="9b1f0c7d5e3a48f2b6d41a90c3e7f8125d60b1a2",
        devices=2000,
        virtual_s=3600.0,
        wall_s=31.4,
        cpu_s=30.9,
        rss_mb_max=412.5,
        counts=Counts(
            local_writes=131_204, cloud_writes=17_922, updates_synced=163_311, messages_up=140_110,
            messages_down=171_870, messages_lost=2_811, bytes_up=61_233_120, bytes_down=48_001_544, connects=6_412,
            disconnects=4_412, reboots=160, retransmits=3_204, snapshots=41, conflicts=212,
        ),
        latency_s=Latency(
            up=Percentiles(count=130_912, p50=0.112, p90=0.402, p99=1.262, p999=611.2, max=618.9),
            down=Percentiles(count=32_399, p50=0.351, p90=0.911, p99=2.61, p999=620.4, max=634.0),
        ),
        converged_after_s=131.5 if failing else 61.4,
        probes={
            "snapshot_loaded": 41, "retransmit": 3204, "conflict_lost": 212, "duplicate_dropped": 1822, "gap_seen": 977,
            "worker_killed_mid_batch": 3, "zombie_resumed": 0, "lease_taken_over": 2, "throttled": 0, "answer_lost": 17,
        },
        checks=checks,
        thresholds=thresholds,
        reproduce="fleet run scenarios/outage.yaml --seed 7",
        groups=_parts("home", "van"),
        models=_parts("Status", "Setting"),
    )  # fmt: skip
    stuck = [
        DeviceRow(device=f"home-{i:04d}", group="home", reason="outbox not empty: last ack 612 s ago", state="backoff",
                  outbox=14 + i, cursor="device 3f2a/118, account 71c0/55", last_ack_s=2988.0)
        for i in (417, 901)
    ]  # fmt: skip
    return RunResult(
        summary=summary,
        timeline=sample_timeline(rows),
        faults=FAULTS,
        devices=stuck if failing else [],
        scenario_yaml="name: outage\nduration: 1h\ndevices:\n  - name: home\n    count: 2000\n",
        plan_json=b'{"seed":7,"devices":[]}',
        checkpoints=[Checkpoint(100_000, 91_000_000, "aa11"), Checkpoint(200_000, 180_400_000, "bb22")],
        log=["0s  2,000 devices boot", "15m  region down: broker outage"],
        phases=_phases(),
        slots=[LatencySlot(30.0 * n, sample_counts(110_000), sample_counts(350_000)) for n in range(120)],
        violations=[
            Violation(check="convergence", t_s=3600.0, device="home-0901"),
            Violation(
                check="no-acked-write-lost",
                t_s=1507.0,
                device="home-0417",
                item=ITEM,
                expected="rev 9123",
                found="none",
            ),
        ]
        if failing
        else [],
        story=_story() if failing else [],
        versions={"fleet-sync": "0.1.0", "python": "3.12.1", "sqlite": "3.45.1"},
    )


def build_hostile() -> RunResult:
    result = build_sample(failing=True)
    old = result.summary
    old.scenario = old.reproduce = old.backend = old.plant = old.trace_hash = HOSTILE
    old.probes = {HOSTILE: 1}
    old.groups = _parts(HOSTILE)
    old.models = _parts(HOSTILE)
    result.violations = [
        Violation(check=HOSTILE, t_s=1507.0, device=HOSTILE, item=HOSTILE, expected=HOSTILE, found=HOSTILE)
    ]
    kinds = ("write", "commit", "to-cloud", "deliver", "fault", HOSTILE)
    result.story = [StoryEvent(t_us=n, kind=kind, entity=HOSTILE, detail=HOSTILE) for n, kind in enumerate(kinds)]
    phase = result.phases[0]
    result.phases = [LatencyPhase(name=HOSTILE, seconds=9.0, latency_s=phase.latency_s, up=phase.up, down=phase.down)]
    old.checks = [Check(name=HOSTILE, status="fail", checked=1, detail=HOSTILE, failures=1), *old.checks]
    old.thresholds = [Threshold(expr=HOSTILE, status="fail", actual=float("1e300"))]
    result.faults = [FaultWindow(name=HOSTILE, kind=HOSTILE, start_s=900, end_s=1500, healed_s=1512, recovered_s=1561)]
    result.devices = [DeviceRow(device=HOSTILE, group=HOSTILE, reason=HOSTILE, state=HOSTILE, cursor=HOSTILE)]
    result.scenario_yaml = HOSTILE
    result.log = [HOSTILE]
    result.versions = {HOSTILE: HOSTILE}
    return result


@pytest.fixture
def sample() -> Callable[..., RunResult]:
    """Builds a sample run: `sample(failing=False, rows=360)`."""
    return build_sample


@pytest.fixture
def hostile() -> RunResult:
    """A run whose every text is an attack."""
    return build_hostile()


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Opens a page: `browser(html, *flags) -> (standard output, lines of the page's console)`."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is missing: the report was not opened in a browser")
        pytest.skip("chromium is missing: the report was not opened in a browser")

    def open_page(page: str, *flags: str) -> tuple[str, str]:
        path = tmp_path / "page.html"
        path.write_text(page, "utf-8")
        profile = tmp_path / "profile"
        shutil.rmtree(profile, ignore_errors=True)
        fixed = (
            "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run --disable-sync "
            "--disable-component-update --disable-dev-shm-usage --hide-scrollbars --enable-logging=stderr --v=0"
        )
        command = [program, *fixed.split(), f"--user-data-dir={profile}", *flags, path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout, "\n".join(CONSOLE.findall(done.stderr))

    return open_page
