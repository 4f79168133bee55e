"""The models of remote commands in a schema: those that fit, and every mistake with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from relay_rig import SCHEMA as WITHOUT
from remote_rig import FILE, SCHEMA

from agent.protocol.errors import InputError
from agent.protocol.remote import check_models, has_commands
from agent.protocol.schema import Schema

ROOT = Path(__file__).resolve().parents[2]
TEXT = FILE.read_text("utf-8")


def problems(text: str) -> list[str]:
    schema = Schema.parse(text, "s.json5")
    with pytest.raises(InputError) as caught:
        check_models(schema, ("rev",))
    return [str(problem) for problem in caught.value.problems]


def test_the_shipped_schema_fits() -> None:
    check_models(SCHEMA, ("rev",))
    assert has_commands(SCHEMA) and not has_commands(WITHOUT)


def test_the_fragment_in_the_document_fits() -> None:
    document = (ROOT / "docs" / "commands.md").read_text("utf-8")
    fragment = document.partition("```json5\n")[2].partition("```")[0]
    head = "format: 'onetable:1.1.0', version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}}"
    check_models(Schema.parse(f"{{{head}, params: {{timestamps: true}}, {fragment}}}", "fragment.json5"))


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        (
            "Command: {enable: 'both', sync: 'down'}",
            "Command: {enable: 'both', sync: 'both'}",
            "process.Command",
            "down",
        ),
        ("sync: 'up'},     //", "sync: 'both'},     //", "process.CommandResult", "expected up"),
        ("args: {type: 'object'}", "args: {type: 'string'}", "models.Command.args", "object"),
        ("            expires: {type: 'date', required: true},\n", "", "models.Command", "'expires'"),
        ("expires: {type: 'date', required: true}", "expires: {type: 'number'}", "models.Command.expires", "date"),
        ("data: {type: 'object'}", "data: {type: 'array'}", "models.CommandResult.data", "object"),
        (
            "data: {type: 'object'}",
            "data: {type: 'object', schema: {a: {type: 'string'}}}",
            "CommandResult.data",
            "any",
        ),
        ("            message: {type: 'string'},\n", "", "models.CommandResult", "'message'"),
        ("'refused', 'interrupted'", "'refused'", "models.CommandResult.state", "interrupted"),
        ("'command-result#${id}'", "'command-result#${name}#${id}'", "models.CommandResult.sk", "${id}"),
        ("value: 'command#${id}'", "value: 'command#${name}'", "models.Command.sk", "${id}"),
        ("code: {type: 'string'}", "code: {type: 'string', required: true}", "CommandResult.code", "required"),
    ],
)
def test_what_does_not_fit_is_told_with_its_line(old: str, new: str, place: str, words: str) -> None:
    assert TEXT.count(old) == 1
    (problem,) = problems(TEXT.replace(old, new))
    assert place in problem and words in problem
    line = int(problem.split(":")[1])
    assert place.rpartition(".")[2] in TEXT.replace(old, new).splitlines()[line - 1]


def test_results_without_a_life_are_refused() -> None:
    ends = "ttl: {type: 'date', ttl: true},\n        },\n        Status"
    assert TEXT.count(ends) == 1
    (problem,) = problems(TEXT.replace(ends, ends.replace(", ttl: true", "")))
    assert "models.CommandResult.ttl" in problem


def test_a_command_that_is_its_own_end_of_life_is_refused() -> None:
    text = TEXT.replace("expires: {type: 'date', required: true}", "expires: {type: 'date', ttl: true, map: 'ttl'}")
    text = text.replace(
        "            ttl: {type: 'date', ttl: true},\n        },\n        CommandResult",
        "        },\n        CommandResult",
    )
    assert any("models.Command.expires" in problem and "time to live" in problem for problem in problems(text))


def test_a_command_for_all_devices_of_an_account_is_refused() -> None:
    head = "Command: {\n            pk: {type: 'string', value: 'device#${deviceId}'}"
    assert TEXT.count(head) == 1
    text = TEXT.replace(head, head.replace("device#${deviceId}", "account#${accountId}"))
    assert any("one device's" in problem for problem in problems(text))


def test_a_schema_without_the_models_says_so_at_once() -> None:
    found = problems(WITHOUT.text)
    assert any("CommandResult" in problem and "docs/commands.md" in problem for problem in found)


def test_of_a_schema_that_was_put_together_no_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "base.json5").write_text(TEXT.replace("args: {type: 'object'}", "args: {type: 'string'}"))
    top = {"blend": ["base.json5"], "version": "2"}
    (tmp_path / "top.json5").write_text(json.dumps(top))
    with pytest.raises(InputError) as caught:
        check_models(Schema.load(tmp_path / "top.json5"), ("rev",))
    (problem,) = caught.value.problems
    assert problem.line == 0 and problem.key == "models.Command.args"
