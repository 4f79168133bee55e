"""The command line `fleet`: mounts the commands of fleet.commands and turns errors into exit codes.

Has no command of its own but `--version`. Installed as a console script; `main` is its entry. Every module of commands
is imported for the help, so they import what is heavy (scenarios, the world, reports) in the command itself.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from agent.protocol.errors import InputError
from agent.protocol.version import __version__

DISTRIBUTION = "fleet-sync"

try:
    import typer

    import fleet.commands
    from fleet.commands import help_text
    from fleet.commands.common import EXIT_HARNESS, EXIT_INPUT, show_crash, show_problems
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.split(".")[0] in ("agent", "cloud", "fleet", "reports"):
        raise
    print(f"fleet needs {missing.name}: pip install '{DISTRIBUTION}[fleet]'", file=sys.stderr)
    sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fleet {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Simulate and test database sync between thousands of devices and a cloud, under faults, from a seed.

    Begin with `fleet list` and `fleet run baseline`. A run's exit code tells its verdict:

      0    passed
      1    a check or threshold failed
      2    bad input or usage
      3    unknown: a check that the scenario requires had nothing to check
      4    the harness itself failed
      130  interrupted
    """


def build_app() -> typer.Typer:
    """All commands, in the order that they ask for."""
    app = typer.Typer(
        cls=help_text.PlainGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback(help=help_text.filled(_options.__doc__ or ""))(_options)
    found = sorted(path.stem for path in Path(fleet.commands.__path__[0]).glob("[a-z]*.py"))
    names = [name for name in found if not name.endswith("_output")]  # what one command shows: loaded when it does
    modules = [importlib.import_module(f"fleet.commands.{name}") for name in names]
    commands = [module for module in modules if hasattr(module, "register")]
    for module in sorted(commands, key=lambda module: module.ORDER):
        module.register(app)
    help_text.apply(app)
    return app


def main() -> None:
    try:
        build_app()()
    except InputError as error:
        show_problems(error.problems)
        sys.exit(EXIT_INPUT)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # a power cut of the simulated world is no Exception: none may come out here
        show_crash(error)
        sys.exit(EXIT_HARNESS)
