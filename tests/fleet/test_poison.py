"""Poison in the simulated world: every kind of it is met, refused or set aside, mended, and holds nothing up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_rig import BUSY, busy_plan, failures, ran, run_plan

from agent.protocol.errors import InputError, ModelError
from agent.protocol.messages import encode_image
from agent.protocol.schema import Context, Schema
from fleet.oracle.payload import REV, TEXT, is_genuine
from fleet.scenario.build import build_plan
from fleet.scenario.faults import IN_TABLE, POISONS
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from fleet.scenario.shipped import SCHEMAS
from fleet.shrink.explicit import explicit, in_words
from fleet.world.poison import spoilt
from fleet.world.world import World

SCHEMA = Schema.load(SCHEMAS / "fleet.json5")
ONE_DEVICE = "target: {devices: home-0001}"


def plan(*faults: str, directory: Path, text: str = BUSY) -> Plan:
    lines = "".join(f"  - {{name: p{n}, kind: poison, {fault}}}\n" for n, fault in enumerate(faults))
    return busy_plan(directory, text=text.replace("faults:\n", f"faults:\n{lines}"))


@pytest.fixture(scope="module")
def world() -> World:
    return ran(build_plan(load("poison", devices=12), 3))


def test_every_kind_of_poison_is_met_and_what_was_not_overwritten_is_mended(world: World) -> None:
    probes = world.probes
    assert min(probes["poisoned_in_table"], probes["poisoned_on_device"], probes["poisoned_on_wire"]) > 5
    assert min(probes["rejected_type"], probes["rejected_required"], probes["row_oversize"]) > 0
    assert min(probes["message_refused_malformed"], probes["message_refused_unknown"]) > 0
    assert probes["poison_mended"] > 10
    assert [check.name for check in world.checks if check.failed] == []
    (passed,) = [check for check in world.checks if check.name == "poison-passed"]
    assert passed.checked > 10


def test_what_the_relay_refused_is_among_the_dead_letters_and_what_was_mended_is_not(world: World) -> None:
    letters = [
        letter.code
        for device in world.devices.values()
        if device.database is not None
        for letter in device.database.dead_letters()
    ]
    assert set(letters) == {"type", "required"} and world.probes["row_oversize"] > 0  # each row set aside was mended
    assert all(device.outbox_rows() == 0 for device in world.devices.values())


@pytest.mark.parametrize("what", POISONS)
def test_each_kind_alone_does_no_harm(what: str, tmp_path: Path) -> None:
    summary = run_plan(plan(f"what: {what}, rate: 60/h, duration: 40s", directory=tmp_path)).summary
    assert (summary.verdict, failures(summary)) == ("pass", [])
    struck = sum(count for name, count in summary.probes.items() if name.startswith("poisoned_"))
    assert struck > 20


def test_an_item_that_stays_poisoned_to_the_end_of_the_faults_is_mended_then(tmp_path: Path) -> None:
    world = ran(plan(f"what: oversize, model: Config, at: 3m, duration: 9m, {ONE_DEVICE}", directory=tmp_path))
    assert [check.name for check in world.checks if check.failed] == []
    assert world.probes["poison_mended"] + world.probes["poison_overwritten"] == 1


def rolled(directory: Path, poison: str, *rollouts: str) -> World:
    """One device's model comes or goes, and an operation is poisoned on that device."""
    stages = "".join(f"  - {{name: r{n}, kind: rollout, {one}}}\n" for n, one in enumerate(rollouts))
    text = BUSY.replace("faults:\n", f"faults:\n{stages}")
    return ran(plan(f"what: operation, {poison}, {ONE_DEVICE}", directory=directory, text=text))


def test_no_operation_is_of_a_model_that_the_device_lacks(tmp_path: Path) -> None:
    world = rolled(tmp_path, "model: Setting, at: [2m, 3m, 4m], duration: 1m", "at: 6m, before: Setting")
    assert [check.name for check in world.checks if check.failed] == []
    assert world.probes["poisoned_on_device"] == 0
    world = rolled(tmp_path, "at: [2m, 3m, 4m, 7m], duration: 1m", "at: 6m, before: Setting")
    assert [check.name for check in world.checks if check.failed] == []
    assert world.probes["poisoned_on_device"] > 2  # of the models that it has


