"""Units: every way to write one is read exactly, what is written is read back, and nothing is guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scenario import units


@pytest.mark.parametrize(
    ("text", "us"),
    [("10s", 10_000_000), ("5m", 300_000_000), ("1h30m", 5_400_000_000), ("250ms", 250_000), ("1.5h", 5_400_000_000)],
)
def test_a_duration_is_read_in_microseconds(text: str, us: int) -> None:
    assert units.parse_duration(text) == us


@pytest.mark.parametrize("value", ["10", 10, "ten seconds", "-5s", "5 fortnights", "", None, True, "99999d", "1e9s"])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        units.parse_duration(value)


@pytest.mark.parametrize("value", ["0s", 0])
def test_no_time_at_all_is_no_positive_duration(value: Any) -> None:
    assert units.parse_duration(value) == 0
    with pytest.raises(ValueError, match="impossible"):
        units.parse_positive_duration(value)


@given(st.integers(*(sign * units.SIGNED_DAYS_MAX * units.UNITS_US["d"] for sign in (-1, 1))))
def test_a_duration_that_is_written_is_read_back(us: int) -> None:
    assert units.parse_signed_duration(units.format_duration(us)) == us


@given(st.integers(0, units.SIZE_BYTES_MAX))
def test_a_size_that_is_written_is_read_back(size_bytes: int) -> None:
    assert units.parse_size(units.format_size(size_bytes)) == size_bytes


@given(st.integers(0, units.BPS_MAX))
def test_a_bit_rate_that_is_written_is_read_back(bps: int) -> None:
    assert units.parse_bits(units.format_bits(bps)) == bps


@given(st.integers(1, 10_000), st.sampled_from("smhd"))
def test_a_rate_that_is_written_is_read_back(count: int, unit: str) -> None:
    rate = units.parse_rate(f"{count}/{unit}")
    assert units.parse_rate(units.format_rate(rate)) == pytest.approx(rate, rel=1e-6)


@given(st.integers(0, 10_000))
def test_a_share_that_is_written_is_read_back(hundredths: int) -> None:
    share = units.parse_share(f"{hundredths / 100}%")
    assert units.parse_share(units.format_share(share)) == pytest.approx(share, abs=1e-9)


@given(st.integers(-100_000_000, 100_000_000))
def test_a_drift_that_is_written_is_read_back(ppb: int) -> None:
    assert units.parse_ppm(units.format_ppm(ppb)) == ppb


def test_shares_may_be_percents_or_numbers() -> None:
    assert units.parse_share("5%") == units.parse_share(0.05) == 0.05


@pytest.mark.parametrize("value", ["150%", 1.5, -0.1, "-5%", "5", None, True])
def test_what_is_no_share_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="share"):
        units.parse_share(value)


@given(st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.none(), st.lists(st.text(max_size=3))))
def test_a_parser_refuses_with_a_value_error_and_nothing_else(value: Any) -> None:
    for parse in (
        units.parse_duration, units.parse_signed_duration, units.parse_size, units.parse_rate, units.parse_share,
        units.parse_bits, units.parse_ppm,
    ):  # fmt: skip
        try:
            parse(value)
        except ValueError as error:
            assert "expected" in str(error) or "impossible" in str(error)
