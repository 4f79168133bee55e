"""`fleet-cloud relay`: checks what it was given, waits for the table, runs the service, turns errors into exit codes.

What only a person can mend ends it with 2 and the next step; what may be over by itself is tried again, with back-off,
and told once. Called by cloud.cli.
"""

from __future__ import annotations

import argparse
import os
import ssl
import sys
import traceback
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import trio

from agent.protocol.errors import InputError
from agent.protocol.log import Log
from agent.protocol.schema import Schema
from agent.protocol.version import __version__
from cloud import system
from cloud.commands.relay_listener import BadListener, address_of, listener_of, tls_of
from cloud.dynamodb_errors import Unusable
from cloud.dynamodb_table import Unreachable, connect, open_table
from cloud.service import Service, new_boot
from cloud.service_metrics import serve
from cloud.service_mqtt import BrokerRefused, BrokerSettings
from cloud.service_settings import Settings, settings_of
from cloud.stream_leases import Usurped

OK, BAD_INPUT, INTERNAL, INTERRUPTED = 0, 2, 4, 130
PASSWORD: Final = "FLEET_BROKER_PASSWORD"
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "mqtt+ws": 80, "mqtt+wss": 443}
_PATH: Final = "/mqtt"  # of MQTT over WebSocket, as brokers have it
_NO_BRIDGE: Final = (
    "without a broker this relay says changes only to the devices that are connected to it: with several relays on the "
    "table, a device of another one hears of them at its next hello"
)
_RETRY_BASE_S: Final = 1.0
_RETRY_CAP_S: Final = 30.0
_OPTIONS: Final = ("table", "schema", "broker", "region", "endpoint_url", "profile", "name", "account")
_WEBSOCKET: Final = ("websocket", "websocket_cert", "websocket_key", "websocket_client_ca")
_MORE: Final = (*_WEBSOCKET, "group", "mqtt", "ca", "cert", "key", "listen", "log")


class _Stop(Exception):
    """What a person should read, and the exit code."""

    def __init__(self, text: str, code: int = BAD_INPUT) -> None:
        self.code = code
        super().__init__(text)


def run(arguments: argparse.Namespace) -> int:
    given = {name: getattr(arguments, name) for name in (*_OPTIONS, *_MORE) if getattr(arguments, name) is not None}
    try:
        settings = settings_of(given, arguments.config)
        schema = Schema.load(settings.schema)
        return _relay(settings, schema)
    except InputError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return BAD_INPUT
    except _Stop as stop:
        print(f"fleet-cloud: {stop}", file=sys.stderr)
        return stop.code
    except (Unusable, BadListener) as error:
        print(f"fleet-cloud: {error}", file=sys.stderr)
        return BAD_INPUT


def _relay(settings: Settings, schema: Schema) -> int:
    plain = settings.log == "plain" or (settings.log == "auto" and sys.stderr.isatty())
    log = Log(_write, wall_ms=system.wall_ms, monotonic_ms=system.monotonic_ms, plain=plain)
    boot = new_boot()
    name = settings.name or boot
    broker = broker_settings(settings, name, boot) if settings.broker else None
    tls = _listener_tls(settings)
    place: dict[str, Any] = {
        "region": settings.region or None,
        "endpoint_url": settings.endpoint_url or None,
        "profile": settings.profile or None,
        "connections_max": settings.threads,
    }
    client, streams = connect(**place), connect(**place, service="dynamodbstreams")
    arn = _opened(client, settings.table, settings.relay.ttl_attribute, log)
    parts: dict[str, Any] = {"client": client, "streams": streams, "arn": arn, "name": name, "boot": boot}
    listener = listener_of(settings, tls, log) if settings.websocket else None
    try:
        service = Service(settings, schema, broker, listener, log=log, **parts)
    except ValueError as error:  # the schema's ttl is not the table's
        raise _Stop(str(error)) from None
    port = _figures(service, settings.listen)
    at = {} if broker is None else {"broker": broker.place}
    log.event("started", version=__version__, relay=name, table=settings.table, stream=arn, **at)
    if port:
        log.event("listening", metrics=f"http://{settings.listen.rpartition(':')[0]}:{port}/metrics")
    if listener is not None:
        log.event("listening-for-devices", websocket=listener.place)
        if broker is None:
            log.event("no-bridge", hint=_NO_BRIDGE)
    return _ended(service, log)


def _listener_tls(settings: Settings) -> ssl.SSLContext | None:
    """Looked at before anything is asked of the table. Raises BadListener."""
    if settings.websocket:
        address_of(settings.websocket)
        return tls_of(settings)
    given = [name for name in _WEBSOCKET if getattr(settings, name)]
    if given:
        raise BadListener(f"--{given[0].replace('_', '-')} needs --websocket")
    return None


