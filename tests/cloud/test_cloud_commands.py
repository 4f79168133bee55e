"""`fleet-cloud` at a shell, on a table of moto's server: what a person sees, and what is never touched.

Called by pytest only.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
from cloud_shell import CloudShell
from command_rig import DEVICE, SCHEMA
from dynamo_rig import adapter
from emulators import table_names
from relay_rig import EPOCH, NOW_MS, hello
from relay_rig import SCHEMA as FLEET

from agent.protocol.messages import Ack, FeedState, Hello, Reset, decode_to_device, encode
from agent.protocol.registration import registration_of
from agent.protocol.schema import Schema
from cloud.config import RelayConfig
from cloud.credentials import digest_of
from cloud.drive import run
from cloud.dynamodb_table import create_table, definition
from cloud.head import head_key, log_pk, log_sk, new_head
from cloud.registry import device_key, heard, registration
from cloud.relay import Relay
from cloud.table import Get, Publish, Put

CREATE: Final = ["create", "Setting", "name=mode", "level=1", "--device", DEVICE]
# One of each command that looks into a table or writes to it.
COMMANDS: Final = [
    CREATE,
    ["get", "Setting", "mode", "--device", DEVICE],
    ["find", "Setting", "--device", DEVICE],
    ["update", "Setting", "mode", "level=2", "--device", DEVICE],
    ["upsert", "Setting", "mode", "level=2", "--device", DEVICE],
    ["remove", "Setting", "mode", "--device", DEVICE],
    ["register", DEVICE, "--account", "main"],
    ["devices"],
    ["acl"],
    ["restore-mark", "--yes"],
    ["release", DEVICE],
    ["letters"],
    ["letters", "--retry"],
    ["oversize"],
]


# Items


def test_an_item_is_made_read_changed_found_and_removed(shell: CloudShell) -> None:
    made = shell.ok(*CREATE).row
    assert {name: made[name] for name in ("deviceId", "name", "level")} == {
        "deviceId": DEVICE, "name": "mode", "level": 1,
    }  # fmt: skip
    assert shell.ok("get", "Setting", "mode", "--device", DEVICE).row == made
    changed = shell.ok("update", "Setting", "mode", "level=7", "mode=on", "--device", DEVICE).row
    assert (changed["level"], changed["mode"], changed["created"]) == (7, "on", made["created"])
    shell.ok("upsert", "Setting", "other", "level=7", "--device", DEVICE)
    assert [row["name"] for row in shell.ok("find", "Setting", "level=7", "--device", DEVICE).rows] == ["mode", "other"]
    assert shell.ok("remove", "Setting", "mode", "--device", DEVICE).row == changed
    assert [row["name"] for row in shell.ok("find", "Setting", "--device", DEVICE).rows] == ["other"]


def test_what_is_stored_is_what_the_schema_makes_of_it(shell: CloudShell) -> None:
    shell.ok(*CREATE)
    (item,) = shell.raw()
    stamps = item.pop("created"), item.pop("updated")
    assert stamps[0] == stamps[1]
    assert item == {
        "pk": {"S": f"device#{DEVICE}"}, "sk": {"S": "setting#mode"}, "_type": {"S": "Setting"},
        "deviceId": {"S": DEVICE}, "name": {"S": "mode"}, "level": {"N": "1"},
    }  # fmt: skip


def test_all_types_pass_in_and_out(bare: CloudShell) -> None:
    (Path("schema.json5")).write_text(SCHEMA.replace("Thing: {enable: 'device'}", "Thing: {}"))
    bare.ok("provision")
    shell = bare
    words = [
        "group=g", "id=1", "n=1.5", "yes=true", "at=2026-01-02T03:04:05Z", 'tags=["a","b"]', "data=AP8=",
        "list=[1,null]", 'any={"a":{"b":1}}', "until=2026-01-02T03:04:05Z", 'place={"lat":1,"raw":"AA=="}',
    ]  # fmt: skip
    made = shell.ok("create", "Thing", *words, "--device", DEVICE).row
    assert made["tags"] == ["a", "b"] and made["data"] == "AP8=" and made["place"] == {"lat": 1, "raw": "AA=="}
    assert shell.ok("get", "Thing", "g", "1", "--device", DEVICE).row == made
    piped = json.dumps({"group": "g", "id": "2", "n": 3})
    assert shell.ok("create", "Thing", "-", "--device", DEVICE, stdin=piped).row["n"] == 3
    (by_index,) = shell.ok("find", "Thing", "n=3", "--device", DEVICE).rows
    assert by_index["id"] == "2"


def test_an_item_whose_life_the_table_does_not_end_is_not_written(shell: CloudShell) -> None:
    """The table was made for a schema without the model that has its time to live elsewhere."""
    (Path("schema.json5")).write_text(SCHEMA.replace("Thing: {enable: 'device'}", "Thing: {}"))
    before = shell.state()
    assert "in 'ttl', and Fleet is to keep it in 'until'" in shell.refused("get", "Thing", "g", "1", "--device", DEVICE)
    assert shell.state() == before


def test_an_index_is_looked_in(bare: CloudShell) -> None:
    (Path("schema.json5")).write_text(SCHEMA.replace("Thing: {enable: 'device'}", "Thing: {}"))
    bare.ok("provision")
    for group, number in (("b", "2"), ("a", "1"), ("c", "10")):
        bare.ok("create", "Thing", f"group={group}", f"id={number}", "--device", DEVICE)
    found = bare.ok("find", "Thing", "--index", "gs1").rows
    assert [row["id"] for row in found] == ["1", "10", "2"]
    assert [row["id"] for row in bare.ok("find", "Thing", "--index", "gs1", "--reverse", "--limit", "1").rows] == ["2"]
    assert "no index 'gs2'" in bare.refused("find", "Thing", "--index", "gs2")


def test_pages_of_a_query_are_read_to_the_end(shell: CloudShell) -> None:
    for number in range(12):
        shell.ok("create", "Setting", f"name=n{number:02d}", "mode=on", "--device", DEVICE)
    assert len(shell.ok("find", "Setting", "--device", DEVICE).rows) == 12
    limited = shell.ok("find", "Setting", "--device", DEVICE, "--limit", "2", "--reverse").rows
    assert [row["name"] for row in limited] == ["n11", "n10"]


UNIQUE: Final = SCHEMA.replace("name: {type: 'string', required: true},\n            level", (
    "name: {type: 'string', required: true}, serial: {type: 'string', unique: true},\n            level"
))  # fmt: skip


def test_a_unique_value_is_taken_kept_and_freed(shell: CloudShell) -> None:
    (Path("schema.json5")).write_text(UNIQUE)
    shell.ok("create", "Setting", "a", "serial=1", "--device", DEVICE)
    taken = shell.refused("create", "Setting", "b", "serial=1", "--device", DEVICE)
    assert "another Setting has the same unique value (serial)" in taken
    shell.ok("create", "Setting", "b", "serial=2", "--device", DEVICE)
    assert "unique" in shell.refused("update", "Setting", "b", "serial=1", "--device", DEVICE)
    shell.ok("update", "Setting", "a", "serial=3", "--device", DEVICE)
    shell.ok("update", "Setting", "b", "serial=1", "--device", DEVICE)
    shell.ok("remove", "Setting", "b", "--device", DEVICE)
    pks = [item["pk"]["S"] for item in shell.raw() if item["pk"]["S"].startswith("_unique#")]
    assert pks == ["_unique#Setting#serial#3"]
    assert "is there already" in shell.refused("create", "Setting", "a", "serial=3", "--device", DEVICE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["get", "Setting", "mode", "--device", DEVICE], "there is no Setting device#dev-1 / setting#mode"),
        (["remove", "Setting", "mode", "--device", DEVICE], "there is no Setting"),
        (["update", "Setting", "mode", "level=1", "--device", DEVICE], "there is no Setting.*`create` makes it"),
        (["get", "Setting", "mode"], r"deviceId.*--device says whose"),
        (["find", "Setting"], r"deviceId.*--device says whose"),
        (["create", "Setting", "--device", DEVICE], "Setting.name: is required"),
        (["create", "Setting", "a", "level=x", "--device", DEVICE], "level: expected a number"),
        (["create", "Setting", "a", "mode=maybe", "--device", DEVICE], "mode"),
        (["create", "Setting", "a", "levle=1", "--device", DEVICE], "no field 'levle' .did you mean 'level'"),
        (["create", "Setting", "a", "--device", "a/b"], "'a/b' is no device's id"),
        (["create", "Settings", "a", "--device", DEVICE], "no model 'Settings' .did you mean 'Setting'"),
        (["create", "Thing", "a", "b", "--device", DEVICE], "Thing lives on devices alone"),
        (["create", "Report", "level=1", "--device", DEVICE], "Report syncs up: .*--yes"),
        (["update", "Report", "x", "level=1", "--device", DEVICE], "Report syncs up"),
        (["upsert", "Report", "x", "level=1", "--device", DEVICE], "Report syncs up"),
        (["remove", "Report", "x", "--device", DEVICE], "Report syncs up"),
        (["find", "Setting", "--device", DEVICE, "--limit", "-1"], "--limit -1"),
        (["find", "Setting", "--device", DEVICE, "--json", "--columns"], "two ways to print"),
        (["get", "Setting", "mode", "--device", DEVICE, "--schema", "nowhere.json5"], "nowhere.json5"),
        (["create", "Audit", "--account", "all", "--device", DEVICE], "'all' is no account's id"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(shell: CloudShell, words: list[str], said: str) -> None:
    before = shell.state()
    found = shell(*words)
    assert found.code == 2 and found.out == ""
    assert re.search(said, found.err, re.S), found.err
    assert shell.state() == before


def test_an_item_of_a_device_is_written_only_when_that_is_meant(shell: CloudShell) -> None:
    made = shell.ok("create", "Report", "level=1", "--device", DEVICE, "--yes").row
    assert shell.ok("find", "Report", "--device", DEVICE).rows == [made]
    shell.ok("remove", "Report", made["id"], "--device", DEVICE, "--yes")


@pytest.mark.parametrize("pk", ["_fleet#table", "_fleet#head#dev-1", "_unique#x"])
@pytest.mark.parametrize("verb", ["get", "find", "create", "update", "upsert", "remove"])
def test_the_relays_own_items_are_out_of_reach(shell: CloudShell, verb: str, pk: str) -> None:
    """Also through a model whose keys are given by hand."""
    (Path("schema.json5")).write_text(SCHEMA.replace("Free: {enable: 'device'}", "Free: {enable: 'cloud'}"))
    before = shell.state()
    assert "no application's" in shell.refused(verb, "Free", f"pk={pk}", "sk=marker")
    assert shell.state() == before


# Only our own table


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_table_that_is_not_fleets_is_never_touched(bare: CloudShell, words: list[str]) -> None:
    bare.client.create_table(**definition(bare.table))
    bare.client.put_item(TableName=bare.table, Item={"pk": {"S": f"device#{DEVICE}"}, "sk": {"S": "setting#mode"}})
    before = bare.state()
    assert "is not Fleet's: it has no marker item" in bare.refused(*words)
    assert bare.state() == before


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_table_without_a_time_to_live_is_not_worked_on(bare: CloudShell, words: list[str]) -> None:
    create_table(bare.client, bare.table, None)
    before = bare.state()
    assert "The time to live of" in bare.refused(*words)
    assert bare.state() == before


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_no_command_makes_a_table_but_provision(bare: CloudShell, words: list[str]) -> None:
    assert "The table is not there" in bare.refused(*words)
    assert bare.table not in table_names(bare.client)


@pytest.mark.parametrize("words", [*COMMANDS, ["provision"]], ids=lambda words: words[0])
def test_an_address_without_an_answer_and_missing_credentials_are_told(
    bare: CloudShell, words: list[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert closed in bare.refused(*words, "--endpoint-url", closed)
    for name, value in (
        ("AWS_CONFIG_FILE", str(tmp_path / "no")), ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no")),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):  # fmt: skip
        bare.monkeypatch.setenv(name, value)
    bare.monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "AWS_ACCESS_KEY_ID" in bare.refused(*words)
    bare.monkeypatch.delenv("AWS_REGION")
    assert "AWS_REGION" in bare.refused(*words)


# provision


def test_provision_twice_does_nothing_the_second_time(bare: CloudShell) -> None:
    shown = bare.ok("provision", "--dry-run").out
    assert "would change" in shown and bare.table not in table_names(bare.client)
    assert "changes\n  create the table" in bare.ok("provision").out
    before = bare.state()
    assert "nothing to do" in bare.ok("provision").out
    assert "nothing to do" in bare.ok("provision", "--yes").out
    assert bare.state() == before
    said = bare.ok("provision", "--json").row
    assert said == {"table": bare.table, "existed": True, "changes": [], "applied": False}


def test_a_table_that_exists_is_changed_only_with_yes(bare: CloudShell) -> None:
    bare.client.create_table(**{**definition(bare.table), "StreamSpecification": {"StreamEnabled": False}})
    before = bare.state()
    said = bare("provision")
    assert said.code == 2 and "would change" in said.out and "nothing was changed" in said.err
    assert bare.state() == before
    assert bare.ok("provision", "--dry-run").code == 0
    assert bare.state() == before
    assert bare("provision", "--json").code == 2
    assert bare.state() == before
    assert "contradict" in bare.refused("provision", "--yes", "--dry-run")
    bare.ok("provision", "--yes")
    assert "nothing to do" in bare.ok("provision").out


# devices


def test_a_device_is_registered_once_and_moved_only_with_yes(shell: CloudShell) -> None:
    said = shell.ok("register", "home-1", "--account", "main", "--json").row
    assert said["was"] == "registered"
    assert said["publishes"] == "ioto/service/home-1/sync"
    assert said["subscribes"] == ["ioto/device/home-1/sync", "ioto/account/main/sync", "ioto/account/all/sync"]
    before = shell.state()
    assert shell.ok("register", "home-1", "--account", "main", "--json").row["was"] == "registered already"
    assert "belongs to account 'main'" in shell.refused("register", "home-1", "--account", "other")
    assert shell.state() == before
    assert "moved from main" in shell.ok("register", "home-1", "--account", "other", "--yes").out
    assert shell.ok("devices").row["account"] == "other"
    for words in (
        ["home/1", "--account", "main"],
        ["all", "--account", "main"],
        ["home-1"],
        ["home-1", "--account", "all"],
    ):
        shell.refused("register", *words)


def test_a_token_is_shown_once_kept_as_its_hash_and_made_anew_when_asked(shell: CloudShell, tmp_path: Path) -> None:
    def kept() -> Any:
        return adapter(shell.client, shell.table).execute(Get(device_key("home-1")))["token"]

    first = shell.ok("register", "home-1", "--account", "main", "--token", "--json").row["token"]
    assert len(first) == 43 and kept() == digest_of(first) and first not in json.dumps(shell.state(), default=str)
    said = shell.ok("register", "home-1", "--account", "main")
    assert "token" not in said.out and kept() == digest_of(first)
    said = shell.ok("register", "home-1", "--account", "main", "--token")
    (second,) = re.findall(r"^  token +(\S+)$", said.out, re.M)
    assert second != first and kept() == digest_of(second) and "not shown again" in said.out
    path = tmp_path / "home-1.json"
    url = "wss://relay.example:8765"
    row = shell.ok("register", "home-1", "--account", "main", "--token", "--out", str(path), "--url", url, "--json").row
    assert row["out"] == str(path) and "token" not in row and path.stat().st_mode & 0o777 == 0o600
    found = registration_of(path.read_bytes(), str(path))
    assert (found.device, found.account, found.prefix, found.url) == ("home-1", "main", "ioto", url)
    assert kept() == digest_of(found.token)
    shell.ok("register", "home-1", "--account", "other", "--yes")
    assert kept() == digest_of(found.token)  # it is the device's, wherever that belongs
    for words, part in (
        (["--out", str(path)], "exists (nothing was changed"),
        (["--url", url], "--out FILE"),
        (["--out", str(tmp_path / "x"), "--url", "relay.example"], "expected ws, wss"),
        (["--out", str(tmp_path / "no" / "x")], "no such file"),
    ):
        assert part in shell.refused("register", "home-1", "--account", "other", "--token", *words)
    assert "belongs to account" in shell.refused(
        "register", "home-1", "--account", "main", "--token", "--out", str(tmp_path / "y")
    )
    assert kept() == digest_of(found.token) and [each.name for each in tmp_path.glob("[xy]")] == []


def test_devices_are_listed_with_what_is_known_of_them(shell: CloudShell) -> None:
    assert shell("devices", "--columns").err == "no device is registered\n"
    for device in ("b", "a", "c"):
        shell.ok("register", device, "--account", "main")
    table = adapter(shell.client, shell.table)
    table.execute(Put({**new_head("a", "e"), "up": 12, "verdicts": {"12": "lost"}}))
    table.execute(heard("a", hello(feeds={"device": FeedState(nonce="n", epoch="e1", seq=3)}), 1_700_000_000_000))
    table.execute(Put({"pk": log_pk("device", "a"), "sk": log_sk("e1", 5), "ttl": 1}))
    rows = shell.ok("devices").rows
    assert [row["device"] for row in rows] == ["a", "b", "c"]
    (row,) = shell.ok("devices", "a").rows
    assert (row["taken"], row["verdicts"], row["behind"], row["seen"]) == (12, 1, 2, "2023-11-14T22:13:20.000Z")
    (row,) = shell.ok("devices", "b").rows
    assert (row["taken"], row["behind"], row["seen"]) == (None, None, None)
    assert shell.ok("devices", "a", "--columns").out.splitlines()[0].split()[:2] == ["device", "account"]
    assert "not registered: x" in shell.refused("devices", "a", "x")
    assert "user a\ntopic write ioto/service/a/sync" in shell.ok("acl").out
    assert head_key("a")[0] == "_fleet#head#a"


def test_many_devices_are_listed_in_order(shell: CloudShell) -> None:
    table = adapter(shell.client, shell.table)
    names = [f"device-{number:03d}" for number in range(130)]
    for name in names:
        table.execute(registration(name, "main", 1))
    assert [row["device"] for row in shell.ok("devices").rows] == names


# help


def test_help_of_every_command_says_how_fields_are_given(shell: CloudShell) -> None:
    for words in (*COMMANDS, ["provision"], ["template"]):
        said = shell(words[0], "--help")
        assert said.code == 0 and f"usage: fleet-cloud {words[0]}" in said.out
    assert "FIELD:=JSON" in shell("create", "--help").out
    assert shell("create").code == 2
    assert shell("find", "Setting", "--colour").code == 2
    assert Schema.load("schema.json5").models


@pytest.mark.parametrize(
    ("missing", "words", "code"),
    [
        ("botocore", ["provision"], 2),
        ("botocore", ["devices"], 2),
        ("boto3", ["get", "Setting", "mode", "--device", DEVICE], 2),
        ("ruamel", ["template"], 2),
        ("botocore", ["acl", "home-1=main"], 0),  # needs none
    ],
)
def test_a_missing_extra_is_named(root: Path, tmp_path: Path, missing: str, words: list[str], code: int) -> None:
    (tmp_path / "schema.json5").write_text(SCHEMA)
    program = (
        "import sys, importlib.abc\n"
        "class Without(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        f"sys.path.insert(0, {str(root)!r})\n"
        "from cloud.cli import main\n"
        f"sys.exit(main({words!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr.count("\n") == 1 and "pip install 'fleet-sync[cloud]'" in done.stderr


# After a restore


def test_a_table_is_marked_only_with_a_word_and_each_mark_is_another(shell: CloudShell) -> None:
    shell.ok("register", DEVICE, "--account", "main")
    before = shell.state()
    said = shell("restore-mark")
    assert said.code == 2 and "was this table put back" in said.err and "--yes" in said.err
    assert "1 devices registered" in said.out and shell.state() == before
    first = shell.ok("restore-mark", "--yes", "--json").row
    assert (first["was"], first["devices"]) == ("", 1) and len(first["incarnation"]) == 16
    second = shell.ok("restore-mark", "--yes", "--json").row
    assert second["was"] == first["incarnation"] != second["incarnation"]
    assert shell.ok("provision").out.endswith("nothing to do\n"), "a marked table is still Fleet's"


def test_a_marked_table_tells_a_relay_of_its_new_incarnation(shell: CloudShell) -> None:
    table = adapter(shell.client, shell.table)
    relay = Relay(FLEET, RelayConfig(), lambda: NOW_MS, lambda digits: "0" * digits, Counter(), {DEVICE: "main"}.get)
    sent: list[Publish] = []
    run(relay.on_message(DEVICE, encode(hello())), table.execute, sent.append)
    incarnation = shell.ok("restore-mark", "--yes", "--json").row["incarnation"]
    again = Relay(FLEET, RelayConfig(), lambda: NOW_MS, lambda digits: "0" * digits, Counter(), {DEVICE: "main"}.get)
    run(again.on_message(DEVICE, encode(hello())), table.execute, sent.append)
    ack, reset = (decode_to_device(one.payload) for one in sent)
    assert isinstance(ack, Ack)
    assert reset == Reset(hn="hn", head_epoch=EPOCH, inc=incarnation)
    run(
        again.on_message(DEVICE, encode(Hello(epoch="new", hn="hn", n=2, schema="1", feeds={}, inc=incarnation))),
        table.execute,
        sent.append,
    )
    head = table.execute(Get(head_key(DEVICE)))
    assert (head["epoch"], head["inc"]) == ("new", incarnation)


# Quarantine


def test_a_device_in_quarantine_is_shown_and_released(shell: CloudShell) -> None:
    table = adapter(shell.client, shell.table)
    shell.ok("register", DEVICE, "--account", "main")
    assert shell.refused("release", DEVICE).startswith(f"{DEVICE} has never been heard of")
    table.execute(Put(new_head(DEVICE, EPOCH)))
    assert shell.refused("release", DEVICE).startswith(f"{DEVICE} is not in quarantine")
    assert shell.ok("devices", "--json").row["quarantine"] is None
    table.execute(Put({**new_head(DEVICE, EPOCH), "halted": NOW_MS, "born": [NOW_MS]}))
    assert shell.ok("devices", "--json").row["quarantine"] == "2023-11-14T22:13:20.000Z"
    said = shell("devices", "--columns")
    assert said.code == 0 and "release" in said.err
    assert "two copies" in shell.ok("release", DEVICE).out
    assert table.execute(Get(head_key(DEVICE))) == new_head(DEVICE, EPOCH)
