"""What can be typed after `fleet-agent`: commands, arguments, options and their help. Does nothing itself.

`COMMANDS` is read by agent.cli, and by the documents, whose table of commands is made of it.
"""

from __future__ import annotations

import argparse
from typing import Final

from agent.protocol.commands.grammar import FIND, JSON, KEY, MODEL, WORDS, Command, add, output
from agent.protocol.version import __version__

OPENS: Final = (
    "The database is --database, $FLEET_DATABASE or agent.db here; the schema --schema, $FLEET_SCHEMA or schema.json5 "
    "beside the database; the device --device, $FLEET_DEVICE or the one whose items are in the database; the account "
    "likewise. --config names the agent's configuration, which says all of these. Where an agent runs on the "
    "database, the agent is asked instead, at --socket, $FLEET_SOCKET or `socket` in the folder DATABASE-api."
)
OUTPUT: Final = output("--table")
EPILOG: Final = "Exit codes: 0 done, 2 bad input or usage, 4 an error of fleet-agent itself, 130 interrupted."

CONFIG: Final = (("--config",), {"metavar": "FILE", "required": True, "help": "the configuration, TOML"})
# Of the agent itself, besides those that work on a database.
DAEMON: Final = (
    Command("run", "run:run", "run the agent",
            "Keeps the device's database in sync with the cloud, and serves it on a Unix socket, until SIGTERM or "
            "SIGINT. SIGHUP reads the configuration again.", (CONFIG,)),
    Command("provision", "provision:provision", "write the agent's configuration",
            "Writes the configuration of this device's agent, readable by its owner alone, from the registration file "
            "that `fleet-cloud register --out` wrote, from options, or both: options count.",
            ((("registration",), {"nargs": "?", "metavar": "REGISTRATION",
                                  "help": "what `fleet-cloud register` wrote"}),
             (("--config",), {"metavar": "FILE", "default": "agent.toml",
                              "help": "the new file; default: %(default)s"}),
             (("--device",), {"metavar": "ID", "help": "who this device is"}),
             (("--account",), {"metavar": "ID", "help": "whose it is"}),
             (("--url",), {"metavar": "URL", "help": "of the broker (mqtt, mqtts, mqtt+ws, mqtt+wss) or the relay (ws, "
                                                     "wss)"}),
             (("--token",), {"metavar": "TOKEN", "help": "for the relay itself"}),
             (("--ca",), {"metavar": "FILE", "help": "certificate of the authority that signed the server's"}),
             (("--certificate",), {"metavar": "FILE", "help": "this device's certificate"}),
             (("--key",), {"metavar": "FILE", "help": "its key"}),
             (("--username",), {"metavar": "NAME", "help": "for the broker"}),
             (("--password",), {"metavar": "TEXT", "help": "for the broker"}),
             (("--topic-prefix",), {"metavar": "PREFIX", "help": "of the topics"}),
             (("--database",), {"metavar": "FILE",
                                "help": "the database; default: agent.db beside the configuration"}),
             (("--schema",), {"metavar": "FILE",
                              "help": "its schema; default: schema.json5 beside the configuration"}))),
    Command("install-service", "service_unit:install", "let systemd run the agent",
            "Writes a unit for systemd: started at boot, restarted whenever it ends, killed when it hangs, and with no "
            "right that it does not need. It runs as the user who calls this, or as --run-as, whose the configuration "
            "and the database must be.",
            (CONFIG,
             (("--user",), {"action": "store_true", "help": "for your own manager instead of the system's"}),
             (("--run-as",), {"metavar": "NAME", "help": "the user that it runs as"}),
             (("--name",), {"metavar": "NAME", "default": "fleet-agent", "help": "of the unit; default: %(default)s"}),
             (("--print",), {"action": "store_true", "help": "print the unit and write nothing"}),
             (("--yes",), {"action": "store_true", "help": "write over another unit of that name"}))),
)  # fmt: skip

