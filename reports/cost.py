"""What a cloud bills for what was metered: one price table with its date and sources, and the sums, exact to the cent.

Pure: values in, values out. Called by fleet.capacity, by the summary of a run with quotas, and by fleet.backends.cost,
which tells the cost of a run in AWS before it begins. Marks: (v) the vendor's own text · (2) a second-hand copy · (a)
an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import msgspec

from reports.quotas import Usage

DATE: Final = "late 2025"
REGION: Final = "us-east-1"
MONTH_DAYS: Final = 30
FUNCTION_GB: Final = Fraction(1, 2)  # the deployment's own default, 512 MB (cloud.template)

MILLION: Final = 1_000_000


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """`tiers`: (up to so many, dollars for `per` of them), rising; the last is without end (0)."""

    item: str
    unit: str
    per: int
    tiers: tuple[tuple[int, str], ...]
    source: str

    def cost(self, quantity: Fraction) -> Fraction:
        """Dollars for that many in one month."""
        left, below, total = quantity, 0, Fraction(0)
        for up_to, dollars in self.tiers:
            part = min(left, Fraction(up_to - below)) if up_to else left
            total += part * Fraction(dollars) / self.per
            left -= part
            below = up_to
        return total


def _flat(item: str, unit: str, per: int, dollars: str, source: str) -> Price:
    return Price(item=item, unit=unit, per=per, tiers=((0, dollars),), source=source)


AWS: Final[Mapping[str, Price]] = {
    "connection": _flat("connectivity", "connection minutes", MILLION, "0.08", "v"),
    "messages": Price(
        item="messages",
        unit="messages of 5 KB",
        per=MILLION,
        tiers=((1_000_000_000, "1.00"), (5_000_000_000, "0.80"), (0, "0.70")),
        source="v",
    ),
    "rule_triggers": _flat("rules: triggers", "triggers", MILLION, "0.15", "a"),
    "rule_actions": _flat("rules: actions", "actions", MILLION, "0.15", "a"),
    "write_units": _flat("table: writes", "write units", MILLION, "0.625", "2"),
    "read_units": _flat("table: reads", "read units", MILLION, "0.125", "2"),
    "stream_reads": _flat("stream: reads", "reads", 100_000, "0.02", "2"),
    "functions": _flat("functions: requests", "requests", MILLION, "0.20", "2"),
    "function_gb_s": _flat("functions: time", "GB-s", 1, "0.0000166667", "2"),
}


class CostItem(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a bill. `dollars`: to the cent, half up."""

    item: str
    quantity: float
    unit: str
    dollars: float
    source: str


def quantities(usage: Usage) -> dict[str, Fraction]:
    """By the names of the price table."""
    return {
        "connection": Fraction(usage.connection_minutes),
        "messages": Fraction(usage.messages),
        "rule_triggers": Fraction(usage.rule_triggers),
        "rule_actions": Fraction(usage.rule_actions),
        "write_units": Fraction(usage.write_units),
        "read_units": Fraction(usage.read_units),
        "stream_reads": Fraction(usage.stream_reads),
        "functions": Fraction(usage.functions),
        "function_gb_s": Fraction(usage.function_s).limit_denominator(10**9) * FUNCTION_GB,
    }


def bill(found: Mapping[str, Fraction], prices: Mapping[str, Price] = AWS) -> list[CostItem]:
    """For these quantities in one month."""
    return [
        CostItem(
            item=price.item,
            quantity=float(found[name]),
            unit=price.unit,
            dollars=cents(price.cost(found[name])),
            source=price.source,
        )
        for name, price in prices.items()
        if name in found
    ]


def a_month_of(usage: Usage, prices: Mapping[str, Price] = AWS) -> list[CostItem]:
    """If all of a month were as this run was. Nothing for a run that took no time."""
    if usage.seconds <= 0:
        return []
    factor = Fraction(MONTH_DAYS * 86_400) / Fraction(usage.seconds).limit_denominator(10**6)
    return bill({name: quantity * factor for name, quantity in quantities(usage).items()}, prices)


def total(items: list[CostItem]) -> float:
    """Dollars."""
    return cents(sum((Fraction(str(item.dollars)) for item in items), Fraction(0)))


def cents(dollars: Fraction) -> float:
    """To the cent, half up."""
    return float(Fraction((dollars * 100 + Fraction(1, 2)).__floor__(), 100))


def priced(preset: str) -> bool:
    """Whether there is a price table for the cloud of that preset: for AWS alone."""
    return not preset.startswith("azure")
