"""`--set` and `--devices`: what they change, and mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario_rig import GOOD, loaded, problems, write

from agent.protocol.errors import InputError
from fleet.scenario.load import load, scaled


def test_a_key_may_be_overridden_by_index_or_by_name(tmp_path: Path) -> None:
    overrides = ("duration=20m", "devices.0.count=7", "devices.shop.count=8", "workload.status.bytes=[1kb, 2kb]")
    scenario = loaded(tmp_path, GOOD, (*overrides, "cloud.workers=5", "faults.cut.target.share=10%"))
    assert scenario.duration_us == 1_200_000_000
    assert [group.count for group in scenario.devices] == [7, 8]
    assert scenario.workload[0].bytes == (1024, 2048)
    assert scenario.cloud.workers == 5
    assert scenario.faults[2].target.share == 0.1  # type: ignore[union-attr]


def test_a_profile_may_be_refined(tmp_path: Path) -> None:
    link = loaded(tmp_path, GOOD, ("devices.home.link.loss=2%",)).devices[0].link
    assert (link.profile, link.loss, link.delay_us) == ("lte", 0.02, 40_000)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("duration", "expected KEY=VALUE"),
        ("=5", "expected KEY=VALUE"),
        ("durtion=5m", "did you mean duration?"),
        ("duration=5", "expected a duration"),
        ("devices.hoem.count=5", "did you mean home?"),
        ("devices.home.count=-5", "at least 1"),
        ("devices.home.count=[", "not YAML"),
        ("a.b.c.d=5", "unknown key"),
        (".".join("a" * 100) + "=1", "nested more than"),
    ],
)
def test_a_mistake_in_an_override_points_at_it(tmp_path: Path, override: str, words: str) -> None:
    found = problems(tmp_path, GOOD, (override,))
    assert len(found) == 1 and words in str(found[0])
    assert found[0].file == f"--set {override}" and found[0].line == 0


def test_fewer_devices_than_groups_are_refused(tmp_path: Path) -> None:
    for devices in (1, 0, -3):
        with pytest.raises(InputError, match=f"--devices {devices}:"):
            load(write(tmp_path, GOOD), devices=devices)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.integers(0, 5000))
def test_scaling_keeps_the_total_and_every_group(counts: list[int], more: int) -> None:
    total = len(counts) + more
    shares = scaled(counts, total)
    assert sum(shares) == total  # ints
    assert min(shares) >= 1
    if total >= 1000 * len(counts):
        whole = sum(counts)  # ints
        assert all(
            abs(share - count * total / whole) <= len(counts) for share, count in zip(shares, counts, strict=True)
        )


def test_scaling_to_the_same_number_changes_nothing(tmp_path: Path) -> None:
    assert [group.count for group in loaded(tmp_path, GOOD, (), 9).devices] == [6, 3]
    assert [group.count for group in loaded(tmp_path, GOOD, (), 90).devices] == [60, 30]
