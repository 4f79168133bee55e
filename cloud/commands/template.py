"""`template`: the deployment in AWS, as YAML for CloudFormation. Called by cloud.cli."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

from agent.protocol.commands.failure import OK, CommandError
from cloud.commands.opening import schema_of, table_name
from cloud.template import PREFIX_FORM
from cloud.template import template as made


def template(arguments: argparse.Namespace) -> int:
    prefix = arguments.topic_prefix
    if PREFIX_FORM.fullmatch(prefix) is None:
        raise CommandError(f"{prefix!r} is no prefix of topics", "letters, digits and _.- , in up to 4 parts with /")
    text = as_yaml(made(schema_of(arguments), table_name(arguments), prefix))
    if arguments.out is None:
        print(text, end="")
        return OK
    with Path(arguments.out).open("x", encoding="utf-8") as file:
        file.write(text)
    return OK


def as_yaml(values: dict[str, Any]) -> str:
    """In the order of the values, one value a line, and the same by the rules of YAML 1.1, which AWS reads by."""
    from ruamel.yaml import YAML  # an extra's

    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 110
    yaml.representer.ignore_aliases = lambda data: True  # what is used twice is written twice
    text = io.StringIO()
    yaml.dump(_quoted(values), text)
    return text.getvalue()


def _quoted(value: Any) -> Any:
    """With quotes around texts that YAML 1.1 takes for true or false, and 1.2 does not."""
    from ruamel.yaml.scalarstring import SingleQuotedScalarString

    if isinstance(value, dict):
        return {_quoted(name): _quoted(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_quoted(each) for each in value]
    if isinstance(value, str) and value.lower() in ("y", "n", "yes", "no", "on", "off"):
        return SingleQuotedScalarString(value)
    return value
