"""What the documents take from the code is what the code says now. Called by pytest only."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from agent.protocol.messages import Ack
from agent.transitions import TRANSITIONS
from docs import generate, protocol_tables, scenario_tables, source_tables
from fleet.oracle import NAMES
from fleet.plants import PLANTS
from fleet.scenario.faults import KINDS
from fleet.scenario.json_schema import json_schema

BEHIND = "the documents are behind the code: run `python -m docs.generate`"


@pytest.mark.parametrize("path", generate.documents(), ids=lambda path: path.name)
def test_a_document_says_what_the_code_says(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text == generate.generated(text), BEHIND


def test_every_part_stands_in_one_document() -> None:
    found = [name for path in generate.documents() for name in generate.names_in(path.read_text("utf-8"))]
    assert sorted(found) == sorted(generate.PARTS)


def test_every_mark_is_closed() -> None:
    for path in generate.documents():
        text = path.read_text("utf-8")
        begun = re.findall(r"<!-- generated: ([\w-]+) -->", text)
        assert begun == re.findall(r"<!-- end: ([\w-]+) -->", text) == generate.names_in(text), path.name


def test_a_document_behind_the_code_is_noticed_and_put_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "protocol.md"
    shutil.copy(generate.FOLDER / name, tmp_path)
    path = tmp_path / name
    right = path.read_text("utf-8")
    path.write_text(right.replace("idle --> sending", "idle --> nowhere"), "utf-8")
    assert generate.main(["--check", "--folder", str(tmp_path)]) == 1
    assert name in capsys.readouterr().out
    assert path.read_text("utf-8") != right
    assert generate.main(["--folder", str(tmp_path)]) == 0
    assert path.read_text("utf-8") == right
    assert generate.main(["--check", "--folder", str(tmp_path)]) == 0


def test_a_part_that_nobody_makes_is_an_error() -> None:
    with pytest.raises(KeyError):
        generate.generated("<!-- generated: nothing -->\n<!-- end: nothing -->")


def test_the_diagram_has_every_way_between_two_states() -> None:
    edges = set(re.findall(r"^    (\w+) --> (\w+)", protocol_tables.diagram(), re.M))
    assert edges == {
        (state.value, other.value)
        for state, events in TRANSITIONS.items()
        for _, following in events.values()
        for other in following
        if other is not state
    }


def test_a_field_without_an_explanation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: text for name, text in protocol_tables.FIELDS.items() if name != "Ack.upid"}
    monkeypatch.setattr(protocol_tables, "FIELDS", kept)
    with pytest.raises(protocol_tables.UnexplainedError, match=r"Ack\.upid"):
        protocol_tables.message_tables()


def test_an_explanation_without_its_field_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol_tables, "COLUMNS", {**protocol_tables.COLUMNS, "item.colour": "of it"})
    with pytest.raises(protocol_tables.UnexplainedError, match=r"item\.colour"):
        protocol_tables.device_tables()


def test_a_message_is_shown_with_its_types_and_defaults() -> None:
    text = protocol_tables.message_tables()
    assert "| `verdicts` | `dict[int, str]` | `{}` |" in text
    assert all(f"| `{name}` |" in text for name in Ack.__struct_fields__)


def test_a_number_is_shown_with_its_default_and_its_comment() -> None:
    assert "| `stable_ms` | 20s | of connection, before the back-off starts anew |" in protocol_tables.agent_numbers()
    assert "| `retention_ms` | 7d |" in protocol_tables.relay_numbers()


def test_every_key_of_a_scenario_is_listed() -> None:
    text = scenario_tables.keys() + scenario_tables.fault_keys()
    definitions = [json_schema(), *json_schema()["definitions"].values()]
    for definition in definitions:
        for part in (definition, *definition.get("anyOf", ())):
            for name in part.get("properties", {}):
                assert name == "kind" or f"| `{name}` |" in text, name


def test_every_fault_check_and_plant_is_listed() -> None:
    assert all(f"### {name}\n" in scenario_tables.fault_keys() for name in KINDS)
    assert all(f"| `{name}` |" in source_tables.checks() for name in NAMES)
    assert all(f"| `{name}` |" in source_tables.plants() for name in PLANTS)


def test_a_unit_without_a_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        scenario_tables.kind_of({"type": "string", "examples": ["3 furlongs"]})
