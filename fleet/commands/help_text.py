"""How help looks: paragraphs fill the width, flags show no type, a usage line has no braces.

Changes what is shown, never what is parsed. Used by fleet.cli for every command.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption


class PlainCommand(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return without_types(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return without_braces(super().collect_usage_pieces(ctx))


class PlainGroup(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return without_types(super().get_params(ctx))


def without_types(params: list[Any]) -> list[Any]:
    """`--json` rather than `--json <bool>`."""
    for param in params:
        if isinstance(param, TyperOption) and param.is_flag:
            param.metavar = ""
    return params


def without_braces(pieces: list[str]) -> list[str]:
    """`SCENARIO...` rather than `{SCENARIO...}...`, as releases of typer have it."""
    return [re.sub(r"^\{(.*)\}(\.\.\.)?$", r"\1", piece) for piece in pieces]


def filled(doc: str) -> str:
    """A docstring with each paragraph on one line, for the terminal to wrap; indented ones stay as they are."""
    paragraphs = inspect.cleandoc(doc).split("\n\n")
    return "\n\n".join(
        paragraph if re.search(r"^\s", paragraph, re.MULTILINE) else paragraph.replace("\n", " ")
        for paragraph in paragraphs
    )


def apply(app: typer.Typer) -> None:
    """To all commands that are registered."""
    for command in app.registered_commands:
        command.cls = PlainCommand
        command.help = filled(command.help or (command.callback.__doc__ if command.callback else None) or "")
