"""What a relay is started with: options of the command line over a file of settings over defaults.

The file is TOML or JSON5, by its ending: the names of the options with underscores, and the sections `relay`
(cloud.config), `stream` (cloud.stream_config) and `listener` (cloud.listener_config). Every mistake at once, each with
its key and a hint. Reads the file, and nothing else. Called by cloud.commands.relay.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.protocol.errors import InputError, Problem
from agent.protocol.onetable import json5
from agent.protocol.topics import valid_id
from cloud.config import RelayConfig
from cloud.listener_config import ListenerConfig
from cloud.stream_config import StreamConfig

SECTIONS: Final[dict[str, type[Any]]] = {"relay": RelayConfig, "stream": StreamConfig, "listener": ListenerConfig}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Empty texts stand for "not given"."""

    table: str
    schema: str
    broker: str = ""
    websocket: str = ""
    websocket_cert: str = ""
    websocket_key: str = ""
    websocket_client_ca: str = ""
    region: str = ""
    endpoint_url: str = ""
    profile: str = ""
    name: str = ""
    account: str = ""
    group: str = "fleet"
    mqtt: str = "5"
    ca: str = ""
    cert: str = ""
    key: str = ""
    listen: str = "127.0.0.1:9464"
    log: str = "auto"
    messages: int = 64
    queue: int = 1_000
    threads: int = 32
    stop_s: float = 20.0
    relay: RelayConfig = RelayConfig()
    stream: StreamConfig = StreamConfig()
    listener: ListenerConfig = ListenerConfig()


_PLAIN: Final = tuple(name for name in Settings.__struct_fields__ if name not in SECTIONS)
_REQUIRED: Final = ("table", "schema")
_CHOICES: Final = {"mqtt": ("5", "3.1.1"), "log": ("auto", "json", "plain")}
_KINDS: Final[dict[str, Any]] = {"str": str, "int": int, "float": (int, float)}
_LEAST: Final = {"messages": 1, "queue": 1, "threads": 1, "stop_s": 0}


def settings_of(options: Mapping[str, Any], path: str | None) -> Settings:
    """`options`: those that were given. Raises InputError."""
    given, problems = _file(path) if path else ({}, [])
    place = path or "options"
    values: dict[str, Any] = {name: value for name, value in given.items() if name not in SECTIONS}
    values.update(options)
    for name in _REQUIRED:
        if not values.get(name):
            hint = f"give --{name}" if path else f"give --{name}, or name it in the file of --config"
            problems.append(Problem(place, 0, 0, name, "is missing", hint))
    if not values.get("broker") and not values.get("websocket"):
        hint = "give --broker, or --websocket to listen for devices itself, or both"
        problems.append(Problem(place, 0, 0, "broker", "is missing", hint))
    for name, section in SECTIONS.items():
        values[name] = _section(name, section, given.get(name, {}), place, problems)
    problems.extend(_wrong(values, place))
    if problems:
        raise InputError(problems)
    return Settings(**values)


def relay_of(path: str) -> RelayConfig:
    """The numbers of the relay alone, as a file of settings has them. Raises InputError."""
    given, problems = _file(path)
    config: RelayConfig = _section("relay", RelayConfig, given.get("relay", {}), path, problems)
    if problems:
        raise InputError(problems)
    return config


def _file(path: str) -> tuple[dict[str, Any], list[Problem]]:
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise InputError([Problem(path, 0, 0, "", str(reason).lower())]) from None
    if path.endswith(".toml"):
        try:
            found: Any = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError([Problem(path, 0, 0, "", f"no TOML: {error}")]) from None
        problems: list[Problem] = []
    else:
        node, problems = json5.read(text, path)
        found = node.plain()
    if not isinstance(found, dict):
        raise InputError([Problem(path, 0, 0, "", "expected an object: { ... }")])
    known = (*_PLAIN, *SECTIONS)
    for name in found:
        if name not in known:
            problems.append(Problem(path, 0, 0, name, "unknown setting", _near(name, known)))
    return {name: value for name, value in found.items() if name in known}, problems


def _section(name: str, section: type[Any], given: Any, place: str, problems: list[Problem]) -> Any:
    if not isinstance(given, dict):
        problems.append(Problem(place, 0, 0, name, f"expected a section, got {given!r}"))
        return section()
    known = [field.name for field in fields(section)]
    for key in given:
        if key not in known:
            problems.append(Problem(place, 0, 0, f"{name}.{key}", "unknown setting", _near(key, known)))
    try:
        return msgspec.convert({key: value for key, value in given.items() if key in known}, section)
    except msgspec.ValidationError as error:  # of a type, or what the section's own check says
        problems.append(Problem(place, 0, 0, name, str(error).replace("`", "'").replace("$.", "")))
    return section()


def _wrong(values: Mapping[str, Any], place: str) -> list[Problem]:
    found = ((name, _wrong_value(name, values[name])) for name in _PLAIN if name in values)
    return [Problem(place, 0, 0, name, *wrong) for name, wrong in found if wrong is not None]


def _wrong_value(name: str, value: Any) -> tuple[str, str] | None:
    """What is wrong with it, and a hint."""
    kind = Settings.__annotations__[name]
    right = isinstance(value, _KINDS[kind])
    if not right or isinstance(value, bool):
        return f"expected a {'text' if kind == 'str' else 'number'}, got {value!r}", ""
    if name in _CHOICES and value not in _CHOICES[name]:
        return f"{value!r}", f"one of {', '.join(_CHOICES[name])}"
    if name in _LEAST and value < _LEAST[name]:
        return f"{value}: at least {_LEAST[name]}", ""
    if name in ("name", "account", "group") and value and not valid_id(value):
        return f"{value!r} is no name", "1 to 128 letters, digits and :_.- , and not 'all'"
    return None


def _near(name: str, known: Any) -> str:
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
