"""What can be typed after `fleet-cloud` for work on the table, its devices and its deployment. Does nothing itself.

`COMMANDS` is read by cloud.cli, and by the documents, whose table of commands is made of it.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any, Final

from agent.protocol.commands.grammar import FIND, JSON, KEY, MODEL, WORDS, Argument, Command, add, output
from agent.protocol.commands.running import run
from agent.protocol.topics import PREFIX
from cloud.commands.failure import lines_of

TABLE: Final = "ioto"
OPENS: Final = (
    f"The table is --table, $FLEET_TABLE or {TABLE!r}; it is used only when it holds Fleet's marker item. An emulator "
    "is named by --endpoint-url or $FLEET_ENDPOINT_URL; region, profile and credentials come from where AWS's own "
    "tools find them. The schema is --schema, $FLEET_SCHEMA or schema.json5 here."
)
EPILOG: Final = "Exit codes: 0 done, 2 bad input or usage, 4 an error of fleet-cloud itself, 130 interrupted."

OUTPUT: Final = output("--columns")
_YES: Final = {"action": "store_true"}
_OF_DEVICES: Final[Argument] = (
    ("--yes",), {**_YES, "help": "also where the item is its device's own (a model that syncs up)"}
)  # fmt: skip
_PREFIX: Final[Argument] = (
    ("--topic-prefix",), {"default": PREFIX, "metavar": "PREFIX", "help": "of all topics; default: %(default)s"}
)  # fmt: skip

COMMANDS: Final = (
    Command("provision", "provision:provision", "make a table, or make a table Fleet's",
            "Makes the table with its stream, the schema's indexes, the time to live and Fleet's marker. Of a table "
            "that exists it shows what it lacks, and adds that with --yes; it takes nothing away, and what stands in "
            "the way is refused. On a table that has everything it does nothing.",
            ((("--yes",), {**_YES, "help": "change a table that exists"}),
             (("--dry-run",), {"action": "store_true", "help": "only show what would be done"}), JSON)),
    Command("register", "register:register", "make a device known, and say whose it is",
            "Makes a device known, and says whose it is (--account); the relay refuses all others. Prints its topics. "
            "A device that is registered stays as it is; --yes gives it to another account. --token makes a new token, "
            "by which the relay's WebSocket listener knows the device, and ends the one before; it is printed once, or "
            "put into the file of --out, with which an agent is set up. With --iot it also makes the device's thing and"
            " certificate in AWS IoT, where they are missing, and attaches the policy; certificate and key are written "
            "into --certificates.",
            ((("device_id",), {"metavar": "DEVICE", "help": "its id: its user name, or its thing's name"}),
             (("--yes",), {**_YES, "help": "also when it belongs to another account so far"}),
             (("--token",), {"action": "store_true", "help": "make a new token; only its SHA-256 is kept"}),
             (("--out",), {"metavar": "FILE", "help": "write the registration there, readable by its owner alone; the "
                                                      "file must not exist yet"}),
             (("--url",), {"metavar": "URL", "help": "where the device finds the relay or the broker, for that file"}),
             (("--iot",), {"metavar": "POLICY", "help": "the policy for devices in AWS IoT, as the stack has made it"}),
             (("--certificates",), {"metavar": "DIR", "help": "where certificate and key go (for --iot)"}),
             _PREFIX, JSON)),
    Command("devices", "devices:devices", "what is known of the devices",
            "Lists the devices that are registered: account, when each was last heard of, how many operations the "
            "cloud has taken of it, how many verdicts wait for it, and how many rows of its own feed it was behind at "
            "that time (only where devices are named: that takes a read for each).",
            ((("device_ids",), {"nargs": "*", "metavar": "DEVICE", "help": "these devices only"}), *OUTPUT)),
    Command("get", "items:get", "one item by its key", "Prints one item. Exits with 2 when there is none.",
            (MODEL, KEY, *OUTPUT), fields=True),
    Command("find", "items:find", "the items with these fields",
            "Prints the items whose fields have these values, in order of their sort keys. The hash key must be told, "
            "by --device, --account or fields; fields that the sort key is made of may be left out, the last ones "
            "first.",
            (*FIND, *OUTPUT), fields=True),
    Command("create", "items:create", "a new item", "Makes a new item and prints it.",
            (MODEL, WORDS, _OF_DEVICES, *OUTPUT), fields=True),
    Command("update", "items:update", "change fields of an item", "Changes the fields given and prints the item.",
            (MODEL, WORDS, _OF_DEVICES, *OUTPUT), fields=True),
    Command("upsert", "items:upsert", "update an item, or create it",
            "Changes the fields given, or makes a new item where there is none, and prints it.",
            (MODEL, WORDS, _OF_DEVICES, *OUTPUT), fields=True),
    Command("remove", "items:remove", "remove an item", "Removes an item and prints what it was.",
            (MODEL, KEY, _OF_DEVICES, *OUTPUT), fields=True),
    Command("command", "command:command", "give a device a command",
            "Gives a device a command, as an item of the model Command, which the device does at most once and answers "
            "with an item of CommandResult; docs/commands.md has both. A VALUE that looks like a number, true or false "
            "is one, any other is text; KEY:=JSON gives any JSON value. With --wait it looks until there is a final "
            "result, prints that, and exits with 1 unless the command was done.",
            ((("device_id",), {"metavar": "DEVICE", "help": "its id"}),
             (("name",), {"metavar": "NAME", "help": "status, resync, reboot, or one of the application's"}),
             (("words",), {"nargs": "*", "metavar": "KEY=VALUE", "help": "the command's arguments"}),
             (("--expires",), {"metavar": "DURATION", "default": "10m", "help": "the device does not begin it later "
                               "than so long from now; default: %(default)s"}),
             (("--wait",), {"action": "store_true", "help": "wait for the answer and print it"}), *OUTPUT)),
    Command("letters", "letters:letters", "changes that the relay could not work on",
            "Lists the records of the table's stream that the relay's processes have set aside, each with its reason. "
            "--retry works on them again, and removes those that go through; their devices get the row at their next "
            "hello, or with the feed's next one. --drop forgets them.",
            ((("--retry",), {"nargs": "*", "metavar": "ID", "help": "those with these ids, or all"}),
             (("--drop", "--discard"), {"nargs": "*", "metavar": "ID", "help": "those with these ids, or all"}),
             (("--config",), {"metavar": "FILE", "help": "the relay's settings, where it has some (for --retry)"}),
             *OUTPUT)),
    Command("oversize", "oversize:oversize", "items that are too large for any device",
            "Lists the items that applications in the cloud have made larger than a message may be (96 KB as JSON), "
            "with their bytes: devices keep what they had of them. Reads every item that syncs down, of these devices "
            "or all, and of their accounts.",
            ((("device_ids",), {"nargs": "*", "metavar": "DEVICE", "help": "these devices only"}), *OUTPUT)),
    Command("release", "upkeep:release", "let a device out of quarantine",
            "Lets a device out of quarantine, in which it is when two live copies of it have replaced each other's "
            "epochs. Wipe one of them before, or give it an identity of its own.",
            ((("device_id",), {"metavar": "DEVICE", "help": "its id"}), JSON)),
    Command("restore-mark", "upkeep:restore_mark", "after the table was put back to an older copy",
            "Gives the table a new incarnation, by which the relay and every device notice that it was put back to an "
            "older copy, in place or under a new name. Do it after the restore and before devices are served again, or "
            "as soon as you can. Says what it would do, and does it with --yes.",
            ((("--yes",), {**_YES, "help": "mark it"}), JSON)),
    Command("acl", "access:acl", "who may do what at the broker",
            "Prints mosquitto's ACL file for the registered devices, or for those that are given; or, with "
            "--iot-policy, AWS IoT's policy for every device. Both are made of the same rules.",
            ((("pairs",), {"nargs": "*", "metavar": "DEVICE=ACCOUNT", "help": "instead of those in the table"}),
             (("--relay",), {"default": "relay", "metavar": "NAME", "help": "the relay's user; default: %(default)s"}),
             (("--iot-policy",), {"action": "store_true", "help": "print the policy, with * for the AWS account"}),
             _PREFIX)),
    Command("template", "template:template", "the AWS deployment, for CloudFormation",
            "Prints a CloudFormation template: table, stream, functions with their roles, rule, policy, queues and "
            "alarms. The functions' code is a zip that you build and put into a bucket; docs/cloud.md says how.",
            ((("--out",), {"metavar": "FILE", "help": "write it there, which must not exist yet"}), _PREFIX)),
)  # fmt: skip
_OFFLINE: Final = ("template",)
_OF_ITEMS: Final = ("get", "find", "create", "update", "upsert", "remove")


def add_all(commands: Any) -> None:
    """Adds the commands to those of `fleet-cloud`."""
    for command in COMMANDS:
        offline = command.name in _OFFLINE
        added = add(commands, command, (OPENS, EPILOG) if not offline else (EPILOG,))
        added.set_defaults(run=functools.partial(_run, command.run))
        _add_table(added, command.name, offline)


def _add_table(added: argparse.ArgumentParser, name: str, offline: bool) -> None:
    table = added.add_argument_group("table")
    table.add_argument("--table", metavar="NAME", help="the table")
    table.add_argument("--schema", metavar="FILE", help="its schema")
    if offline:
        return
    table.add_argument("--endpoint-url", metavar="URL", help="an emulator's address")
    table.add_argument("--region", metavar="NAME", help="of AWS")
    table.add_argument("--profile", metavar="NAME", help="of your AWS configuration")
    if name in _OF_ITEMS:
        table.add_argument("--device", metavar="ID", help="whose item it is")
    if name in (*_OF_ITEMS, "register"):
        table.add_argument("--account", metavar="ID", help="whose account")


def _run(command: str, arguments: argparse.Namespace) -> int:
    return run(arguments, command, "cloud.commands", lines_of)
