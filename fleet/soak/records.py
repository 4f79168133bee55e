"""What a night leaves behind in numbers: its line in the history, and its part of `summary.json`.

Pure but for the count of the corpus's folders. Called by `fleet soak`.
"""

from __future__ import annotations

import platform
from typing import Any, Final

import msgspec

from fleet.native.finder import compiled
from fleet.soak.corpus import FAILING, FIXED, Corpus
from fleet.soak.night import Night
from reports.nights import NightRow
from reports.summary import EXIT_FAIL, EXIT_HARNESS, EXIT_INTERRUPTED, EXIT_PASS, EXIT_UNKNOWN

_VERDICTS: Final = {
    EXIT_PASS: "pass",
    EXIT_FAIL: "fail",
    EXIT_UNKNOWN: "unknown",
    EXIT_HARNESS: "error",
    EXIT_INTERRUPTED: "interrupted",
}


def row(night: Night, jobs: int, corpus: Corpus) -> NightRow:
    """The night as a line of the history, when it is over."""
    sweep, canary = night.sweep, night.canary
    return NightRow(
        night=night.called.number,
        started=night.called.found,
        seed=night.called.seed,
        verdict=_VERDICTS[night.exit_code()],
        release=night.called.release,
        python=platform.python_version(),
        core="compiled" if compiled() else "interpreted",
        jobs=jobs,
        wall_s=round(sweep.wall_s, 1),
        runs=sweep.runs,
        failed=sweep.failed,
        errors=sweep.errors,
        mismatches=sweep.mismatches,
        kinds=[str(kind) for kind in sweep.failures],
        new=[str(kind) for kind in night.news.new],
        events_per_s=round(night.reference_events_per_s, 1),
        updates_per_s=round(sweep.synced / sweep.cpu_s, 2) if sweep.cpu_s else 0.0,
        rss_mb=round(night.rss_mb, 1),
        drift=night.drift.status,
        drift_detail=night.drift.detail,
        canary=night.canary_plant,
        canary_seeds=canary.seeds if canary is not None else -1,
        failing=len(corpus.entries(FAILING)),
        fixed=len(corpus.entries(FIXED)),
        probes={name: round(runs / sweep.runs, 4) for name, runs in sorted(sweep.probes_hit().items()) if runs},
    )


def about(night: Night, jobs: int) -> dict[str, Any]:
    """What stands before the counts in `summary.json`."""
    return {"night": night.called.number, "seed": night.called.seed, "started": night.called.found, "jobs": jobs}


def more(night: Night) -> dict[str, Any]:
    """What stands behind them; the verdict is that of the night."""
    news = night.news
    return {
        "verdict": _VERDICTS[night.exit_code()],
        "harness_problems": night.harness_problems(),
        "canary": {"plant": night.canary_plant, **(msgspec.to_builtins(night.canary) if night.canary else {})},
        "drift": msgspec.to_builtins(night.drift),
        "corpus": {
            "retried": news.retried,
            "failing": [str(kind) for kind in news.failing],
            "fixed": [str(kind) for kind in news.fixed],
            "returned": [str(kind) for kind in news.returned],
            "new": [str(kind) for kind in news.new],
            "unreadable": news.unreadable,
        },
    }
