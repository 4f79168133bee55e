"""The command `fleet-agent`: what a person does on a device. Parses, runs one command, turns errors into exit codes.

Has no command of its own: they are in agent.commands, each imported when it runs, so that a command starts fast. Bad
input is printed with its place and what to do, and exits with 2; never a traceback. Installed as a console script;
argparse, so that the base install stays light.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent.commands.failure import lines_of
from agent.commands.grammar import parser
from agent.protocol.commands.grammar import parsed
from agent.protocol.commands.running import run


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code; usage errors raise SystemExit(2), as argparse does."""
    arguments = parsed(parser(), argv)
    return run(arguments, arguments.run, "agent.commands", lines_of)


if __name__ == "__main__":
    sys.exit(main())
