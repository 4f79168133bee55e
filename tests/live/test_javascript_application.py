"""An application in JavaScript and a device, with everything real between them: library, table, stream, relay, broker.

The application is the npm library `dynamodb-onetable` in Node (tests/onetable); it and `fleet-cloud relay` know nothing
of each other but moto's table. How the library's items look, attribute by attribute, is tests/onetable's part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from live_rig import LiveDevice, Mosquitto, RelayProcess, Table, devices, pump, table_name, wall_ms
from onetable.bridge import Bridge
from onetable.values import from_tagged, to_tagged

from agent.events import State
from agent.protocol.schema import Schema

DEVICE: Final = {"deviceId": "home-1"}
CONTEXT: Final = {**DEVICE, "accountId": "main"}
FIELDS: Final[dict[str, Any]] = {
    "title": {"type": "string"},
    "count": {"type": "number"},
    "share": {"type": "number"},
    "active": {"type": "boolean"},
    "due": {"type": "date"},
    "place": {
        "type": "object",
        "schema": {
            "room": {"type": "string"},
            "since": {"type": "date"},
            "door": {"type": "object", "schema": {"open": {"type": "boolean"}, "angle": {"type": "number"}}},
        },
    },
    "extra": {"type": "object"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "mixed": {"type": "array"},
}
DIRECTIONS: Final = {"Recipe": "down", "Reading": "up", "Preset": "both"}
SCHEMA: Final[dict[str, Any]] = {
    "format": "onetable:1.1.0",
    "version": "0.0.1",
    "indexes": {"primary": {"hash": "pk", "sort": "sk"}},
    "params": {"isoDates": True, "timestamps": True},
    "process": {model: {"enable": "both", "sync": way} for model, way in DIRECTIONS.items()},
    "models": {
        model: {
            "pk": {"type": "string", "value": "device#${deviceId}"},
            "sk": {"type": "string", "value": f"{model.lower()}#${{id}}"},
            "deviceId": {"type": "string", "required": True},
            "id": {"type": "string", "required": True},
            **FIELDS,
        }
        for model in DIRECTIONS
    },
}
FULL: Final[dict[str, Any]] = {
    "title": 'Grüße, "世界" 🚪\n',
    "count": 2**53 - 1,
    "share": -0.1,
    "active": True,
    "due": datetime(2026, 2, 3, 4, 5, 6, 789_000, UTC),
    "place": {
        "room": "hall",
        "since": datetime(1999, 12, 31, 23, 59, 59, 1_000, UTC),
        "door": {"open": False, "angle": 1e-9},
    },
    "extra": {"deep": {"deeper": [{"at": 1.5}, "two"]}, "none": {}},
    "tags": ["b", "a", ""],
    "mixed": [1, "1", True, [], {"a": [0]}],
}
CHANGE: Final[dict[str, Any]] = {
    "title": "",
    "count": 0,
    "share": 12345.678,
    "active": False,
    "due": datetime(2031, 1, 1, tzinfo=UTC),
    "place": {"room": "cellar", "door": {"open": True}},
    "extra": None,  # removes the attribute
    "tags": [],
    "mixed": [[2]],
}
CHANGED: Final[dict[str, Any]] = {name: value for name, value in CHANGE.items() if value is not None}
SOME: Final[dict[str, Any]] = {"title": "another", "count": 7}


@dataclass(frozen=True)
class Application:
    """What a program in JavaScript does with the table, as Python has values. `late_ms`: how far its clock is off."""

    bridge: Bridge
    table: str

    def call(self, verb: str, model: str, item: str | None, late_ms: int = 0, **properties: Any) -> Any:
        key = DEVICE if item is None else {**DEVICE, "id": item}
        return from_tagged(self.bridge.call(self.table, model, verb, {**key, **properties}, wall_ms() + late_ms))

    def get(self, model: str, item: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.call("get", model, item)
        return found

    def find(self, model: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("find", model, None)
        return found


@dataclass(frozen=True)
class Both:
    """The two sides of a table."""

    application: Application
    device: LiveDevice
    relay: RelayProcess

    def write(self, verb: str, model: str, item: str, **properties: Any) -> None:
        """On the device."""
        getattr(self.device.database, verb)(model, {"id": item, **properties})

    def end_with(self, model: str, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Both sides come to hold these items of a model and no other, each with these fields besides key and stamps,
        value for value, by `get` as by `find`; and nothing waits on the device."""

        def arrived() -> bool:
            if self.device.database.pending():
                return False
            here = self._device(model)
            found = {item["id"]: _fields(item) for item in here}
            return _exact(here) == _exact(self.application.find(model)) and _exact(found) == _exact(wanted)

        try:
            pump([self.device], arrived, model)
        except AssertionError as error:
            sides = f"device: {self._device(model)}, application: {self.application.find(model)}"
            raise AssertionError(f"{model} {sorted(wanted)} is not there. {sides}") from error
        for item in self._device(model):
            assert _exact(self.application.get(model, item["id"])) == _exact(item)
            assert _exact(self.device.database.get(model, {"id": item["id"]})) == _exact(item)

    def _device(self, model: str) -> list[dict[str, Any]]:
        return list(self.device.database.find(model, {}))

    def missing(self, model: str, item: str) -> bool:
        """On both sides."""
        return self.application.get(model, item) is self.device.database.get(model, {"id": item}) is None


