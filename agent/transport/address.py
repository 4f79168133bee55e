"""Where the agent connects to: a URL taken apart, and the TLS that it asks for.

Pure but for `tls_context`, which reads certificates. Called by agent.runtime.
"""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit

import msgspec

ALPN: Final = "x-amzn-mqtt-ca"  # AWS IoT Core's, for MQTT with client certificates on port 443
DEFAULT_PATH: Final = "/mqtt"  # of MQTT over WebSocket, as brokers have it
# Scheme -> port, TLS, WebSocket, straight to the relay.
SCHEMES: Final = {
    "mqtt": (1883, False, False, False),
    "mqtts": (8883, True, False, False),
    "mqtt+ws": (80, False, True, False),
    "mqtt+wss": (443, True, True, False),
    "ws": (80, False, True, True),
    "wss": (443, True, True, True),
}


class Address(msgspec.Struct, frozen=True):
    """`direct`: the relay itself, no broker. `path`: of a WebSocket."""

    scheme: str
    host: str
    port: int
    path: str
    secure: bool
    direct: bool

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"


def address_of(url: str) -> Address:
    """Raises ValueError with what is wrong."""
    expected = f"expected one of {', '.join(f'{scheme}://' for scheme in SCHEMES)} and a host"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r}: the port is no number from 1 to 65535") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise ValueError(f"{url!r}: {expected}")
    if parts.username or parts.password:
        raise ValueError("user and password have keys of their own: connection.username and connection.password")
    usual, secure, web, direct = SCHEMES[parts.scheme]
    if parts.query or parts.fragment or (parts.path.strip("/") and not web):
        raise ValueError(f"{url!r}: nothing may stand behind host and port")
    path = parts.path if web else ""
    if web and not direct and not path.strip("/"):
        path = DEFAULT_PATH
    return Address(parts.scheme, parts.hostname, port or usual, path, secure, direct)


def tls_context(ca: str, certificate: str, key: str, alpn: str) -> ssl.SSLContext:
    """TLS 1.2 or newer, the server's certificate and name always checked. Raises OSError (ssl.SSLError is one)."""
    context = ssl.create_default_context(cafile=ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        context.load_cert_chain(certificate, key)
    if alpn:
        context.set_alpn_protocols([alpn])
    return context
