"""Runs and comparisons of invented figures. Used by the tests of `fleet compare`. Holds no state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports.compare import Comparison, Rule, compare
from reports.compare_runs import Difference, Group, PlanHead, Run, differences
from reports.result import FaultWindow, RunResult
from reports.summary import Counts, Latency, Part, Percentiles, Summary

YAML = "name: outage\nduration: 1h\ncloud: {workers: 2}\ndevices:\n- name: home\n  link: {delay: 5ms}\n"
UP: str = "latency_s.up.p99"
FIVE = (1.0, 1.1, 0.95, 1.05, 0.9)


def run_of(seed: int = 1, p99: float = 1.0, **changes: Any) -> Run:
    """A run whose latencies and messages are what they are."""
    latency = Percentiles(count=100, p50=p99 / 10, p90=p99 / 2, p99=p99, p999=p99, max=p99)
    values = {
        "scenario": "outage",
        "seed": seed,
        "verdict": "pass",
        "devices": 10,
        "counts": Counts(updates_synced=100, messages_up=1000, messages_down=2000),
        "latency_s": Latency(up=latency, down=latency),
        "converged_after_s": 60.0,
    }
    summary = Summary(
        **{**values, **{key: value for key, value in changes.items() if key in Summary.__struct_fields__}}
    )
    return Run(
        Path(f"runs/{seed}"),
        summary,
        changes.get("faults", []),
        changes.get("versions", {"fleet": "1"}),
        changes.get("plan", PlanHead(duration_us=3_600_000_000)),
        changes.get("yaml", YAML),
        changes.get("timeline", []),
    )


def group(name: str, *runs: Run) -> Group:
    return Group(name, list(runs), [])


def seeds(name: str, *p99: float, **changes: Any) -> Group:
    return group(name, *(run_of(seed, value, **changes) for seed, value in enumerate(p99, start=1)))


def whole(*, hostile: RunResult | None = None) -> tuple[Comparison, list[Run], list[Run]]:
    """A regression with everything that can be shown; with every text of a hostile run."""
    text = hostile.summary.scenario if hostile is not None else ""
    base, new = (Group(text or "side", [_long(seed, p99 * factor, text) for seed, p99 in enumerate(FIVE, start=1)],
                       [text] if text else []) for factor in (1.0, 3.0))  # fmt: skip
    unlike = differences(base, new) + ([Difference(text, text, text)] if text else [])
    return compare(base, new, [Rule(text or "up > +10%", UP, ">", 10, "percent")], unlike), base.runs, new.runs


def _long(seed: int, p99: float, text: str) -> Run:
    rows = [{"t_s": 10.0 * n, "online": n % 9, "synced": n, "up_p99_s": p99} for n in range(40)]
    run = run_of(seed, p99, timeline=rows, faults=[FaultWindow(name="cut", kind="x", start_s=9, end_s=50)])
    if text:
        run.summary.scenario = run.summary.plant = text
        run.summary.probes = {text: seed, f"{text}b": int(p99) * 900}
        run.summary.groups = {text: Part(counts={}, latency_s=run.summary.latency_s)}
        run.versions[text] = f"{text}{p99}"
        run.faults.append(FaultWindow(name=text, kind=text, start_s=60, end_s=90, healed_s=90, recovered_s=95))
    return run
