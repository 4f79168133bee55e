"""`provision`: writes an agent's configuration, from the registration file of `fleet-cloud register` or from options.

One file, readable by its owner alone, that `fleet-agent run` takes as it is. Called by agent.cli.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Final

from agent.protocol.commands.failure import OK, CommandError
from agent.protocol.errors import InputError
from agent.protocol.registration import Registration, registration_of
from agent.protocol.schema import Schema
from agent.protocol.topics import PREFIX
from agent.runtime.settings import KEYS, Key, load

SCHEMA_NAME: Final = "schema.json5"
# Option -> key of the configuration.
OPTIONS: Final = {
    "device": "device.id",
    "account": "device.account",
    "url": "connection.url",
    "token": "connection.token",
    "ca": "connection.ca",
    "certificate": "connection.certificate",
    "key": "connection.key",
    "username": "connection.username",
    "password": "connection.password",
    "topic_prefix": "connection.topic_prefix",
    "database": "database.file",
    "schema": "database.schema",
}
_FILES: Final = ("ca", "certificate", "key", "database", "schema")


def provision(arguments: argparse.Namespace) -> int:
    values = _values(arguments)
    out = Path(arguments.config)
    if out.exists():
        raise CommandError(f"{out}: exists already", "name another file: nothing is written over")
    text = text_of(values)
    part = out.with_name(f"{out.name}.part")
    try:
        _write_private(part, text)
        load(part)  # what cannot be run is not kept
        os.link(part, out)  # never over another file, also one that came meanwhile
    except InputError as error:
        raise InputError([_of_option(problem, str(part), str(out)) for problem in error.problems]) from None
    finally:
        part.unlink(missing_ok=True)
    print(f"{out}: device {values['device.id']}, to {values['connection.url']}")
    print(f"  fleet-agent run --config {out}")
    return OK


def _values(arguments: argparse.Namespace) -> dict[str, str]:
    """Key -> value, of what differs from the defaults."""
    given = {option: getattr(arguments, option) for option in OPTIONS}
    values = {} if arguments.registration is None else _registered(arguments.registration)
    folder = Path(arguments.config).resolve().parent
    for option, value in given.items():
        if value is not None:
            values[OPTIONS[option]] = os.path.relpath(value, folder) if option in _FILES else value
    for option, hint in (("device", "DEVICE"), ("url", "mqtts://broker.example:8883")):
        if not values.get(OPTIONS[option]):
            raise CommandError(f"--{option} is missing", f"--{option} {hint}, or a registration file that says it")
    schema = folder / values.get("database.schema", SCHEMA_NAME)
    Schema.load(schema)  # its mistakes, before the agent runs
    return values


def _registered(path: str) -> dict[str, str]:
    found: Registration = registration_of(Path(path).read_bytes(), path)
    values = {"device.id": found.device, "device.account": found.account, "connection.url": found.url}
    if found.token and not found.url.startswith("mqtt"):
        values["connection.token"] = found.token
    if found.prefix != PREFIX:
        values["connection.topic_prefix"] = found.prefix
    return values


def text_of(values: dict[str, str]) -> str:
    """The configuration: what was given, and the rest as comments, with its meaning."""
    lines = ["# The configuration of one device's agent. It says who the device is: keep it to its owner (mode 0600)."]
    section = ""
    for key in KEYS:
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"]
        lines.append(f"# {key.about}")
        lines.append(_line(key, values.get(key.path)))
    return "\n".join(lines) + "\n"


def _line(key: Key, value: str | None) -> str:
    if value is not None:
        return f"{key.name} = {toml_value(value)}"
    return f"# {key.name} = {toml_value(key.default if key.default is not None else '')}"


def toml_value(value: Any) -> str:
    """A text, a number or a truth as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def _write_private(path: Path, text: str) -> None:
    """Synced: a device may lose its power as soon as somebody has read that it is done."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _of_option(problem: Any, part: str, out: str) -> Any:
    """A problem in the file that is not kept, as one of what was typed."""
    option = next((f"--{name.replace('_', '-')}" for name, key in OPTIONS.items() if key == problem.key), problem.key)
    kind: Any = type(problem)
    return kind(out, 0, 0, option, problem.message.replace(part, out), problem.hint.replace(part, out))
