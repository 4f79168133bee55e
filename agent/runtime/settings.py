"""The agent's configuration file: TOML, every key with its meaning, its default and what may stand there.

Every mistake at once, with its line and a hint. Reads the file and looks at the rights of the files that it names,
nothing else. `KEYS` is what the documents and `fleet-agent provision` go by. Called by agent.commands.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from agent.config import AgentConfig
from agent.protocol.errors import InputError, Problem
from agent.protocol.log import LEVELS
from agent.protocol.onetable.inspector import did_you_mean
from agent.protocol.topics import PREFIX, valid_id
from agent.runtime.gate import GateSettings
from agent.transport.address import Address, address_of

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(?:\d{1,9}(?:ms|s|m|h|d))+")
_DURATION_PART: Final = re.compile(r"(\d+)(ms|s|m|h|d)")
_SIZE: Final = re.compile(r"(\d{1,12})\s*(b|kb|mb|gb)", re.IGNORECASE)
_SIZES: Final = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
_DURATION_MS_MAX: Final = 3650 * _UNITS_MS["d"]
_OPEN_RIGHTS: Final = stat.S_IRWXG | stat.S_IRWXO


class Key(NamedTuple):
    """`kind`: text, id, path, duration, size, count, flag, or the choices. `default`: as it stands in a file; None:
    must be given. `field`: of Settings; empty where `name` is it."""

    section: str
    name: str
    kind: str | tuple[str, ...]
    default: Any
    about: str
    field: str = ""
    least: int = 0

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"


KEYS: Final = (
    Key("device", "id", "id", None, "who this device is, as it was registered", "device"),
    Key("device", "account", "id", "", "whose it is; without it the account's changes do not come", "account"),
    Key("database", "file", "path", "agent.db", "the database; paths count from the configuration file's folder",
        "database"),
    Key("database", "schema", "path", "schema.json5", "the OneTable schema"),
    Key("connection", "url", "text", None, "mqtt, mqtts, mqtt+ws or mqtt+wss for a broker, ws or wss for the relay "
        "itself: mqtts://broker.example:8883"),
    Key("connection", "ca", "path", "", "PEM file of the authority that signed the server's certificate; default: the "
        "system's"),
    Key("connection", "certificate", "path", "", "PEM file of this device's certificate"),
    Key("connection", "key", "path", "", "PEM file of its private key"),
    Key("connection", "token", "text", "", "what `fleet-cloud register --token` gave this device, for ws and wss"),
    Key("connection", "username", "text", "", "the broker's name for this device; default with a password: its id"),
    Key("connection", "password", "text", "", "for the broker"),
    Key("connection", "mqtt", ("5", "3.1.1"), "5", "version of MQTT"),
    Key("connection", "alpn", "text", "auto", "protocol name offered in TLS; `auto`: AWS IoT Core's for mqtts on port "
        "443, else `none`"),
    Key("connection", "topic_prefix", "text", PREFIX, "of the topics, as the relay has it"),
    Key("connection", "keep_alive", "duration", "60s", "how often a quiet connection is probed", "keep_alive_ms",
        5_000),
    Key("connection", "presence", "flag", False, "says `online` in a retained message on PREFIX/presence/DEVICE, and "
        "has the broker say `offline` there (last will)"),
    Key("connection", "mode", ("always", "on-demand"), "always", "on demand: connected only while there is something "
        "to send, and now and then to hear what is new"),
    Key("connection", "poll", "duration", "6h", "on demand: how often to hear what is new; by chance 20 % more or less",
        "poll_ms", 1_000),
    Key("connection", "linger", "duration", "10s", "on demand: without a message for so long, the connection is closed",
        "linger_ms", 1_000),
    Key("connection", "bytes_per_day", "size", "0b", "budget of a metered link, both ways, headers estimated; 0b: no "
        "limit"),
    Key("connection", "messages_per_day", "count", 0, "the same in messages; 0: no limit"),
    Key("session", "compact", "flag", False, "MessagePack on the wire instead of JSON"),
    Key("session", "hello_period", "duration", "15m", "how often to ask whether anything was missed", "hello_period_ms",
        1_000),
    Key("session", "boot_jitter", "duration", "30s", "at most so long after a boot until the first connection: power "
        "comes back for many at once", "boot_jitter_ms"),
    Key("session", "connect_base", "duration", "2s", "longest wait before the second attempt to connect; doubles",
        "connect_base_ms", 10),
    Key("session", "connect_cap", "duration", "5m", "longest wait between two attempts to connect", "connect_cap_ms",
        100),
    Key("session", "resend_base", "duration", "2s", "shortest wait before something is sent again; doubles",
        "resend_base_ms", 100),
    Key("commands", "allow_reboot", "flag", False, "whether the cloud may order a reboot (docs/commands.md)"),
    Key("commands", "reboot_spacing", "duration", "10m", "least time between two reboots by command",
        "reboot_spacing_ms", 60_000),
    Key("api", "socket", "path", "", "the Unix socket for applications; default: `socket` in a folder beside the "
        "database that is named like it, with `-api`; `none`: no socket"),
    Key("log", "level", LEVELS, "info", "the lowest level that is told", "log_level"),
    Key("log", "format", ("auto", "json", "plain"), "auto", "auto: plain on a terminal, else JSON lines",
        "log_format"),
)  # fmt: skip
SECTIONS: Final = tuple(dict.fromkeys(key.section for key in KEYS))
NO_SOCKET = NO_ALPN = "none"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A whole configuration. Times in ms; empty texts stand for "not given"; paths are absolute."""

    place: str  # the file
    device: str
    account: str
    database: str
    schema: str
    url: str
    address: Address
    ca: str
    certificate: str
    key: str
    token: str
    username: str
    password: str
    mqtt: str
    alpn: str
    topic_prefix: str
    presence: bool
    keep_alive_ms: int
    mode: str
    poll_ms: int
    linger_ms: int
    bytes_per_day: int
    messages_per_day: int
    compact: bool
    hello_period_ms: int
    boot_jitter_ms: int
    connect_base_ms: int
    connect_cap_ms: int
    resend_base_ms: int
    allow_reboot: bool
    reboot_spacing_ms: int
    socket: str  # "" for none
    log_level: str
    log_format: str

    @property
    def numbers(self) -> AgentConfig:
        """For the session. On demand, a connection that was held for a part of its lingering was a good one."""
        config = AgentConfig(
            topic_prefix=self.topic_prefix,
            compact=self.compact,
            hello_period_ms=self.hello_period_ms,
            boot_jitter_ms=self.boot_jitter_ms,
            connect_base_ms=self.connect_base_ms,
            connect_cap_ms=self.connect_cap_ms,
            resend_base_ms=self.resend_base_ms,
        )
        if self.mode == "on-demand":
            config = msgspec.structs.replace(config, stable_ms=min(config.stable_ms, self.linger_ms // 2))
        return config

    @property
    def gate(self) -> GateSettings:
        return GateSettings(
            on_demand=self.mode == "on-demand",
            poll_ms=self.poll_ms,
            linger_ms=self.linger_ms,
            bytes_per_day=self.bytes_per_day,
            messages_per_day=self.messages_per_day,
        )


def load(path: str | Path, *, private: bool = True) -> Settings:
    """Raises InputError with every mistake. `private`: files with secrets that others may read are one, too; who only
    asks where things are need not care."""
    place = str(path)
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        hint = "`fleet-agent provision` writes one" if isinstance(error, FileNotFoundError) else ""
        raise InputError([Problem(place, 0, 0, "", str(reason).lower(), hint)]) from None
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line, column = (int(at[1]), int(at[2])) if at else (0, 0)
        what = re.sub(r" \(at .*\)$", "", str(error))
        raise InputError([Problem(place, line, column, "", f"no TOML: {what}")]) from None
    reader = _Reader(place, text, found)
    settings = reader.settings()
    if private:
        for key, file in (("", str(path)), ("connection.certificate", reader.path("certificate")),
                          ("connection.key", reader.path("key"))):  # fmt: skip
            reader.check_rights(key, file)
    if reader.problems or settings is None:
        raise InputError(sorted(reader.problems, key=lambda problem: problem.line))
    return settings


class _Reader:
    """One file, its values and its mistakes."""

    def __init__(self, place: str, text: str, found: Mapping[str, Any]) -> None:
        self.place = place
        self.problems: list[Problem] = []
        self._folder = Path(place).resolve().parent
        self._found = found
        self._places = _places(text)
        self._values: dict[str, Any] = {}

    def settings(self) -> Settings | None:
        self._unknown()
        for key in KEYS:
            self._values[key.field or key.name] = self._value(key)
        values = self._values
        address = self._address() if values["url"] else None
        if not self.problems:
            self._together(address)
        if address is None or self.problems:
            return None
        socket = values.pop("socket")
        if not socket:
            socket = f"{values['database']}-api/socket"
        given = self._found.get("api", {}).get("socket")
        return Settings(**values, place=self.place, address=address, socket="" if given == NO_SOCKET else socket)

    def path(self, field: str) -> str:
        value: str = self._values.get(field) or ""
        return value

    def refuse(self, key: str, message: str, hint: str = "") -> None:
        line, column = self._places.get(key, (0, 0))
        self.problems.append(Problem(self.place, line, column, key, message, hint))

    def check_rights(self, key: str, file: str) -> None:
        """What holds a secret is the agent's alone."""
        if not file:
            return
        try:
            mode = os.stat(file).st_mode
        except OSError as error:
            self.refuse(key, f"{file}: {(error.strerror or str(error)).lower()}")
            return
        if stat.S_IMODE(mode) & _OPEN_RIGHTS:
            message = f"{file}: others may read it (mode {stat.S_IMODE(mode):04o}), and it says who this device is"
            self.refuse(key, message, f"chmod 600 {file}")

    def _unknown(self) -> None:
        for section, values in self._found.items():
            if section not in SECTIONS:
                self.refuse(section, "unknown section", did_you_mean(section, SECTIONS))
                continue
            if not isinstance(values, dict):
                self.refuse(section, f"expected a section [{section}], found {values!r}")
                continue
            names = [key.name for key in KEYS if key.section == section]
            for name in values:
                if name not in names:
                    self.refuse(f"{section}.{name}", "unknown key", did_you_mean(name, names))

    def _value(self, key: Key) -> Any:
        section = self._found.get(key.section, {})
        if not isinstance(section, dict):
            return None
        value = section.get(key.name, key.default)
        if value is None:
            self.refuse(key.path, "is missing", f"in section [{key.section}]")
            return None
        try:
            return self._read(key, value)
        except ValueError as error:
            self.refuse(key.path, str(error), key.about)
            return None

    def _read(self, key: Key, value: Any) -> Any:
        kind = key.kind
        if kind == "flag":
            if not isinstance(value, bool):
                raise ValueError(f"expected true or false, found {value!r}")
            return value
        if kind == "count":
            if not isinstance(value, int) or isinstance(value, bool) or value < key.least:
                raise ValueError(f"expected a whole number, at least {key.least}, found {value!r}")
            return value
        if not isinstance(value, str):
            raise ValueError(f'expected a text in quotes, as "{value}", found {value!r}')
        if isinstance(kind, tuple):
            if value not in kind:
                raise ValueError(f"expected one of {', '.join(kind)}, found {value!r}")
        elif kind == "duration":
            return duration_ms(value, key.least)
        elif kind == "size":
            return size_bytes(value)
        elif kind == "id" and value and not valid_id(value):
            raise ValueError(f"{value!r} is no id: 1 to 128 letters, digits and :_.- , and not 'all'")
        elif kind == "path" and value:
            return str(self._folder / value)
        elif not value and key.default is None:
            raise ValueError("is empty")
        return value

    def _address(self) -> Address | None:
        try:
            return address_of(self._values["url"])
        except ValueError as error:
            self.refuse("connection.url", str(error))
            return None

    def _together(self, address: Address | None) -> None:
        """What must agree with each other."""
        values = self._values
        if bool(values["certificate"]) != bool(values["key"]):
            missing = "connection.key" if values["certificate"] else "connection.certificate"
            self.refuse(missing, "is missing: certificate and key go together")
        for name in ("ca", "schema"):
            if values[name] and not Path(values[name]).is_file():
                key = "database.schema" if name == "schema" else "connection.ca"
                self.refuse(key, f"{values[name]}: no such file")
        if address is None:
            return
        if not address.secure and (values["certificate"] or values["ca"]):
            self.refuse(
                "connection.url", f"{address.scheme}:// is without TLS", "certificates need mqtts, wss or mqtt+wss"
            )
        if address.direct and (values["username"] or values["password"]):
            self.refuse("connection.username", "is for a broker", "the relay itself wants `connection.token`")
        if not address.direct and values["token"]:
            self.refuse("connection.token", "is for the relay itself, at ws:// or wss://", "a broker wants a password")
        if address.direct and not values["token"] and not values["certificate"]:
            hint = "`fleet-cloud register --token` gives one; or name certificate and key"
            self.refuse("connection.token", "is missing: the relay must know who this is", hint)


def duration_ms(text: str, least: int = 0) -> int:
    """Raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"expected a duration such as 10s, 5m, 1h30m or 250ms, found {text!r}")
    total = sum(int(number) * _UNITS_MS[unit] for number, unit in _DURATION_PART.findall(text))
    if not least <= total <= _DURATION_MS_MAX:
        raise ValueError(f"impossible duration {text!r}: at least {least} ms, at most 3650d")
    return total


def size_bytes(text: str) -> int:
    """Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a size such as 500kb or 20mb, found {text!r}")
    return int(match[1]) * _SIZES[match[2].lower()]


_HEADER: Final = re.compile(r"\s*\[\s*([\w.-]+)\s*\]")
_ASSIGNMENT: Final = re.compile(r"\s*([\w.-]+)\s*=")


def _places(text: str) -> dict[str, tuple[int, int]]:
    """Key -> line and column, from 1: as far as they can be told from the lines alone."""
    found: dict[str, tuple[int, int]] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            section = header[1]
            found.setdefault(section, (number, header.start(1) + 1))
            continue
        assignment = _ASSIGNMENT.match(line)
        if assignment is not None:
            name = f"{section}.{assignment[1]}" if section else assignment[1]
            found.setdefault(name, (number, assignment.start(1) + 1))
    return found
