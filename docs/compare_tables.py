"""What docs/compare.md says of the metrics that are compared: from the table that decides. Called by docs.generate."""

from __future__ import annotations

from docs.markdown import code, table
from reports.compare_metrics import METRICS, PERCENTILES, Metric


def metrics() -> str:
    """Which way is worse of each."""
    rows = [[names, _worse(metric)] for names, metric in _merged()]
    rows += [
        ["`latency_s.up.p50`, `p99`, `down` ... ` of group NAME`, ` of model NAME`", "more is worse"],
        ["`recovered_s of fault NAME`", "more is worse; never in step again is the worst"],
        ["`probes.NAME`", "neither: shown when it changed"],
    ]
    return table(["metric", ""], rows)


def _merged() -> list[tuple[str, Metric]]:
    """Percentiles of one way in one row."""
    found: dict[str, tuple[list[str], Metric]] = {}
    for metric in METRICS:
        stem, _, last = metric.name.rpartition(".")
        key = stem if last in PERCENTILES else metric.name
        names = found.setdefault(key, ([], metric))[0]
        names.append(last if names and last in PERCENTILES else metric.name)
    return [(", ".join(code(name) for name in names), metric) for names, metric in found.values()]


def _worse(metric: Metric) -> str:
    if not metric.worse:
        return "neither"
    text = f"{metric.worse} is worse"
    return text if metric.decides else f"{text}; of the machine, decides nothing"
