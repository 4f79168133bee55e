"""`fleet-cloud` at a shell, on a table of moto's server: what a person sees, and what is never touched.

Called by pytest only.
"""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from command_rig import DEVICE, SCHEMA, Said
from dynamo_rig import adapter
from emulators import KEY_ID, REGION, SECRET, table_names
from emulators import client as emulator_client
from relay_rig import EPOCH, NOW_MS, hello
from relay_rig import SCHEMA as FLEET

from agent.protocol.messages import Ack, FeedState, Hello, Reset, decode_to_device, encode
from agent.protocol.schema import Schema
from cloud import system
from cloud.cli import main
from cloud.config import RelayConfig
from cloud.drive import run
from cloud.dynamodb_table import definition
from cloud.head import head_key, log_pk, log_sk, new_head
from cloud.registry import heard, registration
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
]


@dataclass
class CloudShell:
    """In a folder with a schema, with a table's name in the environment."""

    client: Any
    table: str
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    made: list[str] = field(default_factory=list)

    def __call__(self, *words: str, stdin: str = "") -> Said:
        self.monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        self.capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        return Said(code, captured.out, captured.err)

    def ok(self, *words: str, stdin: str = "") -> Said:
        said = self(*words, stdin=stdin)
        assert (said.code, said.err) == (0, ""), said
        return said

    def refused(self, *words: str, stdin: str = "") -> str:
        said = self(*words, stdin=stdin)
        assert said.code == 2, said
        (line,) = said.err.splitlines()
        assert line.startswith("fleet-cloud: "), line
        return line.removeprefix("fleet-cloud: ")

    def raw(self) -> list[dict[str, Any]]:
        """The items of applications, as they are stored."""
        items = self.client.scan(TableName=self.table)["Items"]
        return sorted(
            (item for item in items if not item["pk"]["S"].startswith("_fleet#")), key=lambda item: item["sk"]["S"]
        )

    def state(self) -> tuple[Any, Any]:
        table = self.client.describe_table(TableName=self.table)["Table"]
        return table, self.client.scan(TableName=self.table)["Items"]


@pytest.fixture
def bare(
    moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CloudShell]:
    """No table yet."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "FLEET_SCHEMA"):
        monkeypatch.delenv(name, raising=False)
    table = f"commands-{uuid.uuid5(uuid.NAMESPACE_URL, str(tmp_path)).hex[:12]}"
    for name, value in (
        ("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_REGION", REGION),
        ("FLEET_ENDPOINT_URL", moto), ("FLEET_TABLE", table),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    (tmp_path / "schema.json5").write_text(SCHEMA)
    monkeypatch.chdir(tmp_path)
    client = emulator_client(moto)
    yield CloudShell(client, table, monkeypatch, capsys)
    if table in table_names(client):
        client.delete_table(TableName=table)


@pytest.fixture
def shell(bare: CloudShell) -> CloudShell:
    """With a table of Fleet's."""
    bare.ok("provision")
    return bare


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


def test_all_types_pass_in_and_out(shell: CloudShell) -> None:
    (Path("schema.json5")).write_text(SCHEMA.replace("Thing: {enable: 'device'}", "Thing: {}"))
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


# Remote commands


def _command_schema() -> str:
    """The two models as the document has them."""
    document = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text("utf-8")
    fragment = document.partition("```json5\n")[2].partition("```")[0]
    head = "format: 'onetable:1.1.0', version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}}"
    return f"{{{head}, params: {{timestamps: true}}, {fragment}}}"


@pytest.fixture
def orders(bare: CloudShell) -> CloudShell:
    """With a schema that has commands, and a device that is known."""
    Path("schema.json5").write_text(_command_schema())
    bare.ok("provision")
    bare.ok("register", DEVICE, "--account", "main")
    return bare


def _stopped_clock(shell: CloudShell, looks: list[Callable[[], Any]]) -> None:
    """Time passes only while the command waits; each time something may happen first."""
    now_ms = [NOW_MS]

    def pause(seconds: float) -> None:
        now_ms[0] += int(seconds * 1000)
        if looks:
            looks.pop(0)()

    shell.monkeypatch.setattr(system, "wall_ms", lambda: now_ms[0])
    shell.monkeypatch.setattr(system, "pause", pause)


