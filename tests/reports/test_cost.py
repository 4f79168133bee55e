"""The price table and its sums: the vendor's own example to the cent, tiers, a month from a run."""

from __future__ import annotations

from fractions import Fraction

import pytest

from reports.cost import AWS, a_month_of, bill, cents, priced, quantities, total
from reports.quotas import Usage

AWS_EXAMPLE = Usage(
    seconds=30 * 86_400.0,
    connection_minutes=100_000 * 30 * 24 * 60,
    messages=975_000_000,
)


def test_the_vendors_own_example_comes_out_to_the_cent() -> None:
    # 100,000 devices, connected for 30 days: 4.32 billion minutes; 975 million messages.
    items = {item.item: item for item in a_month_of(AWS_EXAMPLE)}
    assert items["connectivity"].quantity == 4_320_000_000
    assert items["connectivity"].dollars == 345.60
    assert items["messages"].dollars == 975.00
    assert total(list(items.values())) == 1_320.60


def test_a_part_of_the_month_makes_the_whole_one() -> None:
    day = Usage(seconds=86_400.0, connection_minutes=100_000 * 24 * 60, messages=32_500_000)
    assert a_month_of(day) == a_month_of(AWS_EXAMPLE)
    assert a_month_of(Usage()) == []


@pytest.mark.parametrize(
    ("messages", "dollars"),
    [(0, 0), (1, 0), (1_000_000_000, 1_000), (1_000_000_001, 1_000), (5_000_000_000, 4_200), (6_000_000_000, 4_900)],
)
def test_messages_have_three_tiers(messages: int, dollars: float) -> None:
    (item,) = bill({"messages": Fraction(messages)})
    assert item.dollars == dollars


def test_every_item_has_its_price_and_its_source() -> None:
    usage = Usage(
        connection_minutes=1_000_000,
        messages=1_000_000,
        rule_triggers=1_000_000,
        rule_actions=1_000_000,
        write_units=8_000_000,
        read_units=8_000_000,
        stream_reads=1_000_000,
        functions=1_000_000,
        function_s=120_000.0,
    )
    items = bill(quantities(usage))
    assert [item.dollars for item in items] == [0.08, 1.0, 0.15, 0.15, 5.0, 1.0, 0.2, 0.2, 1.0]
    assert len(items) == len(AWS) and {item.source for item in items} == {"v", "2", "a"}


def test_cents_are_rounded_half_up_and_never_drift() -> None:
    assert [cents(Fraction(text)) for text in ("0.005", "0.004999", "1.115", "2.675")] == [0.01, 0.0, 1.12, 2.68]
    tenths = [item for _ in range(10) for item in bill({"rule_triggers": Fraction(2_000_000, 3)})]
    assert total(tenths) == 1.0


def test_there_are_prices_for_aws_alone() -> None:
    assert priced("aws-iot-default") and priced("") and not priced("azure-iot-hub-s1")
