"""The command `fleet-agent`: what a person does on a device. Parses, runs one command, turns errors into exit codes.

Has no command of its own: they are in agent.commands, each imported when it runs, so that a command starts fast. Bad
input is printed with its place and what to do, and exits with 2; never a traceback. Installed as a console script;
argparse, so that the base install stays light.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence

from agent.commands import grammar
from agent.commands.failure import INTERRUPTED, OK, lines_of, show


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code; usage errors raise SystemExit(2), as argparse does."""
    arguments = _parsed(argv)
    module, _, function = arguments.run.partition(":")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever a terminal cannot show
    try:
        code: int = getattr(importlib.import_module(f"agent.commands.{module}"), function)(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # who reads has what they want: `| head`
        _close_output()
        return OK
    except Exception as error:
        code, lines = lines_of(error)
        show(lines)
        if isinstance(error, OSError):
            _close_output()
    return code


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """argparse ends a list of words at the first option: what stands behind it is put to the list here."""
    arguments, rest = grammar.parser().parse_known_args(argv)
    lost = [word for word in rest if not (hasattr(arguments, "words") and (word == "-" or word[:1] != "-"))]
    if lost:
        arguments.parser.error(f"unrecognized arguments: {' '.join(lost)}")
    if rest:
        arguments.words = [*arguments.words, *rest]
    return arguments


def _close_output() -> None:
    """So that the interpreter does not complain about what cannot be written when it ends."""
    with contextlib.suppress(OSError, ValueError):  # not a real file: a test's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
