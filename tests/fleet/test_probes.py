"""Probes: the registry holds all that the source counts, and a probe that used to be hit still is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from expected_probes import expected_probes, lost, mixes, swept

from fleet.probes import PROBES
from fleet.sweep.attempt import THRESHOLD, attempt
from fleet.sweep.case import Case, source_of
from fleet.sweep.pool import Here
from fleet.sweep.sweep import Wanted, sweep

ROOT: Final = Path(__file__).resolve().parents[2]
# Modules of the processes around the relay's logic: their figures are for operators, and no simulated world has them.
NOT_SIMULATED: Final = ("service", "functions", "stream_", "commands")
# Where they are counted, the name is made of a code, or was given.
MADE_OF_CODES: Final = (
    "command_done",
    "command_expired",
    "command_failed",
    "command_refused",
    "message_refused_malformed",
    "message_refused_unknown",
    "message_refused_version",
    "quarantine_over",
    "rejected_required",
    "rejected_type",
    "rejected_unknown-model",
    "table_restored",
)


def counted() -> Iterator[str]:
    """Names under which the agent, the relay's logic or the world count something."""
    for room in ("agent", "cloud", "fleet/world", "fleet/quota"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if room == "cloud" and path.stem.startswith(NOT_SIMULATED):
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.Subscript):
                    continue
                held = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
                if held in ("probes", "_probes", "counters"):
                    yield from strings(node.slice)


def strings(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from strings(node.body)
        yield from strings(node.orelse)


def test_the_registry_holds_what_the_source_counts_and_nothing_else() -> None:
    found = set(counted())
    assert len(found) > 60
    assert sorted(found - set(PROBES)) == []
    assert sorted(set(PROBES) - found - set(MADE_OF_CODES)) == []


def test_what_is_expected_is_in_the_registry() -> None:
    expected = expected_probes()
    assert sorted(expected) == sorted(mixes())
    assert all(set(names) <= set(PROBES) and len(names) > 30 for names in expected.values())


@pytest.mark.slow
@pytest.mark.parametrize("mix", mixes())
def test_a_probe_that_used_to_be_hit_still_is(mix: str) -> None:
    result = swept(mix)
    # A scenario's thresholds are for its own number of devices.
    assert [str(kind) for kind in result.failures if kind.check != THRESHOLD] == []
    assert result.errors == 0
    assert lost(expected_probes()[mix], result) == []


def test_a_probe_that_is_hit_no_more_is_noticed_and_listed() -> None:
    """An agent that skips gaps never takes the path of having seen one."""
    hit = {}
    for plant in ("", "gap-skipped"):
        cases = [Case(source_of("outage", (), 6), seed, plant=plant) for seed in (1, 2)]
        result = sweep(Here(), cases, Wanted(0), function=partial(attempt, hashed=False, keep=False))
        gone = lost(["retransmit", "gap_seen", "snapshot_sent"], result)
        assert gone == ([] if not plant else ["gap_seen"])
        assert ("gap_seen" in result.probes_never_hit()) is bool(plant)
        hit[plant] = result.probes_hit()
    assert hit[""]["gap_seen"] and hit["gap-skipped"]["retransmit"] and not hit["gap-skipped"]["gap_seen"]
