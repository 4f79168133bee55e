"""The command `fleet-cloud`: what a person does on the cloud's side. Parses, and runs one command.

Has one command of its own; the others are in cloud.commands, each imported when it runs. Bad input is printed with its
place, every mistake at once, and exits with 2; never a traceback. Installed as a console script.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from agent.protocol import listing
from agent.protocol.commands.grammar import parsed
from agent.protocol.errors import InputError
from agent.protocol.schema import Schema
from agent.protocol.version import __version__
from cloud.commands.grammar import EPILOG, add_all

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130


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
    return parser


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
