"""A broker that a live run was given: its address, the certificates, who connects to it as whom; whether it is there.

Devices speak TLS with the broker itself, through the run's proxy: they connect to a port of this machine, and the name
in the broker's certificate is checked all the same. Starts and disturbs nothing. Called by fleet.live.setup and
fleet.live.device.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import msgspec
from paho.mqtt import client as paho

from agent.protocol.errors import InputError, Problem
from agent.system import wall_ms
from agent.transport import reasons
from agent.transport.address import ALPN, Address, address_of, tls_context
from agent.transport.paho_loop import client_of

DEVICE: Final = "{device}"  # in names of users and files: the device's id, and RELAY for the relay
RELAY: Final = "relay"
EXAMPLE: Final = "mqtt://broker.example:1883"
_SCHEMES: Final = {"ws": "mqtt+ws", "wss": "mqtt+wss"}  # there is a broker: it cannot be the relay's own WebSocket
_ANSWER_S: Final = 10.0
_OPEN_RIGHTS: Final = stat.S_IRWXG | stat.S_IRWXO


class GivenBroker(msgspec.Struct, frozen=True, kw_only=True):
    """`username`, `cert` and `key` may have {device} in them."""

    address: Address
    username: str = ""
    password: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    def url_of(self, name: str) -> str:
        """With its user, without a password."""
        address = self.address
        user = f"{quote(own(self.username, name), safe='')}@" if self.username else ""
        return f"{address.scheme}://{user}{_host(address)}:{address.port}{address.path}"

    def connection(self, name: str, port: int) -> dict[str, str]:
        """Of a device's configuration: through that port of loopback."""
        address = self.address
        found = {"url": f"{address.scheme}://127.0.0.1:{port}{address.path}"}
        files = {"ca": self.ca, "certificate": own(self.cert, name), "key": own(self.key, name)}
        found.update({key: os.path.abspath(file) for key, file in files.items() if file})
        if self.username:
            found.update(username=own(self.username, name), password=self.password)
        if self.alpn:
            found["alpn"] = self.alpn
        return found

    @property
    def alpn(self) -> str:
        """The agent goes by the port, which is the proxy's."""
        return ALPN if self.address.scheme == "mqtts" and self.address.port == 443 else ""

    def relay_options(self) -> list[str]:
        files = {"ca": self.ca, "cert": own(self.cert, RELAY), "key": own(self.key, RELAY)}
        return [word for name, file in files.items() if file for word in (f"--{name}", file)]

    def tls(self, name: str) -> ssl.SSLContext | None:
        """Raises OSError (ssl.SSLError is one)."""
        if not self.address.secure:
            return None
        return tls_context(self.ca, own(self.cert, name), own(self.key, name), self.alpn)

    def client(self, name: str) -> paho.Client:
        """Not connected yet. Raises OSError."""
        return client_of(
            client_id="",
            version="5",
            username=own(self.username, name) or None,
            password=self.password or None,
            tls=self.tls(name),
            path=self.address.path,
        )


def own(text: str, name: str) -> str:
    return text.replace(DEVICE, name)


def _host(address: Address) -> str:
    return f"[{address.host}]" if ":" in address.host else address.host


def given_broker(url: str, ca: str = "", cert: str = "", key: str = "") -> GivenBroker:
    """Raises InputError."""
    try:
        parts = urlsplit(url)
        scheme = _SCHEMES.get(parts.scheme, parts.scheme)
        bare = parts._replace(scheme=scheme, netloc=parts.netloc.rpartition("@")[2])
        address = address_of(bare.geturl())
    except ValueError as error:
        raise refused("--broker", hidden(url), str(error), f"such as {EXAMPLE}") from None
    if not address.secure:
        for name, file in (("ca", ca), ("cert", cert), ("key", key)):
            if file:
                raise refused(f"--{name}", file, "goes with a broker at mqtts:// or wss://")
    if bool(cert) != bool(key):
        raise refused("--cert", cert or key, "--cert and --key go together: name both, or neither")
    return GivenBroker(
        address=address,
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        ca=ca,
        cert=cert,
        key=key,
    )


