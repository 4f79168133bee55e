"""`fleet-cloud command` at a shell, on a table of moto's server: what is ordered, and how its answer is waited for.

Called by pytest only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cloud_shell import CloudShell
from command_rig import DEVICE
from relay_rig import NOW_MS

from cloud import system


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
