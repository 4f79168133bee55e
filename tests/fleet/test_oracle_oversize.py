"""Items that the cloud wrote and no message can carry: the equality check lists them, and excuses nothing else.

Called by pytest only.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle_history import History, config, setting
from run_rig import busy_plan, failures, run_plan

from agent.protocol.messages import ITEM_BYTES_MAX, Key
from fleet.oracle import text_for
from fleet.oracle.check import FIRST_MAX

SIZE = ITEM_BYTES_MAX + 100
LARGE = """\
name: large
schema: fleet.json5
duration: 8m
devices: [{name: home, count: 2, account: acme, link: ethernet, boot: {over: 10s}}]
workload:
  - {name: config, side: cloud, model: Config, every: 40s, jitter: 20%, bytes: [200, 400]}
  - {name: command, side: cloud, model: Command, action: create, every: 1m, keep: 3, bytes: [60kb, 140kb]}
  - {name: setting-cloud, side: cloud, model: Setting, action: toggle, rate: 40/h, items: 2, bytes: [90kb, 110kb]}
  - {name: setting-device, side: device, model: Setting, rate: 40/h, items: 2, bytes: 200}
phases: {warm_up: 1m, quiesce: 3m, converge_within: 20m}
"""


def cloud_writes(history: History, key: Key, size: int = SIZE) -> None:
    """A cloud application puts an item with a text of so many characters; the relay logs that it is too large."""
    rev = history.next_rev()
    history.oracle.cloud_wrote(history.tick(), key, rev, "put")
    history.commit(key, {"pk": key[0], "sk": key[1], **history.image(key, rev), "text": text_for(rev, size)})
    history.log(key, None, set={"oversize": size + 100})


def test_an_item_that_is_too_large_is_listed_and_no_difference() -> None:
    history = History()
    cloud_writes(history, config("home-1"))
    cloud_writes(history, setting("home-2"))
    found = history.finish()["convergence"]
    assert found.failed == 0
    (line,) = found.detail.splitlines()
    assert line.startswith("2 too large to be synced, not compared: device#home-1/config# (98,")
    assert "device#home-2/setting#s1 (98," in line


def test_only_the_first_are_named() -> None:
    history = History()
    for i in range(FIRST_MAX + 2):
        cloud_writes(history, setting("home-1", f"s{i}"))
    assert history.finish()["convergence"].detail.endswith("and 2 more")


def test_an_old_state_of_it_that_a_device_still_has_is_none_either() -> None:
    history = History()
    history.cloud(config("home-1"))
    history.push("home-1", config("home-1"))
    cloud_writes(history, config("home-1"))
    found = history.finish()["convergence"]
    assert (found.failed, found.detail[:5]) == (0, "1 too")


def rotten(device: str, told: str, size: int = 0, *, logged: bool = True, lasts: str = "") -> str:
    """How nothing-invented ends when home-1 holds another text than was written, and `device` was told to be damaged;
    the cloud has written one of `size` since, if `logged`; the damage of the device `lasts` has not healed."""
    history = History()
    history.cloud(config("home-1"))
    history.push("home-1", config("home-1"))
    held = history.visible["home-1"][config("home-1")]
    text = "+" + held["text"][1:]
    if told:
        rev = held["rev"] + 1 if told == "other rev" else held["rev"]
        put = held["text"][::-1] if told == "other text" else text
        history.oracle.device_rotten(device, config("home-1"), rev, put)
    if logged:
        cloud_writes(history, config("home-1"), size)
    history.visible["home-1"][config("home-1")] = {**held, "text": text}
    if lasts:
        history.oracle.damage_lasts(history.tick(), lasts, config("home-1"))
    found = history.finish()
    assert found["digest-heals"].failed == (1 if lasts else 0)
    assert logged or found["convergence"].failed == 1
    return found["nothing-invented"].status


def test_a_text_that_rotted_stays_where_the_item_became_too_large_and_nowhere_else() -> None:
    assert rotten("home-1", "this rev", SIZE) == "pass"
    assert rotten("home-1", "", SIZE) == "fail", "nobody damaged it"
    assert rotten("home-1", "other rev", SIZE) == "fail", "another state was damaged"
    assert rotten("home-2", "this rev", SIZE) == "fail", "another device was damaged"
    assert rotten("home-1", "this rev", ITEM_BYTES_MAX - 1_000) == "fail", "a log that calls too large what is not"
    assert rotten("home-1", "other text", SIZE) == "fail", "that text nobody put on the disk"
    assert rotten("home-1", "this rev", logged=False) == "fail", "it was healed once"


def test_a_text_that_rotted_and_never_healed_is_not_invented_but_a_damage_that_lasts() -> None:
    assert rotten("home-1", "this rev", logged=False, lasts="home-1") == "pass"
    assert rotten("home-1", "", logged=False, lasts="home-1") == "fail", "the damage was in the table"
    assert rotten("home-1", "other rev", logged=False, lasts="home-1") == "fail", "another state was damaged"
    assert rotten("home-1", "other text", logged=False, lasts="home-1") == "fail", "that text nobody put on the disk"
    assert rotten("home-2", "this rev", logged=False, lasts="home-2") == "fail", "another device was damaged"
    assert rotten("home-1", "this rev", logged=False, lasts="home-2") == "fail", "the damage of another lasts"


@pytest.mark.parametrize("size", [80, ITEM_BYTES_MAX - 1_000])
def test_a_log_that_calls_too_large_what_is_not_fails(size: int) -> None:
    history = History()
    cloud_writes(history, config("home-1"), size)
    found = history.finish()["convergence"]
    assert found.failed == 1 and "found no item" in found.detail and "too large" not in found.detail


def test_one_that_became_small_again_has_to_arrive() -> None:
    history = History()
    cloud_writes(history, config("home-1"))
    history.cloud(config("home-1"))
    history.log(config("home-1"))
    found = history.finish()["convergence"]
    assert found.failed == 1 and "too large" not in found.detail


def test_one_that_was_removed_has_to_go() -> None:
    history = History()
    history.cloud(config("home-1"))
    history.push("home-1", config("home-1"))
    cloud_writes(history, config("home-1"))
    history.cloud(config("home-1"), "delete")
    assert history.finish()["convergence"].failed == 1


def test_a_run_lists_what_its_devices_cannot_have(tmp_path: Path) -> None:
    result = run_plan(busy_plan(tmp_path, text=LARGE))
    assert failures(result.summary) == []
    (convergence,) = [check for check in result.summary.checks if check.name == "convergence"]
    assert convergence.status == "pass" and "too large to be synced" in convergence.detail
    assert "/command#" in convergence.detail