def _answer(shell: CloudShell, state: str, **more: Any) -> None:
    """The device's result of the only command, as the relay puts it."""
    (order,) = [item for item in shell.raw() if item["_type"]["S"] == "Command"]
    item = {
        "pk": order["pk"], "sk": {"S": f"command-result#{order['id']['S']}"}, "_type": {"S": "CommandResult"},
        "deviceId": order["deviceId"], "id": order["id"], "name": order["name"], "state": {"S": state}, **more,
    }  # fmt: skip
    shell.client.put_item(TableName=shell.table, Item=item)


def test_a_command_is_given_with_arguments_and_an_end(orders: CloudShell) -> None:
    _stopped_clock(orders, [])
    words = ["times=3", "fast=true", "text=3 times", 'colours:=["red"]', "number:=-1.5", 'code:="7"']
    made = orders.ok("command", DEVICE, "blink", *words, "--expires", "1h30m").row
    assert made["args"] == {
        "times": 3, "fast": True, "text": "3 times", "colours": ["red"], "number": -1.5, "code": "7",
    }  # fmt: skip
    (item,) = orders.raw()
    end_ms = NOW_MS + 90 * 60_000
    assert item["sk"]["S"] == f"command#{made['id']}" and item["expires"] == {"N": str(end_ms)}
    assert item["ttl"] == {"N": str((end_ms + 24 * 3_600_000) // 1000)}
    assert "args" not in orders.ok("command", DEVICE, "status").row


def test_an_answer_is_waited_for_and_printed(orders: CloudShell) -> None:
    done = {"data": {"M": {"times": {"N": "3"}}}}
    _stopped_clock(orders, [lambda: _answer(orders, "started"), lambda: _answer(orders, "done", **done)])
    said = orders("command", DEVICE, "blink", "--wait")
    assert (said.code, said.row["state"], said.row["data"]) == (0, "done", {"times": 3})
    assert said.row["id"] in said.err and DEVICE in said.err


@pytest.mark.parametrize("state", ["failed", "expired", "refused", "interrupted"])
def test_whoever_waits_learns_by_the_exit_code_that_it_was_not_done(orders: CloudShell, state: str) -> None:
    _stopped_clock(orders, [lambda: _answer(orders, state, message={"S": "why"})])
    said = orders("command", DEVICE, "blink", "--wait", "--expires", "5s")
    assert (said.code, said.row["state"], said.row["message"]) == (1, state, "why")


def test_nobody_waits_for_ever_for_a_device_that_does_not_answer(orders: CloudShell) -> None:
    looks: list[Callable[[], Any]] = [lambda: None] * 1000
    _stopped_clock(orders, looks)
    said = orders("command", DEVICE, "blink", "--wait", "--expires", "5s")
    assert said.code == 1 and "not answered" in said.err and said.out == ""
    assert 1000 - len(looks) in range(65, 67)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nobody", "blink"], "no device 'nobody' is registered"),
        ([DEVICE, "blink", "times"], "expected KEY=VALUE"),
        ([DEVICE, "blink", "a=1", "a=2"], "given twice"),
        ([DEVICE, "blink", "a:={"], "no JSON"),
        ([DEVICE, "blink", "--expires", "0s"], "expected a duration"),
        ([DEVICE, "blink", "--expires", "soon"], "expected a duration"),
        (["a/b", "blink"], "no device's id"),
    ],
)
def test_a_command_that_cannot_be_given_is_told(orders: CloudShell, words: list[str], told: str) -> None:
    assert told in orders.refused("command", *words)
    assert orders.raw() == []


def test_a_schema_without_commands_is_told_with_its_line(shell: CloudShell) -> None:
    said = shell("command", DEVICE, "status")
    assert said.code == 2 and "Command" in said.err and "docs/commands.md" in said.err and shell.raw() == []
