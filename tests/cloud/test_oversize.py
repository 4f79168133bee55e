"""`fleet-cloud oversize`: what the relay could not send of what applications in the cloud wrote.

Called by pytest only.
"""

from __future__ import annotations

from cloud_shell import CloudShell
from command_rig import DEVICE
from dynamo_rig import adapter

from agent.protocol.messages import ITEM_BYTES_MAX
from agent.protocol.schema import Schema
from cloud.commands.opening import logic, unheard
from cloud.drive import run
from cloud.head import Feed
from cloud.table import Put


def test_items_over_the_limit_are_listed_with_their_bytes_and_no_others(shell: CloudShell) -> None:
    shell.ok("register", DEVICE, "--account", "main")
    shell.ok("register", "dev-2", "--account", "main")
    said = shell("oversize")
    assert (said.code, said.out, said.err) == (0, "", f"no item is too large (over {ITEM_BYTES_MAX:,} bytes)\n")
    shell.ok("create", "Config", "-", "--device", DEVICE, stdin='{"text": "' + "x" * ITEM_BYTES_MAX + '"}')
    shell.ok("create", "Config", "-", "--device", "dev-2", stdin='{"text": "' + "x" * (ITEM_BYTES_MAX - 500) + '"}')
    (row,) = shell.ok("oversize", "--json").rows
    assert (row["model"], row["key"], row["feed"]) == ("Config", [f"device#{DEVICE}", "config#"], "device")
    assert ITEM_BYTES_MAX < row["bytes"] < ITEM_BYTES_MAX + 500 and row["most"] == ITEM_BYTES_MAX
    assert f"Config  device#{DEVICE} / config#" in shell.ok("oversize", DEVICE, "--columns").out
    assert shell("oversize", "dev-2").out == ""
    assert "not registered: dev-3" in shell.refused("oversize", "dev-3")


def test_it_measures_what_the_relay_measures(shell: CloudShell) -> None:
    """The bytes that it tells are those in the row of the log."""
    shell.ok("register", DEVICE, "--account", "main")
    shell.ok("create", "Setting", "-", "--device", DEVICE, stdin='{"name": "' + "\u00e9" * 400 + '", "level": 1}')
    table = adapter(shell.client, shell.table)
    key = (f"device#{DEVICE}", "setting#big")
    table.execute(Put({"pk": key[0], "sk": key[1], "_type": "Setting", "name": "big", "more": "\u00e9" * 60_000}))
    (row,) = shell.ok("oversize", "--json").rows
    relay = logic(Schema.load("schema.json5"))
    logged: dict[str, object] = {}
    run(relay.sequencer.fill(logged, Feed("device", DEVICE, "ioto"), key, False), table.execute, unheard)
    assert logged["oversize"] == row["bytes"] > 120_000
