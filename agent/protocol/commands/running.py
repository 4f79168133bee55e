"""Runs one command from its words to its exit code: a console script's main, for both command lines.

Called by agent.cli and cloud.cli.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable

from agent.protocol.commands.failure import INTERRUPTED, OK, show

Explain = Callable[[Exception], tuple[int, list[str]]]


def run(arguments: argparse.Namespace, command: str, package: str, explain: Explain) -> int:
    """Runs a command, "module:function" of a package, which is imported for it. `explain`: the exit code and the lines
    of an error."""
    module, _, function = command.partition(":")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever a terminal cannot show
    try:
        code: int = getattr(importlib.import_module(f"{package}.{module}"), function)(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # who reads has what they want: `| head`
        _close_output()
        return OK
    except Exception as error:
        code, lines = explain(error)
        show(lines)
        if isinstance(error, OSError):
            _close_output()
    return code


def _close_output() -> None:
    """So that the interpreter does not complain about what cannot be written when it ends."""
    with contextlib.suppress(OSError, ValueError):  # not a real file: a test's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
