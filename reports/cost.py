"""What a cloud bills for what was metered: one price table with its date and sources, and the sums, exact to the cent.

Pure: values in, values out. Called by fleet.capacity, by the summary of a run with quotas, and by fleet.backends.cost,
which tells the cost of a run in AWS before it begins. Marks: (v) the vendor's own text · (2) a second-hand copy · (a)
an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """`tiers`: (up to so many, dollars for `per` of them), rising; the last is without end (0). None: no price is known
    here, and nothing is made up."""

    item: str
    unit: str
    per: int
    tiers: tuple[tuple[int, str], ...]
    source: str

    def cost(self, quantity: Fraction) -> Fraction | None:
        """Dollars for that many in one month; None without a price."""
        if not self.tiers:
            return None
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

HUB_UNIT: Final = "hub_unit"
# Messages of 4 KB that a unit takes in a day (v); what a unit costs a month has to be given.
HUB_UNIT_MESSAGES: Final[Mapping[str, int]] = {
    "azure-iot-hub-s1": 400_000,
    "azure-iot-hub-s2": 6_000_000,
    "azure-iot-hub-s3": 300_000_000,
}
AZURE: Final[Mapping[str, Price]] = {
    HUB_UNIT: Price(item="hub units", unit="units", per=1, tiers=(), source=""),
}
GIVEN: Final = "given"  # mark of a price that was given


class CostItem(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a bill. `dollars`: to the cent, half up; None: its price is not known here."""

    item: str
    quantity: float
    unit: str
    dollars: float | None
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
            dollars=None if (dollars := price.cost(found[name])) is None else cents(dollars),
            source=price.source,
        )
        for name, price in prices.items()
        if name in found
    ]


def a_month_of(usage: Usage, prices: Mapping[str, Price] = AWS, preset: str = "") -> list[CostItem]:
    """If all of a month were as this run was. Nothing for a run that took no time."""
    if usage.seconds <= 0:
        return []
    seconds = Fraction(usage.seconds).limit_denominator(10**6)
    if preset in HUB_UNIT_MESSAGES:
        units = usage.messages * 86_400 / seconds / HUB_UNIT_MESSAGES[preset]
        return bill({HUB_UNIT: Fraction(max(1, -(-units // 1)))}, prices)
    factor = Fraction(MONTH_DAYS * 86_400) / seconds
    return bill({name: quantity * factor for name, quantity in quantities(usage).items()}, prices)


def total(items: Sequence[CostItem]) -> float | None:
    """Dollars; None where an item has no price."""
    known = [Fraction(str(item.dollars)) for item in items if item.dollars is not None]
    return cents(sum(known, Fraction(0))) if len(known) == len(items) else None


def cents(dollars: Fraction) -> float:
    """To the cent, half up."""
    return float(Fraction((dollars * 100 + Fraction(1, 2)).__floor__(), 100))


def prices_of(preset: str, given: Mapping[str, str] | None = None) -> dict[str, Price]:
    """The price table of that preset's cloud. `given`: dollars for `per` of an item, in place of the table's. Raises
    KeyError for what is no item of it."""
    table = dict(AZURE if preset in HUB_UNIT_MESSAGES else AWS)
    for name, dollars in (given or {}).items():
        table[name] = msgspec.structs.replace(table[name], tiers=((0, dollars),), source=GIVEN)
    return table


def priced(preset: str) -> bool:
    """Whether all prices of the cloud of that preset are known here: of AWS alone."""
    return preset not in HUB_UNIT_MESSAGES