def check_files(broker: GivenBroker, devices: list[str]) -> None:
    """Those of the relay and of each device. Raises InputError with every one that cannot be used."""
    found: dict[str, Problem] = {}
    for name in (RELAY, *devices):
        files = (("--ca", broker.ca), ("--cert", own(broker.cert, name)), ("--key", own(broker.key, name)))
        problems = [problem for option, file in files if file and (problem := _file(option, file)) is not None]
        if not problems:
            try:
                broker.tls(name)
            except OSError as error:
                hint = "PEM files; the key must be the certificate's"
                problems = [Problem("--cert", 0, 0, own(broker.cert, name) or broker.ca, str(error), hint)]
        found.update({str(problem): problem for problem in problems})
    if found:
        raise InputError(list(found.values()))


def _file(option: str, file: str) -> Problem | None:
    try:
        mode = stat.S_IMODE(os.stat(file).st_mode)
    except OSError as error:
        return Problem(option, 0, 0, file, (error.strerror or str(error)).lower())
    if option != "--ca" and mode & _OPEN_RIGHTS:
        return Problem(
            option, 0, 0, file, f"others may read it (mode {mode:04o}): agents refuse that", f"chmod 600 {file}"
        )
    return None


def check_reached(broker: GivenBroker) -> None:
    """Connects as the relay, and goes again. Raises InputError when the broker is not there, or does not want it."""
    place = broker.address.place
    answered = threading.Event()
    answers: list[Any] = []

    def welcomed(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        answers.append(reason)
        answered.set()

    try:
        _shake_hands(broker)
        client = broker.client(RELAY)
        client.on_connect = welcomed
        client.on_disconnect = lambda *_: answered.set()
        client.connect_timeout = _ANSWER_S
        client.connect(broker.address.host, broker.address.port)
    except Exception as error:  # of sockets, of TLS, and of whatever answers there
        why = reasons.why(error, place, wall_ms)
        raise refused("--broker", hidden(broker.url_of(RELAY)), why.message, _as_option(why.hint)) from None
    client.loop_start()
    answered.wait(_ANSWER_S)
    client.disconnect()
    client.loop_stop()
    sock = client.socket()
    if sock is not None:
        sock.close()  # the thread may have ended before it saw the end
    if not answers:
        why = reasons.closed("", place, welcome=False, secure=broker.address.secure)
        raise refused("--broker", hidden(broker.url_of(RELAY)), why.message, _as_option(why.hint))
    if answers[0].is_failure:
        hint = "user and password stand before the host (user:password@host), certificates are --cert and --key"
        raise refused("--broker", hidden(broker.url_of(RELAY)), f"{place} refuses the relay: {answers[0]}", hint)


def _shake_hands(broker: GivenBroker) -> None:
    """TCP and TLS, as a client of paho does it, which leaves its socket open where they fail. Raises OSError."""
    address, tls = broker.address, broker.tls(RELAY)
    with socket.create_connection((address.host, address.port), _ANSWER_S) as plain:
        if tls is not None:
            with tls.wrap_socket(plain, server_hostname=address.host):
                return


def _as_option(hint: str) -> str:
    return (
        hint.replace("`connection.ca`", "--ca")
        .replace("`connection.url`", "--broker")
        .replace("`connection.certificate`", "--cert")
    )


def hidden(url: str) -> str:
    """An address without its password."""
    scheme, mark, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{mark}{user.partition(':')[0]}{at}{host}" if at else url


def refused(option: str, value: str, message: str, hint: str = "") -> InputError:
    return InputError([Problem(option, 0, 0, value, message, hint)])


class NamedTls:
    """A TLS context for a connection through the proxy: it asks for the broker by its name. What a client of paho
    needs of one."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self._context = context
        self._name = name
        self.check_hostname = context.check_hostname

    def wrap_socket(self, sock: Any, server_hostname: str, **options: Any) -> ssl.SSLSocket:
        assert server_hostname, "the proxy's address"
        return self._context.wrap_socket(sock, server_hostname=self._name, **options)
