"""The command `fleet-cloud`: what a person does on the cloud's side. Parses, and runs one command.

Has one command of its own; the others are in cloud.commands, each imported when it runs. Bad input is printed with its
place, every mistake at once, and exits with 2; never a traceback. Installed as a console script.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Final

from agent.protocol import listing
from agent.protocol.commands.grammar import parsed
from agent.protocol.commands.running import run
from agent.protocol.errors import InputError
from agent.protocol.schema import Schema
from agent.protocol.version import __version__
from cloud.commands.failure import lines_of
from cloud.commands.grammar import EPILOG, add_all

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130
# Option, what stands for its value, what it says. None has a default here: a file of settings may say it, too.
RELAY_OPTIONS: Final = (
    ("table", "NAME", "the table; it must be one that was made for Fleet"),
    ("schema", "FILE", "the OneTable schema (JSON5)"),
    (
        "broker",
        "URL",
        "mqtt://<host>[:<port>], with <user>@ before the host where it wants one; mqtts, mqtt+ws, mqtt+wss",
    ),
    ("websocket", "[HOST:]PORT", "listen here for devices that need no broker; beside --broker, or instead of it"),
    ("websocket-cert", "FILE", "the certificate of that listener (PEM, with its chain): TLS"),
    ("websocket-key", "FILE", "its key (PEM)"),
    ("websocket-client-ca", "FILE", "also let devices in by certificates that this one has signed (PEM)"),
    ("region", "NAME", "the table's region; default: AWS_REGION"),
    ("endpoint-url", "URL", "of an emulator, instead of AWS"),
    ("profile", "NAME", "of the AWS configuration; default: AWS_PROFILE"),
    ("name", "NAME", "this relay's: started again under it, it goes on at once where it was; default: by chance"),
    ("account", "NAME", "the account of every device; default: as each was registered"),
    ("group", "NAME", "of relays that share the broker's messages; '' for none; default: fleet"),
    ("mqtt", "VERSION", "5 or 3.1.1; default: 5"),
    ("ca", "FILE", "certificate that the broker's is signed with (PEM); default: the system's"),
    ("cert", "FILE", "this relay's certificate (PEM)"),
    ("key", "FILE", "its key (PEM)"),
    ("listen", "HOST:PORT", "where /metrics and /health answer; '' for nowhere; default: 127.0.0.1:9464"),
    ("log", "FORM", "json, plain, or auto: plain on a terminal; default: auto"),
    ("config", "FILE", "settings in TOML or JSON5: these names with underscores, more in docs/cloud.md"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code; usage errors raise SystemExit(2), as argparse does."""
    arguments = parsed(_parser(), argv)
    try:
        code: int = arguments.run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleet-cloud",
        description="The cloud's side: one table, and the relay that keeps devices in sync with it.",
        epilog=f"{EPILOG} `fleet-cloud COMMAND --help` says more.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    models = commands.add_parser(
        "models",
        help="list the models of a schema and their feeds",
        description="Check a OneTable schema (JSON5) and list its models: where each lives, which way it syncs, "
        "through which feed it reaches devices (one per device, one per account, one for all), and the templates of "
        "its keys.",
    )
    models.add_argument("file", metavar="FILE", help="a schema file")
    models.add_argument("--json", action="store_true", help="print JSON")
    models.set_defaults(run=_models)
    add_all(commands)
    _add_relay(commands)
    return parser


def _add_relay(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    relay = commands.add_parser(
        "relay",
        help="run the relay: devices at a broker or by WebSocket, the table and its stream",
        description="One process that keeps devices, at an MQTT broker, by WebSocket or both, in sync with a DynamoDB "
        "table. Run several for "
        "one table: they share the work, and take over from each other. Stop it with SIGTERM or Ctrl-C: it finishes "
        "what it has in hand. It may be killed at any time: nothing is lost.",
        epilog="Credentials of AWS come from where AWS tools look for them (AWS_PROFILE, AWS_ACCESS_KEY_ID and the "
        "like), the broker's password from FLEET_BROKER_PASSWORD. Exit codes: 0 stopped in order, 2 bad input, 4 "
        "internal error, 130 interrupted twice.",
    )
    for name, metavar, text in RELAY_OPTIONS:
        relay.add_argument(f"--{name}", metavar=metavar, help=text)
    relay.set_defaults(run=lambda arguments: run(arguments, "relay:run", "cloud.commands", lines_of))


def _models(arguments: argparse.Namespace) -> int:
    try:
        schema = Schema.load(arguments.file)
    except InputError as error:
        if arguments.json:
            print(json.dumps({"problems": list(map(listing.problem_values, error.problems))}, ensure_ascii=False))
        else:
            print(*error.problems, sep="\n", file=sys.stderr)
        return BAD_INPUT
    if arguments.json:
        print(json.dumps({"version": schema.version, "models": listing.values(schema)}, ensure_ascii=False))
    else:
        print(*listing.lines(schema, feed=True), sep="\n")
    return OK


if __name__ == "__main__":
    sys.exit(main())
