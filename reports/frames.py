"""A run's values as pandas frames: intervals put together for a plot, recoveries side by side, tables of the report.

pandas is imported by the functions that need it. Values in, frames out: no file, no drawing. Called by the plots and
the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from reports.histogram import quantile_us
from reports.result import FaultWindow, LatencySlot, Row
from reports.summary import Part

if TYPE_CHECKING:
    from pandas import DataFrame

POINTS_MAX: Final = 480  # of one curve: a plot is about that many pixels wide
Fold = Literal["rate", "per_minute", "max", "min", "mean"]
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def timeline(rows: Sequence[Row], devices: int) -> DataFrame:
    """One row an interval, by its start in seconds. Added where it can be: `waiting` (both backlogs), `in_step` (share
    of the devices, 0 to 1)."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), dtype=float)
    if "t_s" not in frame:
        return pd.DataFrame()
    frame = frame.set_index("t_s").replace([math.inf, -math.inf], math.nan)
    backlogs = [name for name in ("outbox", "feed_lag") if name in frame]
    if backlogs:
        frame["waiting"] = frame[backlogs].sum(axis=1, min_count=1)
    if "converged" in frame and devices:
        frame["in_step"] = (frame["converged"] / devices).clip(0, 1)
    return frame


def step_s(frame: DataFrame) -> float:
    """How long an interval is."""
    return max(1e-9, float(frame.index[1] - frame.index[0])) if len(frame) > 1 else 1.0


def folded(frame: DataFrame, folds: Mapping[str, Fold], points_max: int = POINTS_MAX) -> DataFrame:
    """The columns that `folds` names and `frame` has, in at most `points_max` rows; rates per second or per minute.
    Missing values stay missing: gaps, not zeros."""
    width = max(1, math.ceil(len(frame) / points_max))
    known = {name: fold for name, fold in folds.items() if name in frame}
    numbers = [n // width for n in range(len(frame))]
    parts = frame[list(known)].groupby(numbers)
    found = parts.agg({name: _NAMES[fold] for name, fold in known.items()})
    for name, fold in known.items():
        if fold in _SCALES:
            found[name] *= _SCALES[fold] / step_s(frame)
    found.index = frame.index[::width]
    return found


_NAMES: Final = {"rate": "mean", "per_minute": "mean", "max": "max", "min": "min", "mean": "mean"}
_SCALES: Final = {"rate": 1.0, "per_minute": 60.0}


def percentiles(slots: Sequence[LatencySlot], way: str) -> DataFrame:
    """Of each slot, in seconds, by its start: p50, p90, p99; missing where nothing was measured."""
    import pandas as pd

    counts = [slot.up if way == "up" else slot.down for slot in slots]
    columns = {
        name: [quantile_us(one, share) / 1e6 if one else math.nan for one in counts]
        for name, share in QUANTILES.items()
    }
    return pd.DataFrame(columns, index=[slot.t_s for slot in slots], dtype=float)


def slower(counts: Sequence[tuple[int, int]]) -> DataFrame:
    """Of a distribution: at each latency in seconds, the share (0 to 1) of what took longer."""
    import pandas as pd

    frame = pd.DataFrame(list(counts), columns=["us", "count"], dtype=float)
    longer = frame["count"].sum() - frame["count"].cumsum()
    return pd.DataFrame({"share": longer / max(1.0, float(frame["count"].sum()))}).set_index(frame["us"] / 1e6)


def recoveries(frame: DataFrame, heals: Sequence[tuple[str, float]], column: str, until_s: float) -> DataFrame:
    """`column` after each heal, one column of the result each, by seconds since the heal, from 0 to `until_s`."""
    import pandas as pd

    found: dict[int, Any] = {}
    width_s = step_s(frame)
    for number, (_, healed_s) in enumerate(heals):
        # The interval in which it healed is shown at 0, what an interval says at its end one width later.
        part = frame.loc[(frame.index > healed_s - width_s) & (frame.index <= healed_s + until_s), column]
        found[number] = pd.Series(part.to_numpy(), index=(part.index - healed_s).to_numpy().clip(0))
    return pd.DataFrame({number: one[~one.index.duplicated()] for number, one in found.items()}).sort_index()


def heals_of(faults: Sequence[FaultWindow], most: int) -> list[tuple[str, float, float | None]]:
    """(Name, healed, in step again) of the heals, one a moment, the latest of too many, in order of time."""
    moments: dict[float, tuple[str, float, float | None]] = {}
    for fault in faults:
        if fault.healed_s is not None:
            moments.setdefault(fault.healed_s, (fault.name, fault.healed_s, fault.recovered_s))
    return [moments[at_s] for at_s in sorted(moments)][-most:]


def parts(found: Mapping[str, Part]) -> DataFrame:
    """Groups or models, one row each, with their counts and the percentiles of both ways (`up_p50` ...; seconds)."""
    import pandas as pd

    rows = []
    for part in found.values():
        row: dict[str, float] = dict(part.counts)
        for way, values in (("up", part.latency_s.up), ("down", part.latency_s.down)):
            if values.count:
                row.update({f"{way}_p50": values.p50, f"{way}_p99": values.p99, f"{way}_max": values.max})
        rows.append(row)
    return pd.DataFrame(rows, index=list(found))