def test_what_was_refused_is_mended_when_the_device_has_its_model_again(tmp_path: Path) -> None:
    fault, gone, back = "model: Fault, at: 3m, duration: 2m", "at: 4m, lacks: Fault", "at: 8m, before: Fault"
    world = rolled(tmp_path, fault, f"{gone}, {ONE_DEVICE}")
    assert (world.probes["poisoned_on_device"], world.probes["poison_mended"]) == (1, 0)
    world = rolled(tmp_path, fault, f"{gone}, {ONE_DEVICE}", f"{back}, {ONE_DEVICE}")
    assert (world.probes["poisoned_on_device"], world.probes["poison_mended"]) == (1, 1)
    assert [check.name for check in world.checks if check.failed] == []


def test_poison_is_one_fault_of_a_plan_in_words_and_the_same_run_again(tmp_path: Path) -> None:
    made = explicit(plan(f"what: [type, mark], at: [3m, 4m], duration: 1m, {ONE_DEVICE}", directory=tmp_path))
    written = in_words(made, "")
    assert written is not None and "kind: poison" in written.yaml and "what:" in written.yaml
    assert run_plan(Plan.decode(made.encode())).summary.trace_hash == run_plan(made).summary.trace_hash


def test_a_run_without_poison_is_not_watched(tmp_path: Path) -> None:
    assert type(World(busy_plan(tmp_path)).oracle).__name__ == "Oracle"


MISTAKES = [
    ("what: tpye, rate: 1/h, duration: 1m", "did you mean type?"),
    ("what: [], rate: 1/h, duration: 1m", "what: must not be empty"),
    ("rate: 1/h", "duration is missing"),
    ("rate: 1/h, duration: 1m, model: Setings", "unknown model that syncs 'Setings' (did you mean Setting?)"),
    ("rate: 1/h, duration: 1m, model: Diagnostic", "unknown model that syncs 'Diagnostic'"),
    ("rate: 1/h, duration: 1m, what: oversize, model: Status", "nothing of these comes down"),
    ("rate: 1/h, duration: 1m, what: operation, model: Config", "a device sends nothing of these"),
    ("at: 11m30s, duration: 1m", "it lasts beyond the scenario's end"),
]


@pytest.mark.parametrize(("fault", "words"), MISTAKES)
def test_a_mistake_is_told_with_its_place(fault: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        plan(fault, directory=tmp_path)
    (problem,) = raised.value.problems
    assert words in str(problem) and problem.line > 10 and problem.column > 0


# ---------------------------------------------------------------- what is put there


@given(st.sampled_from(IN_TABLE), st.sampled_from(["Config", "Setting", "Command", "Notice"]))
@settings(max_examples=40)
def test_poison_keeps_what_it_is_known_by_and_breaks_the_rest(what: str, name: str) -> None:
    model = SCHEMA.models[name]
    properties: dict[str, Any] = {REV: 7, TEXT: "", "name": "item-1"}
    key, image = model.create(properties, Context("home-0001", "acme"), 1_000, lambda _: "id")
    image[TEXT] = "x"
    poison = spoilt(model, image, what)
    assert poison[REV] == 7
    if what == "oversize":
        assert len(encode_image(poison)) > 96 * 1024 and is_genuine(7, poison[TEXT])
    elif what in ("type", "missing"):
        with pytest.raises(ModelError) as raised:
            model.check(key, poison)
        assert raised.value.code in ("type", "required", "enum", "key")


def test_a_plan_with_poison_survives_being_stored(tmp_path: Path) -> None:
    made = plan("rate: 6/h, duration: 1m", directory=tmp_path)
    assert msgspec.structs.asdict(Plan.decode(made.encode())) == msgspec.structs.asdict(made)