def _fields(item: Mapping[str, Any]) -> dict[str, Any]:
    assert isinstance(item["created"], datetime) and isinstance(item["updated"], datetime)
    return {name: value for name, value in item.items() if name in FIELDS}


def _exact(value: Any) -> str:
    """To compare: in Python alone True is 1."""
    return json.dumps(to_tagged(value), sort_keys=True)


def _has_joined(device: LiveDevice) -> bool:
    return all(feed in device.store.cursors for feed in device.session.replica.feeds)


@pytest.fixture
def both(
    request: pytest.FixtureRequest, tmp_path: Path, javascript: Bridge, moto: str, broker: Mosquitto
) -> Iterator[Both]:
    table = Table(moto, table_name(request.node.nodeid), {"home-1": "main"})
    javascript.open(table.name, SCHEMA, CONTEXT, create=False)
    file = tmp_path / "schema.json5"
    file.write_text(json.dumps(SCHEMA), "utf-8")
    with (
        RelayProcess(tmp_path, table, broker.url, schema=file) as relay,
        devices(broker.port, "home-1", schema=Schema.load(file)) as (device,),
    ):
        relay.ready().wait("shard-taken")
        # Before anything is written: later it would all come in the device's first snapshot, and nothing by the stream.
        pump([device], lambda: device.session.state is State.IDLE and _has_joined(device), "the device has its feeds")
        yield Both(Application(javascript, table.name), device, relay)
        assert relay.terminate() == 0
        assert not [each for each in relay.said if each["level"] != "info"], relay.said


@pytest.mark.parametrize("model", ["Recipe", "Preset"])
def test_a_device_sees_what_the_application_creates_changes_and_removes(both: Both, model: str) -> None:
    application = both.application
    application.call("create", model, "a", **FULL)
    application.call("create", model, "b", **SOME)
    both.end_with(model, {"a": FULL, "b": SOME})
    application.call("update", model, "a", **CHANGE)
    application.call("update", model, "b", **FULL)
    both.end_with(model, {"a": CHANGED, "b": FULL})
    application.call("remove", model, "a")
    both.end_with(model, {"b": FULL})
    assert both.missing(model, "a")
    application.call("create", model, "a", **SOME)
    both.end_with(model, {"a": SOME, "b": FULL})


@pytest.mark.parametrize("model", ["Reading", "Preset"])
def test_the_application_reads_what_a_device_creates_changes_and_removes(both: Both, model: str) -> None:
    both.write("create", model, "a", **FULL)
    both.write("create", model, "b", **SOME)
    both.end_with(model, {"a": FULL, "b": SOME})
    both.write("update", model, "a", **CHANGE)
    both.write("update", model, "b", **FULL)
    both.end_with(model, {"a": CHANGED, "b": FULL})
    both.write("remove", model, "a")
    both.end_with(model, {"b": FULL})
    assert both.missing(model, "a")
    both.write("create", model, "a", **SOME)
    both.end_with(model, {"a": SOME, "b": FULL})


def test_what_both_have_changed_ends_the_same_on_both(both: Both) -> None:
    """The application is first in the table each time; the device's write, made before it hears of that, has the newer
    stamp or the older. What is gone is brought back by a create alone."""
    model, application, device = "Preset", both.application, both.device
    for item in ("newer", "older", "gone"):
        application.call("create", model, item, **FULL)
    both.end_with(model, dict.fromkeys(("newer", "older", "gone"), FULL))
    device.events()
    application.call("update", model, "newer", late_ms=-30_000, title="application", count=1)
    application.call("update", model, "older", late_ms=30_000, title="application", count=1)
    application.call("remove", model, "gone")
    for item in ("newer", "older", "gone"):
        both.write("update", model, item, title="device", share=2)
    both.end_with(
        model,
        {"newer": {**FULL, "title": "device", "share": 2}, "older": {**FULL, "title": "application", "count": 1}},
    )
    assert both.missing(model, "gone")
    assert device.events().count("lost") == 2
    # Each side goes on from there.
    application.call("update", model, "newer", title="later")
    both.write("update", model, "older", title="later")
    both.end_with(
        model, {"newer": {**FULL, "title": "later", "share": 2}, "older": {**FULL, "title": "later", "count": 1}}
    )
