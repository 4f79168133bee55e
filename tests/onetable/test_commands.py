"""`fleet-cloud` and the JavaScript library on one table: each reads, changes and removes what the other wrote.

Both store the same, attribute by attribute. Called by pytest only; needs Node, as the tests beside it say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from onetable.capture import Library
from onetable.values import Raw

from agent.protocol.onetable.attributes import to_item
from agent.protocol.schema import Schema
from cloud.cli import main
from cloud.dynamodb_table import VIEW
from cloud.table import MARKER_KEY

CONTEXT: Final = {"deviceId": "home-1", "accountId": "main"}
TEXT: Final = {"type": "string"}
SCHEMA: Final[dict[str, Any]] = {
    "format": "onetable:1.1.0",
    "version": "1.0.0",
    "indexes": {"primary": {"hash": "pk", "sort": "sk"}, "gs1": {"hash": "gs1pk", "sort": "gs1sk"}},
    "params": {"typeField": "_type", "isoDates": True, "timestamps": True, "nulls": False},
    "models": {
        "Thing": {
            "pk": {"type": "string", "value": "device#${deviceId}"},
            "sk": {"type": "string", "value": "thing#${name}"},
            "deviceId": {"type": "string", "required": True},
            "name": {"type": "string", "required": True},
            "level": {"type": "number", "default": 5},
            "active": {"type": "boolean"},
            "tags": {"type": "set"},
            "limits": {"type": "object", "schema": {"low": {"type": "number"}, "high": {"type": "number"}}},
            "list": {"type": "array"},
            "at": {"type": "date"},
            "serial": {"type": "string", "unique": True},
            "state": {"type": "string", "enum": ["on", "off"]},
            "gs1pk": {"type": "string", "value": "things"},
            "gs1sk": {"type": "string", "value": "${level}#${name}"},
        }
    },
}
FULL: Final[dict[str, Any]] = {
    "name": "a", "level": 7, "active": True, "tags": ["x", "y"], "limits": {"low": 1, "high": 2.5},
    "list": [1, "b", None], "at": "2026-02-03T04:05:06.789Z", "serial": "s-1", "state": "on",
}  # fmt: skip
STAMPS: Final = ("created", "updated")
Shell = Callable[..., list[Any]]


@pytest.fixture
def shell(moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs `fleet-cloud` for device home-1; gives its output as JSON."""
    (tmp_path / "schema.json5").write_text(json.dumps(SCHEMA))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_SCHEMA", raising=False)
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1"),
        ("FLEET_ENDPOINT_URL", moto),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)

    def run(table: str, verb: str, *words: str, **fields: Any) -> list[Any]:
        given = [f"{name}:={json.dumps(value)}" for name, value in fields.items()]
        code = main([verb, "Thing", *words, *given, "--device", "home-1", "--table", table])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return [json.loads(line) for line in captured.out.splitlines()]

    return run


def opened(live: Library, name: str) -> str:
    """A new table that the library has made, and that is Fleet's."""
    table = f"{name}-{next(live.numbers)}"
    live.bridge.open(table, SCHEMA, CONTEXT)
    live.boto.update_table(TableName=table, StreamSpecification={"StreamEnabled": True, "StreamViewType": VIEW})
    life = {"Enabled": True, "AttributeName": "ttl"}
    live.boto.update_time_to_live(TableName=table, TimeToLiveSpecification=life)
    live.boto.put_item(TableName=table, Item=to_item(MARKER_KEY, {"_type": "_FleetTable"}))
    return table


def raw(live: Library, table: str) -> list[Raw]:
    """What applications stored, without the stamps, which two programs take at different times."""
    items = [item for item in live.bridge.raw(table) if not item["pk"]["S"].startswith("_fleet#")]
    return [{name: value for name, value in item.items() if name not in STAMPS} for item in items]


def library_properties(fields: dict[str, Any]) -> dict[str, Any]:
    """As an application in JavaScript gives them."""
    made = dict(fields)
    if "tags" in made:
        made["tags"] = set(made["tags"])
    if "at" in made:
        made["at"] = datetime.fromisoformat(made["at"])
    return made


STEPS: Final[list[list[tuple[str, dict[str, Any]]]]] = [
    [("create", FULL)],
    [("create", {"name": "a"})],
    [("create", FULL), ("update", {"name": "a", "level": 8, "limits": {"low": 3}, "state": None})],
    [("create", FULL), ("update", {"name": "a", "serial": "s-2", "tags": ["z"]})],
    [("create", FULL), ("update", {"name": "a", "serial": None, "list": []})],
    [("upsert", FULL)],
    [("create", {"name": "a"}), ("upsert", {"name": "a", "level": 1, "active": False})],
    [("create", FULL), ("create", {"name": "b", "serial": "s-2"}), ("remove", {"name": "a"})],
]


@pytest.mark.parametrize("steps", STEPS, ids=lambda steps: "-".join(verb for verb, _ in steps))
def test_the_command_stores_what_the_library_stores(
    live: Library, shell: Shell, steps: list[tuple[str, dict[str, Any]]]
) -> None:
    ours, theirs = opened(live, "ours"), opened(live, "theirs")
    for number, (verb, fields) in enumerate(steps):
        shell(ours, verb, **fields)
        live.bridge.call(theirs, "Thing", verb, library_properties(fields), 1_700_000_000_000 + number)
    assert raw(live, ours) == raw(live, theirs)
    assert raw(live, ours)


def test_stamps_have_the_librarys_form(live: Library, shell: Shell) -> None:
    table = opened(live, "stamps")
    shell(table, "create", **FULL)
    (item,) = [item for item in live.bridge.raw(table) if item["sk"]["S"] == "thing#a"]
    for name in STAMPS:
        assert list(item[name]) == ["S"] and item[name]["S"].endswith("Z") and len(item[name]["S"]) == 24


def test_the_library_reads_changes_and_removes_what_the_command_wrote(live: Library, shell: Shell) -> None:
    table = opened(live, "there")
    shell(table, "create", **FULL)
    read = live.bridge.call(table, "Thing", "get", {"name": "a"})
    assert (read["level"], read["limits"], read["serial"]) == (7, {"low": 1, "high": 2.5}, "s-1")
    live.bridge.call(table, "Thing", "update", {"name": "a", "level": 9, "serial": "s-9"}, 1_800_000_000_000)
    (changed,) = shell(table, "get", "a")
    assert (changed["level"], changed["serial"], changed["updated"]) == (9, "s-9", "2027-01-15T08:00:00.000Z")
    live.bridge.call(table, "Thing", "remove", {"name": "a"})
    assert shell(table, "find") == []
    assert raw(live, table) == []


def test_the_command_reads_changes_and_removes_what_the_library_wrote(live: Library, shell: Shell) -> None:
    table = opened(live, "back")
    live.bridge.call(table, "Thing", "create", library_properties(FULL), 1_700_000_000_000)
    (read,) = shell(table, "get", "a")
    assert {name: read[name] for name in FULL} == FULL
    assert [item["name"] for item in shell(table, "find", "--index", "gs1")] == ["a"]
    shell(table, "update", "a", level=9, serial="s-9")
    changed = live.bridge.call(table, "Thing", "get", {"name": "a"})
    assert (changed["level"], changed["serial"]) == (9, "s-9")
    shell(table, "remove", "a")
    assert raw(live, table) == []
    assert live.bridge.call(table, "Thing", "get", {"name": "a"}) is None


def test_the_schema_is_one_that_both_take() -> None:
    assert Schema.parse(json.dumps(SCHEMA), "schema.json5").models["Thing"].unique_fields