def _ended(service: Service, log: Log) -> int:
    """Runs the service to its end."""
    try:
        trio.run(service.run)
    except BaseException as raised:
        error = _innermost(raised)
        if isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        if isinstance(error, BrokerRefused):
            raise _Stop(
                f"the broker at {_place(service)} refuses this relay: "
                f"{error}. Check the user, the password (${PASSWORD}) or the certificate, and what the broker's access "
                "rules allow it."
            ) from None
        if isinstance(error, Usurped):
            raise _Stop(
                f"another relay was started under the name {error}, and has taken over. Give each a --name of its own."
            ) from None
        frame = traceback.extract_tb(error.__traceback__)[-1:]
        where = f"{frame[0].filename}:{frame[0].lineno}" if frame else ""
        log.event("failed", "error", reason=f"{type(error).__name__}: {error}", where=where)
        raise _Stop(
            f"internal error: {type(error).__name__}: {error} at {where} (please report it)", INTERNAL
        ) from None
    return OK


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _write(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _place(service: Service) -> str:
    return "" if service.broker is None else service.broker.settings.place


def _opened(client: Any, table: str, ttl_attribute: str, log: Log) -> str:
    """The stream's ARN. Waits for a table that does not answer. Raises Unusable for one that is not fit."""
    attempts = 0
    while True:
        try:
            arn = open_table(client, table, ttl_attribute)
        except Unreachable as error:
            log.problem("table-unreachable", reason=error.problem, hint=f"{error.hint}; trying on")
        else:
            log.over("table-unreachable")
            return arn
        system.pause(system.chance() * min(_RETRY_CAP_S, _RETRY_BASE_S * 2 ** min(attempts, 16)))
        attempts += 1


def _figures(service: Service, listen: str) -> int:
    """The port of the figures; 0 where nobody wants any."""
    if not listen:
        return 0
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise _Stop(f"--listen {listen!r}: expected HOST:PORT, such as 127.0.0.1:9464, or '' for none")
    try:
        return serve(service.figures, host, int(port))[1]
    except OSError as error:
        raise _Stop(
            f"--listen {listen}: {(error.strerror or str(error)).lower()}. Give another port, or '' for none."
        ) from None


def broker_settings(settings: Settings, name: str, boot: str) -> BrokerSettings:
    """From the broker's address and the certificates."""
    text = settings.broker
    try:
        address = urlsplit(text)
        port = address.port
    except ValueError:
        raise _Stop(f"--broker {text!r}: the port is no number from 1 to 65535") from None
    web = address.scheme.startswith("mqtt+ws")
    path = address.path.strip("/")
    if address.scheme not in _PORTS or not address.hostname or (path and not web) or address.query:
        hint = "mqtts for TLS, mqtt+ws or mqtt+wss for a WebSocket"
        raise _Stop(f"--broker {_hidden(text)!r}: expected mqtt://<host>[:<port>], {hint}")
    username = unquote(address.username) if address.username else None
    password = unquote(address.password) if address.password else os.environ.get(PASSWORD)
    if password and username is None:
        username = name
    return BrokerSettings(
        host=address.hostname,
        port=port or _PORTS[address.scheme],
        client_id=f"fleet-relay-{boot}",
        prefix=settings.relay.topic_prefix,
        username=username,
        password=password,
        tls=_tls(settings, address.scheme in ("mqtts", "mqtt+wss")),
        path=(address.path if path else _PATH) if web else "",
        group=settings.group,
        version=settings.mqtt,
        bridge=bool(settings.websocket),
        in_hand=min(settings.queue, 65_535),
    )


def _tls(settings: Settings, secure: bool) -> ssl.SSLContext | None:
    files = {"ca": settings.ca, "cert": settings.cert, "key": settings.key}
    if not secure:
        if any(files.values()):
            raise _Stop("--ca, --cert and --key need a broker at mqtts:// or mqtt+wss://")
        return None
    if bool(settings.cert) != bool(settings.key):
        raise _Stop("--cert and --key go together: name both, or neither")
    for name, path in files.items():
        if path and not os.path.isfile(path):
            raise _Stop(f"--{name} {path}: no such file")
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key)
    except (ssl.SSLError, OSError) as error:
        raise _Stop(f"certificates: {error}. They must be PEM files, and the key must be the certificate's.") from None
    return context


def _hidden(text: str) -> str:
    """An address without its password."""
    scheme, mark, rest = text.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{mark}{user.partition(':')[0]}{at}{host}" if at else text
