"""How a command is described: name, arguments, help. Read by both command lines, and by the documents.

Prints nothing itself: argparse does.
"""

from __future__ import annotations

import argparse
from typing import Any, Final, NamedTuple

FIELDS: Final = (
    "FIELD=VALUE is read by the type of the field: text as it is, a number, true or false, a date as "
    "2026-01-02T03:04:05Z (or milliseconds since 1970), bytes as base64; sets, arrays and objects as JSON. "
    "FIELD:=JSON gives any JSON value; null removes the field. A word alone is the value of the next field of the key. "
    "`-` reads a JSON object from standard input."
)
Argument = tuple[tuple[str, ...], dict[str, Any]]
JSON: Final[Argument] = (("--json",), {"action": "store_true", "help": "print JSON"})


def output(option: str) -> tuple[Argument, ...]:
    """How items are printed. `option`: its name where a person wants columns, terminal or not."""
    return (
        (("--json",), {"action": "store_true", "help": "print JSON lines; so it is where the output is no terminal"}),
        ((option,), {"action": "store_true", "dest": "as_table", "help": "print for a person, terminal or not"}),
    )


MODEL: Final[Argument] = (("model",), {"metavar": "MODEL", "help": "a model of the schema"})
WORDS: Final[Argument] = (
    ("words",), {"nargs": "*", "metavar": "FIELD=VALUE", "help": "fields of the item, see below"}
)  # fmt: skip
KEY: Final[Argument] = (("words",), {"nargs": "*", "metavar": "KEY", "help": "the fields of the key, see below"})
FIND: Final[tuple[Argument, ...]] = (
    MODEL, WORDS,
    (("--index",), {"metavar": "NAME", "help": "look in this index, and in its order"}),
    (("--reverse",), {"action": "store_true", "help": "the last one first"}),
    (("--limit",), {"type": int, "metavar": "N", "help": "at most N items"}),
)  # fmt: skip


class Command(NamedTuple):
    """`run`: module and function. `about`: the command in a few words. `more`: whole sentences."""

    name: str
    run: str
    about: str
    more: str
    arguments: tuple[Argument, ...]
    fields: bool = False


def add(commands: Any, command: Command, notes: tuple[str, ...]) -> argparse.ArgumentParser:
    """A parser for a command. `notes`: paragraphs below its help."""
    added: argparse.ArgumentParser = commands.add_parser(
        command.name,
        help=command.about,
        description=command.more,
        epilog="\n\n".join([*([FIELDS] if command.fields else []), *notes]),
        formatter_class=_Paragraphs,
    )
    for names, options in command.arguments:
        added.add_argument(*names, **options)
    added.set_defaults(run=command.run, parser=added)
    return added


def parsed(parser: argparse.ArgumentParser, argv: Any) -> argparse.Namespace:
    """argparse ends a list of words at the first option: what stands behind it is put to the list here."""
    arguments, rest = parser.parse_known_args(argv)
    lost = [word for word in rest if not (hasattr(arguments, "words") and (word == "-" or word[:1] != "-"))]
    if lost:
        getattr(arguments, "parser", parser).error(f"unrecognized arguments: {' '.join(lost)}")
    if rest:
        arguments.words = [*arguments.words, *rest]
    return arguments


class _Paragraphs(argparse.HelpFormatter):
    """Fills each paragraph by itself."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(super(_Paragraphs, self)._fill_text(part, width, indent) for part in text.split("\n\n"))
