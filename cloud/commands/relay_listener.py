"""What `fleet-cloud relay --websocket` needs before it runs: an address, certificates, a bound socket, enough files.

Every mistake is told with what to do next. Called by cloud.commands.relay.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import socket
import ssl
from ipaddress import ip_address
from typing import Final

from agent.protocol.log import Log
from cloud.service_settings import Settings
from cloud.service_websocket import ListenerSettings

HOST: Final = "127.0.0.1"  # what is reachable from elsewhere is named
_BACKLOG: Final = 1_024
_OTHER_FILES: Final = 256  # besides devices' connections: the table's, the database's, what is under way
_EXPECTED: Final = "expected [HOST:]PORT, such as 8765, 0.0.0.0:8765 or [::]:8765"


class BadListener(Exception):
    """What a person should read."""


def address_of(text: str) -> tuple[str, int]:
    """Raises BadListener."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise BadListener(f"--websocket {text!r}: {_EXPECTED}")
    if not (port.isascii() and port.isdigit()) or int(port) > 65_535 or (colon and not host):
        raise BadListener(f"--websocket {text!r}: {_EXPECTED}")
    return host or HOST, int(port)


def tls_of(settings: Settings) -> ssl.SSLContext | None:
    """The server's side, None where there is no certificate. Raises BadListener."""
    cert, key, client_ca = settings.websocket_cert, settings.websocket_key, settings.websocket_client_ca
    if not cert and not key:
        if client_ca:
            raise BadListener("--websocket-client-ca needs --websocket-cert and --websocket-key: it is about TLS")
        return None
    if not cert or not key:
        raise BadListener("--websocket-cert and --websocket-key go together: name both, or neither")
    for name, path in (("cert", cert), ("key", key), ("client-ca", client_ca)):
        if path:
            _readable(f"--websocket-{name}", path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise BadListener(
            f"--websocket-cert {cert}, --websocket-key {key}: {_said(error)}. They must be PEM files, the key "
            "without a password, and the certificate's own."
        ) from None
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except (ssl.SSLError, OSError) as error:
            raise BadListener(f"--websocket-client-ca {client_ca}: {_said(error)}. It must be a PEM file.") from None
        context.verify_mode = ssl.CERT_OPTIONAL  # who has none shows a token
    return context


def listener_of(settings: Settings, tls: ssl.SSLContext | None, log: Log) -> ListenerSettings:
    """With the socket bound and listening: whoever connects now waits until the relay runs. Raises BadListener."""
    host, port = address_of(settings.websocket)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.create_server(found[4], family=found[0], backlog=_BACKLOG)
    except OSError as error:
        hint = "Give another port, or end what has it."
        if isinstance(error, PermissionError):
            hint = "Ports below 1024 need rights of their own: give another one."
        elif isinstance(error, socket.gaierror):
            hint = "Give an address of this machine."
        raise BadListener(f"--websocket {settings.websocket}: {_said(error)}. {hint}") from None
    if tls is None and not ip_address(str(found[4][0]).partition("%")[0]).is_loopback:
        hint = "tokens travel in clear: give --websocket-cert and --websocket-key, or put a proxy with TLS before it"
        log.event("no-tls", "warning", websocket=settings.websocket, hint=hint)
    config = settings.listener
    room = _files() - _OTHER_FILES - config.handshakes
    if room < config.connections:
        config = dataclasses.replace(config, connections=max(1, room))
        hint = f"raise the limit of open files (ulimit -n) to {settings.listener.connections + _OTHER_FILES} and more"
        log.event("few-files", "warning", connections=config.connections, hint=hint)
    bound.setblocking(False)
    return ListenerSettings(bound=bound, prefix=settings.relay.topic_prefix, tls=tls, config=config)


def _files() -> int:
    """How many this process may open, after it has asked for all that it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass  # then it stays with what it has
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def _readable(option: str, path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        raise BadListener(f"{option} {path}: {_said(error)}") from None
    if os.path.isdir(path):
        raise BadListener(f"{option} {path}: is a directory")


def _no_password() -> str:
    """Asked for by a key that is encrypted: nobody is there to type it."""
    raise ValueError("the key has a password")


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror | ssl.SSLError) and error.errno:
        return os.strerror(error.errno).lower()
    return (getattr(error, "strerror", None) or str(error)).lower()
