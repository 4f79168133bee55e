"""Dead letters of the stream: set aside by a relay, listed, worked on again and dropped by `fleet-cloud letters`.

Called by pytest only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cloud_shell import CloudShell
from command_rig import DEVICE
from dynamo_rig import adapter
from relay_rig import NOW_MS, Rig, config, stored

from agent.protocol.messages import Rows, decode_to_device
from cloud.drive import run
from cloud.feed import Sequencer
from cloud.head import feed_epoch_ms, log_pk, log_position
from cloud.stream import Change
from cloud.stream_config import StreamConfig
from cloud.stream_letters import LETTERS_PK, can_be_retried, drop, letter, read_letters, retry
from cloud.stream_work import RecordWork
from cloud.table import Get, Put, Query, Record, Throttled

CONFIG = ("device#home-1", "config#")
LIFE_MS = 30 * 24 * 3_600_000


def poisoned(*_: Any) -> Any:
    raise KeyError("poison")
    yield


class Aside(Rig):
    """A relay whose stream's reader has set everything aside that was written so far."""

    def set_aside(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        work = RecordWork(
            self.relay,
            StreamConfig(record_tries=1),
            name="one",
            now_ms=lambda: self.now_ms,
            monotonic_ms=lambda: 0,
            chance=lambda: 0.5,
            counters=Counter(),
            tell=lambda event, **more: None,
        )
        with monkeypatch.context() as patch:
            patch.setattr(Sequencer, "fill", poisoned)
            for record in self.records():
                change = Change(f"{record.seq:021d}", record.key, record.at_ms, record)
                for lane in work.lanes([change]):
                    run(work.lane(lane), self.execute, self.published.append)  # type: ignore[arg-type]
        return self.letters()

    def letters(self) -> list[Any]:
        return run(read_letters(), self.execute, self.published.append)

    def retry(self, item: Any) -> bool:
        return run(retry(self.relay, item), self.execute, self.published.append)


def test_a_letter_goes_through_once_its_reason_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Aside()
    rig.execute(Put(stored(config(1))))
    (item,) = rig.set_aside(monkeypatch)
    assert item["reason"] == "KeyError: 'poison'" and rig.log() == [] and can_be_retried(item)
    rig.execute(Put(stored(config(2))))  # the row has what the item is now, not what it was
    assert rig.retry(item) is True
    assert rig.letters() == [] and [row["image"]["rev"] for row in rig.log()] == [2]
    assert [type(decode_to_device(sent.payload)) for sent in rig.published] == [Rows]
    assert rig.retry(item) is True, "twice is no harm: a row that changes nothing"
    assert [row["image"]["rev"] for row in rig.log()] == [2, 2]


def test_a_letter_that_fails_again_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Aside()
    rig.execute(Put(stored(config(1))))
    (item,) = rig.set_aside(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(Sequencer, "fill", poisoned)
        with pytest.raises(KeyError):
            rig.retry(item)

    def busy(request: Any) -> Any:
        if isinstance(request, Put):
            raise Throttled("busy")
        return rig.execute(request)

    with pytest.raises(Throttled):
        run(retry(rig.relay, item), busy, rig.published.append)
    assert rig.letters() == [item] and rig.log() == []


def test_a_letter_that_was_set_aside_anew_meanwhile_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Aside()
    rig.execute(Put(stored(config(1))))
    (item,) = rig.set_aside(monkeypatch)
    rig.execute(Put({**item, "set_aside": item["set_aside"] + 1}))
    run(drop(item), rig.execute, rig.published.append)
    assert len(rig.letters()) == 1


def test_a_sweep_that_was_set_aside_is_still_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Aside()
    change = Change("7", CONFIG, NOW_MS, Record(0, 7, CONFIG, None, None, NOW_MS, by_ttl=True))
    rig.execute(Put(letter(change, "why", 1, relay="one", now_ms=NOW_MS, ttl_attribute="ttl", life_ms=LIFE_MS)))
    (item,) = rig.letters()
    assert rig.retry(item) is True
    assert [row.get("expired") for row in rig.log()] == [True]


# The command


def put_letter(shell: CloudShell, key: tuple[str, str], seq: int, reason: str = "KeyError: 'poison'") -> str:
    """Its id."""
    record = Record(0, seq, key, None, None, NOW_MS) if key[0] else None
    change = Change(str(seq), key, NOW_MS + seq, record)
    item = letter(change, reason, 5, relay="one", now_ms=NOW_MS + 60_000, ttl_attribute="ttl", life_ms=LIFE_MS)
    adapter(shell.client, shell.table).execute(Put(item))
    return str(item["sk"])


def letters_of(shell: CloudShell) -> list[str]:
    return [item["sk"] for item in adapter(shell.client, shell.table).execute(Query(LETTERS_PK)).items]


def rows_of(shell: CloudShell) -> list[str]:
    items = adapter(shell.client, shell.table).execute(Query(log_pk("device", DEVICE))).items
    return [item["key"][1] for item in items]


def test_letters_are_listed_with_their_reasons(shell: CloudShell) -> None:
    said = shell("letters", "--columns")
    assert (said.code, said.out, said.err) == (0, "", "nothing was set aside\n")
    first = put_letter(shell, (f"device#{DEVICE}", "config#"), 1)
    second = put_letter(shell, ("", ""), 2, "no key of texts pk and sk: None")
    one, two = shell.ok("letters", "--json").rows
    assert one == {
        "id": first, "at": "2023-11-14T22:13:20.001Z", "set_aside": "2023-11-14T22:14:20.000Z", "model": "Config",
        "key": [f"device#{DEVICE}", "config#"], "swept": False, "tries": 5, "relay": "one",
        "reason": "KeyError: 'poison'",
    }  # fmt: skip
    assert (two["id"], two["model"], two["key"]) == (second, None, ["", ""])
    shown = shell.ok("letters", "--columns").out
    assert f"Config device#{DEVICE} / config#" in shown and "no key of texts" in shown


def test_a_retry_puts_the_row_into_the_feed_and_the_letter_away(shell: CloudShell) -> None:
    shell.ok("create", "Config", "text=x", "--device", DEVICE)
    config_id = put_letter(shell, (f"device#{DEVICE}", "config#"), 1)
    setting_id = put_letter(shell, (f"device#{DEVICE}", "setting#mode"), 2)
    unreadable = put_letter(shell, ("", ""), 3)
    nobodys = put_letter(shell, (f"device#{DEVICE}", "report#1"), 4)
    assert shell.ok("letters", "--retry", config_id).out == f"{config_id}: done again\n"
    assert rows_of(shell) == ["config#"] and config_id not in letters_of(shell)
    assert "there is no letter" in shell.refused("letters", "--retry", config_id)
    assert "names no item" in shell.refused("letters", "--retry", setting_id, unreadable)
    assert rows_of(shell) == ["config#"], "all of them or none"
    said = shell.ok("letters", "--retry").out
    assert said == f"{setting_id}: done again\n{nobodys}: no feed has it now: removed\n"
    assert rows_of(shell) == ["config#", "setting#mode"] and letters_of(shell) == [unreadable]
    assert shell.ok("letters", "--drop").out == f"{unreadable}: dropped\n"
    assert letters_of(shell) == []


def test_a_retry_that_fails_says_why_and_the_others_go_on(shell: CloudShell, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = put_letter(shell, (f"device#{DEVICE}", "config#"), 1)
    good = put_letter(shell, (f"device#{DEVICE}", "setting#mode"), 2)
    fill = Sequencer.fill

    def poisoned_config(self: Sequencer, row: Any, feed: Any, key: Any, by_ttl: bool) -> Any:
        if key[1] == "config#":
            raise KeyError("poison")
        yield from fill(self, row, feed, key, by_ttl)

    monkeypatch.setattr(Sequencer, "fill", poisoned_config)
    said = shell("letters", "--retry")
    assert (said.code, said.out) == (2, f"{good}: done again\n")
    assert said.err == f"fleet-cloud: {bad}: KeyError: 'poison': it stays\n"
    assert letters_of(shell) == [bad] and rows_of(shell) == ["setting#mode"]


def test_a_row_done_again_lives_as_long_as_the_relays_own(shell: CloudShell, tmp_path: Path) -> None:
    put_letter(shell, (f"device#{DEVICE}", "config#"), 1)
    (tmp_path / "relay.toml").write_text("[relay]\nretention_ms = 1728000000\n")
    shell.ok("letters", "--retry", "--config", "relay.toml")
    (row,) = adapter(shell.client, shell.table).execute(Query(log_pk("device", DEVICE))).items
    assert row["ttl"] * 1000 - feed_epoch_ms(log_position(row)[0]) >= 1_728_000_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--retry", "--drop"], "--retry and --drop at once"),
        (["--retry", "1#2"], "there is no letter '1#2'"),
        (["--drop", "1#2"], "there is no letter '1#2'"),
        (["--config", "x.toml"], "--config is of --retry"),
        (["--retry", "--config", "x.toml"], "x.toml: no such file"),
        (["--retry", "--schema", "none.json5"], "none.json5"),
    ],
)
def test_what_makes_no_sense_is_told_and_changes_nothing(shell: CloudShell, words: list[str], said: str) -> None:
    put_letter(shell, (f"device#{DEVICE}", "config#"), 1)
    before = shell.state()
    refused = shell("letters", *words)
    assert refused.code == 2 and said in refused.err and refused.out == ""
    assert shell.state() == before


def test_the_real_command(shell: CloudShell, root: Path, tmp_path: Path) -> None:
    name = put_letter(shell, (f"device#{DEVICE}", "config#"), 1)
    command = [sys.executable, "-m", "cloud.cli", "letters"]
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert name in said().stdout
    assert (said("--retry", name).stdout, rows_of(shell)) == (f"{name}: done again\n", ["config#"])
    assert said("--retry", name).returncode == 2
    assert adapter(shell.client, shell.table).execute(Get((LETTERS_PK, name))) is None
