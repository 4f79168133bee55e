"""Rollouts of a schema in the simulated world: every order of devices and relay, back again, and nothing is lost."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_rig import BUSY, busy_plan, failures, ran, run_plan

from agent.protocol.errors import InputError
from agent.protocol.schema import Schema
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from fleet.scenario.shipped import SCHEMAS
from fleet.scenario.variants import Unfit, dispensable, lack, missing_models, variant
from fleet.shrink.explicit import explicit, in_words
from fleet.world.world import World

SCHEMA = Schema.load(SCHEMAS / "rollout.json5")
OLD = ("Reading", "Advice", "Setting.unit", "Config.zone?", "Status.mode=boost", "Fault.code:string")


def plan(*faults: str, directory: Path, seed: int = 1) -> Plan:
    lines = "".join(f"  - {{name: r{n}, {fault}}}\n" for n, fault in enumerate(faults))
    return busy_plan(directory, seed, BUSY.replace("faults:\n", f"faults:\n{lines}"))


# ---------------------------------------------------------------- schemas that lack something


def test_a_schema_that_lacks_nothing_is_the_very_same() -> None:
    assert variant(SCHEMA, ()) is SCHEMA


def test_what_is_lacking_is_not_there_and_all_else_is() -> None:
    old = variant(SCHEMA, OLD)
    assert missing_models(SCHEMA, old) == {"Reading", "Advice"}
    assert "unit" not in old.models["Setting"].fields and "unit" in SCHEMA.models["Setting"].fields
    assert not old.models["Config"].fields["zone"].required
    mode = old.models["Status"].fields["mode"]
    assert (mode.enum, mode.default) == (("eco", "normal"), "eco")
    assert old.models["Fault"].fields["code"].type == "string"
    assert old.version != SCHEMA.version and variant(SCHEMA, OLD[::-1]).version == old.version
    assert old.fingerprint("account") == SCHEMA.fingerprint("account") != old.fingerprint("device")


@given(st.lists(st.sampled_from(OLD), unique=True))
@settings(max_examples=30)
def test_any_of_it_may_be_lacking_in_any_order(lacks: list[str]) -> None:
    made = variant(SCHEMA, lacks)
    assert made.version == variant(SCHEMA, sorted(lacks)).version
    assert (made.version == SCHEMA.version) is (not lacks)
    gone = {name for name in lacks if "." not in name}
    assert missing_models(SCHEMA, made) == gone


@given(st.text(max_size=30))
def test_whatever_is_written_is_a_part_of_the_schema_or_refused(text: str) -> None:
    try:
        found = lack(SCHEMA, text)
    except Unfit as unfit:
        assert str(unfit)
    else:
        assert found.model in SCHEMA.models


def test_what_a_swarm_takes_away_leaves_every_feed_something() -> None:
    fleet = dispensable(Schema.load(SCHEMAS / "fleet.json5"))
    assert fleet == ("Status", "Fault", "Config", "Command", "Setting")
    assert not {"Command", "Result"} & set(dispensable(Schema.load(SCHEMAS / "commands.json5")))
    for name in fleet:
        assert name not in variant(Schema.load(SCHEMAS / "fleet.json5"), (name,)).models


MISTAKES = [
    ("kind: rollout, at: 3m, before: Notise", "unknown model that syncs 'Notise' (did you mean Notice?)"),
    ("kind: rollout, at: 3m, before: [Notice, Setting.levle]", "did you mean level?"),
    ("kind: rollout, at: 3m, before: Setting.rev", "belongs to the keys, the lives or the oracle"),
    ("kind: rollout, at: 3m, before: Setting.name", "belongs to the keys, the lives or the oracle"),
    ("kind: rollout, at: 3m, before: Diagnostic", "unknown model that syncs 'Diagnostic'"),
    ("kind: rollout, at: 3m, before: 'Setting.level?'", "Setting.level is not required"),
    ("kind: rollout, at: 3m, before: Status.state=eror", "did you mean error?"),
    ("kind: rollout, at: 3m, before: Setting.level:number", "it cannot have been 'number'"),
    ("kind: rollout, at: 3m, before: 'a b'", "is no part of a schema"),
    ("kind: rollout, at: 3m", "changes nothing: give `before` or `lacks`"),
    ("kind: rollout, before: Notice", "at is missing"),
    ("kind: rollout, at: 13m, before: Notice", "begins after the scenario's end"),
    ("kind: rollout, at: 11m55s, before: Notice", "it lasts beyond the scenario's end"),
    ("kind: rollout, at: 3m, lakcs: Notice, before: Notice", "did you mean lacks?"),
    ("kind: relay-rollout, at: 3m, lacks: Notice", "no model is left of the feed 'account'"),
]


@pytest.mark.parametrize(("fault", "words"), MISTAKES)
def test_a_mistake_is_told_with_its_place(fault: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        plan(fault, directory=tmp_path)
    (problem,) = raised.value.problems
    assert words in str(problem) and problem.line > 10 and problem.column > 0


# ---------------------------------------------------------------- in the world


@pytest.fixture(scope="module")
def world() -> World:
    return ran(build_plan(load("schema-rollout", devices=20), 2))


def test_the_shipped_rollout_takes_every_path(world: World) -> None:
    probes = world.probes
    assert [check.name for check in world.checks if check.failed] == []
    for name in ("feed_models_changed", "relay_models_changed", "row_set_aside", "rejected", "rejected_required"):
        assert probes[name] > 0, name
    assert probes["schema_changed_in_relay"] == 1 and probes["write_refused_by_schema"] > 0


def test_each_device_ends_with_the_schema_of_its_last_stage(world: World) -> None:
    for device in world.devices.values():
        lacking = missing_models(world.schema, device.schema)
        if device.group == "old":
            assert lacking == {"Reading", "Advice"}
        elif device.group in ("canary", "rest"):
            assert device.schema is world.schema
    assert world.cloud.relay.schema is world.schema


ORDERS = list(itertools.permutations(("devices", "relay", "back")))


@pytest.mark.parametrize("model", ["Status", "Config", "Setting"])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_model_comes_and_goes_in_any_order(order: tuple[str, ...], model: str, tmp_path: Path) -> None:
    """`back`: half of the devices lose it again, or for the first time."""
    kinds = {
        "devices": f"kind: rollout, before: {model}, off: 5s",
        "relay": f"kind: relay-rollout, before: {model}",
        "back": f"kind: rollout, before: {model}, lacks: {model}, off: 5s, target: {{group: home, share: 50%}}",
    }
    faults = [f"{kinds[name]}, at: {minute}m" for name, minute in zip(order, (3, 5, 8), strict=True)]
    summary = run_plan(plan(*faults, directory=tmp_path)).summary
    assert failures(summary) == []
    assert summary.probes["schema_changed_in_relay"] == 1


def test_what_was_written_before_the_relay_knew_the_model_comes_to_devices_that_had_asked(tmp_path: Path) -> None:
    text = BUSY.replace("every: 40s, jitter: 20%, bytes: [200, 400]}", "every: 40s, bytes: 200, until: 5m}")
    text = text.replace("faults:\n", "faults:\n  - {kind: relay-rollout, at: 8m, before: Config}\n")
    summary = run_plan(busy_plan(tmp_path, text=text, overrides=["agent.hello_every=1m"])).summary
    assert failures(summary) == [] and summary.probes["relay_models_changed"] >= 6


def test_what_is_too_large_is_excused_also_where_no_row_has_told_of_it(tmp_path: Path) -> None:
    text = BUSY.replace("every: 40s, jitter: 20%, bytes: [200, 400]}", "every: 4m, bytes: 110kb, until: 5m}").replace(
        "faults:\n", "faults:\n  - {kind: relay-rollout, at: 8m, before: Config}\n"
    )
    summary = run_plan(busy_plan(tmp_path, text=text, overrides=["agent.hello_every=1m"])).summary
    assert failures(summary) == [] and summary.probes["row_oversize"] >= 6


def test_a_run_waits_until_each_device_has_heard_of_the_last_relay(tmp_path: Path) -> None:
    """It says hello a quarter of an hour later; until then it is at the end of its feed, and lacks what nobody told."""
    made = plan("kind: relay-rollout, at: 11m50s, before: Setting", directory=tmp_path)
    world = ran(made)
    assert [check.name for check in world.checks if check.failed] == []
    assert world.clock.now > made.duration_us + 5 * 60_000_000 and world.probes["relay_models_changed"] > 0


def test_a_rollout_is_a_fault_of_a_plan_in_words_and_the_same_run_again(tmp_path: Path) -> None:
    made = explicit(
        plan(
            "kind: rollout, at: [3m, 5m], before: [Notice, Status.level], target: {share: 50%}",
            "kind: relay-rollout, at: 4m, before: Setting.level",
            directory=tmp_path,
        )
    )
    written = in_words(made, "")
    assert written is not None and "kind: rollout" in written.yaml and "kind: relay-rollout" in written.yaml
    assert run_plan(Plan.decode(made.encode())).summary.trace_hash == run_plan(made).summary.trace_hash


def test_without_a_rollout_a_write_that_the_schema_refuses_is_an_error_of_the_workload(tmp_path: Path) -> None:
    world = World(busy_plan(tmp_path))
    assert not world.surroundings.mixed and all(device.schema is world.schema for device in world.devices.values())
