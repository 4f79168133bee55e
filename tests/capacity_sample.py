"""A capacity plan with everything that can be shown, of invented but likely figures. Holds no state."""

from __future__ import annotations

from reports.capacity import FIGURES, BackOff, Break, Capacity, Compared, Figure, HeldOut, Reached, SizeRow
from reports.cost import AWS, CostItem
from reports.quotas import QuotaUse, Recovery

SIZES = (1_000, 10_000, 50_000, 1_000_000)
SIMULATED_UP_TO = 10_000


def sample_plan(text: str = "") -> Capacity:
    """`text`: every name of it, to see what that does."""
    uses = [
        QuotaUse(name=text or name, per=text or per, unit=text or unit, limit=limit, peak=1.0, source=text or "v")
        for name, per, unit, limit in (
            ("connects_per_s", "account", "connects/s", 500.0),
            ("table_writes_per_s", "table", "write units/s", 4_000.0),
            ("functions", "account", "instances", 1_000.0),
        )
    ]
    return Capacity(
        scenario=text or "outage",
        seed=1,
        preset=text or "aws-iot-default",
        duration_s=3_600.0,
        reproduce=text or "fleet capacity outage --devices 1000,10000,50000,1000000",
        rows=[_row(size, text) for size in SIZES],
        breaks=[
            Break(name=text or name, per=text or "account", devices=size, limit=500.0, unit="1/s", effect=text or "no")
            for name, size in (("connects_per_s", 900), ("connect_cap", 30_000), ("functions", 2_000_000))
        ],
        quotas=uses,
        floor_s=2_000.0,
        cap_s=60.0,
        back_offs=[
            BackOff(
                label=text or label,
                jitter=1.0,
                base_s=1.0,
                cap_s=300.0,
                devices=1_000_000,
                back_95_s=back,
                back_99_s=None,
                refused=0.4,
                settings=text or "--set agent.connect_cap=5m",
                curve=[(0.0, 0.0), (100.0, 0.5), (2_400.0, 0.99)],
            )
            for label, back in (("full jitter, cap 1 × floor", 2_300.0), ("as configured", None))
        ],
        held_out=HeldOut(devices=50_000, by=[1_000, 10_000], rows=_compared(text)),
        coarse=[1_000_000],
        prices=text or "list prices",
    )


def _row(size: int, text: str) -> SizeRow:
    is_drawn = size > SIMULATED_UP_TO
    low, high = (0.9 * size, 1.1 * size) if is_drawn else (None, None)
    names = ("connects_per_s", "table_writes_per_s", "functions")
    shares = {text or name: size / 40_000 for name in names}
    return SizeRow(
        devices=size,
        simulated=min(size, SIMULATED_UP_TO),
        how="scaled" if is_drawn else "simulated",
        verdict=text or "pass",
        figures={
            name: Figure(value=float(size), model="a + b·N" if is_drawn else "", low=low, high=high) for name in FIGURES
        },
        shares=shares,
        reached=[Reached(name=text or "functions", per="account", effect=text, times=9, first_s=1.0, last_s=2.0)],
        recovery=Recovery(fault=text or "outage", end_s=1.0, lost=size, back_50_s=60.0, floor_s=size / 500),
        converged_after_s=400.0,
        cost=[
            CostItem(item=text or price.item, quantity=1e9, unit=price.unit, dollars=size / 7, source=price.source)
            for price in AWS.values()
        ],
        dollars=9 * size / 7,
        bounds={name: (0.9 * share, 1.1 * share) for name, share in shares.items()} if is_drawn else {},
    )


def _compared(text: str) -> list[Compared]:
    rows = [
        Compared(name=name, words=text or words, unit=unit, told=90.0, seen=100.0, low=80.0, high=95.0, error=-0.1)
        for name, (unit, words) in FIGURES.items()
    ]
    rows.append(Compared(name=f"quota.{text or 'functions'}", words=text, unit=text or "1/s", told=1.0, seen=1.0))
    rows.append(Compared(name="recovery.back_95_s", words="95 % back", unit="s", told=None, seen=61.0))
    return [*rows, Compared(name="cost.total", words="cost a month", unit="$", told=10.0, seen=9.0, error=1 / 9)]
