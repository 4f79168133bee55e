"""What the documents say of the commands of `fleet-agent` and `fleet-cloud`: made from the grammar that parses them.

Runs nothing. Called by docs.generate.
"""

from __future__ import annotations

from agent.commands import grammar
from cloud.cli import RELAY_OPTIONS
from cloud.service_metrics import FAMILIES, UNITS
from docs.markdown import code, table


def agent_commands() -> str:
    """Each command with its arguments and its help."""
    rows = [[code(_usage(command)), command.more] for command in grammar.COMMANDS]
    rows.append([code("schema check FILE…"), "Checks schemas and the files that they blend."])
    return table(["command", "what it does"], rows)


def relay_options() -> str:
    """Of `fleet-cloud relay`, with what a file of settings calls them."""
    rows = [
        [code(f"--{name} {metavar}"), "" if name == "config" else code(name.replace("-", "_")), text]
        for name, metavar, text in RELAY_OPTIONS
    ]
    return table(["option", "in the file", "what it says"], rows)


def relay_figures() -> str:
    """Counters by name; a label tells what of it was counted."""
    rows = [[code(f"{metric}_total"), code(label), meaning] for _, metric, label, meaning in FAMILIES]
    rows.append([code("fleet_relay_table_units_total"), code("operation"), UNITS])
    return table(["counter", "label", "of"], rows)


def agent_arguments() -> str:
    """How fields are given, and where a command finds what it works on."""
    return f"{grammar.FIELDS}\n\n{grammar.OPENS}"


def _usage(command: grammar.Command) -> str:
    words = [command.name]
    for names, options in command.arguments:
        if names in (("--json",), ("--table",)):
            continue  # of all that print; the text says so
        metavar = options.get("metavar", "")
        if not names[0].startswith("-"):
            words.append(f"[{metavar}…]" if options.get("nargs") == "*" else _optional(metavar, options))
            continue
        many = f" [{metavar}…]" if options.get("nargs") == "*" else f" {metavar}" if metavar else ""
        words.append(f"[{names[0]}{many}]")
    return " ".join(words)


def _optional(metavar: str, options: dict[str, object]) -> str:
    return f"[{metavar}]" if options.get("nargs") == "?" else metavar
