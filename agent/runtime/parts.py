"""From settings to the parts of an agent: transport, gate, numbers. Loads the library of the transport that is used.

Called by agent.runtime.daemon, and by whoever runs many agents.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import trio

from agent.protocol.errors import InputError, Problem
from agent.runtime.driver import Part
from agent.runtime.gate import Gate
from agent.runtime.settings import NO_ALPN, Settings
from agent.transport.address import ALPN, tls_context
from agent.transport.port import Transport


def part_of(
    settings: Settings,
    *,
    limiter: trio.CapacityLimiter,
    monotonic_ms: Callable[[], int],
    wall_ms: Callable[[], int],
    chance: Callable[[], float],
) -> Part:
    """Raises InputError when the certificates are none."""
    gate = Gate(settings.gate, monotonic_ms(), chance)
    return Part(settings.numbers, transport_of(settings, limiter, wall_ms), gate)


def transport_of(settings: Settings, limiter: trio.CapacityLimiter, wall_ms: Callable[[], int]) -> Transport:
    address = settings.address
    tls = _tls(settings) if address.secure else None
    keep_alive_s = max(1, settings.keep_alive_ms // 1000)
    if address.direct:
        from agent.transport.websocket import WebSocketSettings, WebSocketTransport

        web = WebSocketSettings(
            host=address.host,
            port=address.port,
            device=settings.device,
            token=settings.token or None,
            tls=tls,
            path=address.path,
            keep_alive_s=keep_alive_s,
        )
        return WebSocketTransport(web, wall_ms)
    from agent.transport.mqtt import MqttSettings, MqttTransport

    mqtt = MqttSettings(
        host=address.host,
        port=address.port,
        device=settings.device,
        account=settings.account,
        prefix=settings.topic_prefix,
        username=settings.username or (settings.device if settings.password else None),
        password=settings.password or None,
        tls=tls,
        path=address.path,
        version=settings.mqtt,
        keep_alive_s=keep_alive_s,
        presence=settings.presence,
    )
    return MqttTransport(mqtt, limiter, wall_ms)


def _tls(settings: Settings) -> ssl.SSLContext:
    alpn = settings.alpn
    if alpn == "auto":
        alpn = ALPN if settings.address.scheme == "mqtts" and settings.address.port == 443 else ""
    try:
        return tls_context(settings.ca, settings.certificate, settings.key, "" if alpn == NO_ALPN else alpn)
    except OSError as error:  # ssl.SSLError is one
        text = f"certificates: {error}"
        hint = "PEM files; the key must be the certificate's"
        raise InputError([Problem(settings.place, 0, 0, "connection", text, hint)]) from None