COMMANDS: Final = (
    Command("get", "items:get", "one item by its key", "Prints one item. Exits with 2 when there is none.",
            (MODEL, KEY, *OUTPUT), fields=True),
    Command("find", "items:find", "the items with these fields",
            "Prints the items whose fields have these values, in order of their sort keys. Fields that the sort "
            "key is made of may be left out, the last ones first.",
            (*FIND, *OUTPUT), fields=True),
    Command("create", "items:create", "a new item", "Makes a new item and prints it. Begins a database where there is "
            "none.", (MODEL, WORDS, *OUTPUT), fields=True),
    Command("update", "items:update", "change fields of an item", "Changes the fields given and prints the item.",
            (MODEL, WORDS, *OUTPUT), fields=True),
    Command("upsert", "items:upsert", "update an item, or create it", "Changes the fields given, or makes a new item "
            "where there is none, and prints it. Begins a database where there is none.",
            (MODEL, WORDS, *OUTPUT), fields=True),
    Command("remove", "items:remove", "remove an item", "Removes an item and prints what it was.",
            (MODEL, KEY, *OUTPUT), fields=True),
    Command("watch", "watch:watch", "print changes as they happen",
            "Prints each change as the agent tells it, verdicts of the cloud among them, until it is interrupted. "
            "Where no agent runs, it looks at the file now and then and holds it only while it reads: of several "
            "changes between two looks it shows the sum.",
            ((("models",), {"nargs": "*", "metavar": "MODEL", "help": "these models only"}),
             (("--count",), {"type": int, "metavar": "N", "help": "end after N changes"}),
             (("--interval",), {"type": float, "default": 0.5, "metavar": "SECONDS",
                                "help": "between two looks; default: %(default)s"}),
             *OUTPUT)),
    Command("status", "status:status", "how the agent and its database are",
            "Prints the session's state, since when it is connected or why it is not, what waits to be sent, and more. "
            "Where no agent runs, what the file says.", (JSON,)),
    Command("rejected", "rejected:rejected", "writes that the cloud rejected",
            "Lists the writes that the cloud rejected, and the changes from the cloud that could not be applied, with "
            "the reason of each. --retry sends a write again, as a new one; --drop forgets it.",
            ((("--retry",), {"nargs": "*", "type": int, "metavar": "N", "help": "those with these numbers, or all"}),
             (("--drop", "--discard"), {"nargs": "*", "type": int, "metavar": "N",
                                        "help": "those with these numbers, or all"}),
             *OUTPUT)),
    Command("backup", "files:backup", "copy the database to a file",
            "Writes a whole, consistent copy of the database to FILE, which must not be there yet. An agent that "
            "runs goes on meanwhile.",
            ((("file",), {"metavar": "FILE", "help": "the copy"}), JSON)),
    Command("compact", "files:compact", "give unused space back",
            "Makes the file as small as it can be. Where an agent runs, applications wait meanwhile.", (JSON,)),
    Command("export", "files:export", "all items as JSON lines",
            "Writes one JSON object an item: model, key and item, with a tag ($B, $N, $SS, $NS, $BS) where JSON has no "
            "such value. `import` reads them.",
            ((("file",), {"nargs": "?", "default": "-", "metavar": "FILE", "help": "default: standard output"}),
             (("--model",), {"action": "append", "metavar": "MODEL", "help": "these models only; may be repeated"}))),
    Command("import", "files:import_", "items from JSON lines",
            "Reads what `export` writes. An item that is there already is changed to what the line says. When a line "
            "is refused nothing is changed, but with --partial. Begins a database where there is none.",
            ((("file",), {"nargs": "?", "default": "-", "metavar": "FILE", "help": "default: standard input"}),
             (("--partial",), {"action": "store_true", "help": "keep what can be imported"}), JSON)),
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="fleet-agent",
        description="The agent on a device: an embedded database that stays in sync with the cloud.",
        epilog=f"{EPILOG} `fleet-agent COMMAND --help` says more.",
    )
    main.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = main.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in DAEMON:
        add(commands, command, (EPILOG,))
    for command in COMMANDS:
        database = add(commands, command, (OPENS, EPILOG)).add_argument_group("database")
        database.add_argument("--database", metavar="FILE", help="the database")
        database.add_argument("--schema", metavar="FILE", help="its schema")
        database.add_argument("--device", metavar="ID", help="whose device it is")
        database.add_argument("--account", metavar="ID", help="whose account")
        database.add_argument("--config", metavar="FILE", help="the agent's configuration, which says all of these")
        database.add_argument("--socket", metavar="FILE", help="of the agent that runs on the database")
    schema = commands.add_parser("schema", help="work with schema files", description="Work with schema files.")
    verbs = schema.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = verbs.add_parser(
        "check",
        help="check schemas and list their models",
        description="Check OneTable schemas (JSON5) and the files that they blend. Prints every mistake as "
        "file:line:column, or else each model: where it lives, which way it syncs, the templates of its keys, how many "
        "fields it has, and what else is said of it.",
        epilog=EPILOG,
    )
    check.add_argument("files", nargs="+", metavar="FILE", help="a schema file")
    check.add_argument("--json", action="store_true", help="print JSON, one object per file")
    check.set_defaults(run="schema:check", parser=check)
    return main
