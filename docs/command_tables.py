"""What the documents say of the commands of `fleet-agent` and `fleet-cloud`: made from the grammars that parse them.

Runs nothing. Called by docs.generate.
"""

from __future__ import annotations

from agent.commands import grammar as agent_grammar
from agent.protocol.commands.grammar import FIELDS, Command
from cloud.cli import RELAY_OPTIONS
from cloud.commands import grammar as cloud_grammar
from cloud.service_metrics import FAMILIES, UNITS
from docs.markdown import code, table


def agent_commands() -> str:
    """Each command with its arguments and its help."""
    rows = [[code(_usage(command)), command.more] for command in agent_grammar.COMMANDS]
    rows.append([code("schema check FILE…"), "Checks schemas and the files that they blend."])
    return table(["command", "what it does"], rows)


def daemon_commands() -> str:
    """The same of the agent itself."""
    return table(["command", "what it does"], [[code(_usage(c)), c.more] for c in agent_grammar.DAEMON])


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
    return f"{FIELDS}\n\n{agent_grammar.OPENS}"


def cloud_commands() -> str:
    """The same of `fleet-cloud`."""
    return table(
        ["command", "what it does"], [[code(_usage(command)), command.more] for command in cloud_grammar.COMMANDS]
    )


def cloud_arguments() -> str:
    return f"{FIELDS}\n\n{cloud_grammar.OPENS}"


def _usage(command: Command) -> str:
    words = [command.name]
    for names, options in command.arguments:
        if names in (("--json",), ("--table",), ("--columns",)):
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
