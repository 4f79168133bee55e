"""The command `fleet-agent`: what a person does on a device. So far: check a schema before it goes there.

Bad input is printed with its place, every mistake at once, and exits with 2; never a traceback. Installed as a console
script; argparse, so that the base install stays light.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from agent.protocol import listing
from agent.protocol.errors import InputError
from agent.protocol.schema import Schema
from agent.protocol.version import __version__

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code; usage errors raise SystemExit(2), as argparse does."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleet-agent",
        description="The agent on a device: an embedded database that stays in sync with the cloud.",
        epilog="Exit codes: 0 done, 2 bad input or usage.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    schema = commands.add_parser("schema", help="work with schema files", description="Work with schema files.")
    verbs = schema.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = verbs.add_parser(
        "check",
        help="check schemas and list their models",
        description="Check OneTable schemas (JSON5). Prints every mistake as file:line:column, or else each model: "
        "where it lives, which way it syncs, and the templates of its keys.",
    )
    check.add_argument("files", nargs="+", metavar="FILE", help="a schema file")
    check.add_argument("--json", action="store_true", help="print JSON, one object per file")
    check.set_defaults(run=_check)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    code = OK
    for file in arguments.files:
        try:
            schema = Schema.load(file)
        except InputError as error:
            code = BAD_INPUT
            if arguments.json:
                _print_json({"file": file, "ok": False, "problems": list(map(listing.problem_values, error.problems))})
            else:
                print(*error.problems, sep="\n", file=sys.stderr)
        else:
            if arguments.json:
                _print_json({"file": file, "ok": True, "version": schema.version, "models": listing.values(schema)})
            else:
                print(f"{file}: ok, version {schema.version}, {len(schema.models)} models")
                print(*(f"  {line}" for line in listing.lines(schema)), sep="\n")
    return code


def _print_json(values: dict[str, Any]) -> None:
    print(json.dumps(values, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
