"""From what a socket, a resolver or TLS raises to a LinkError that says what is wrong and what to do about it.

Pure. Called by the adapters.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from agent.transport.port import LinkError

_CLOCK_HINT: Final = "set the device's clock (NTP, or a clock with a battery)"
_OWN_HINT: Final = "renew or register the certificate that `connection.certificate` names"
_NOT_YET, _EXPIRED = 9, 10  # of X509_V_ERR_*, OpenSSL's x509_vfy.h
_UNKNOWN_CA: Final = (2, 18, 19, 20, 21)
_OTHER_NAME: Final = (62, 64)  # host name, IP address
_REVOKED: Final = 23
# Alerts of the other side: what it holds against this device's certificate.
_ALERTS: Final = {
    "CERTIFICATE_EXPIRED": "has expired",
    "CERTIFICATE_REVOKED": "was revoked",
    "CERTIFICATE_REQUIRED": "is missing",
    "HANDSHAKE_FAILURE": "is missing, or the two agree on no cipher",
    "UNKNOWN_CA": "was not issued by an authority that it knows",
    "BAD_CERTIFICATE": "is not accepted",
    "CERTIFICATE_UNKNOWN": "is not accepted",
    "UNSUPPORTED_CERTIFICATE": "is of a kind that is not accepted",
    "ACCESS_DENIED": "is known and may not connect",
}
_IN_TEXT: Final = re.compile(r"\[SSL: (\w+)\]")


def why(error: BaseException, place: str, wall_ms: Callable[[], int]) -> LinkError:
    """What an attempt or a connection died of. `place`: HOST:PORT."""
    cause = root(error)
    if isinstance(cause, LinkError):
        return cause
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _verification(cause, place, wall_ms)
    if isinstance(cause, ssl.SSLError):
        return alert(cause.reason or str(cause), place)
    if isinstance(cause, socket.gaierror):
        name = place.rpartition(":")[0]
        return LinkError("name", f"{name}: {_words(cause)}", "check the name, and the device's network and DNS")
    if isinstance(cause, TimeoutError):
        return LinkError("unreachable", f"{place}: no answer in time", "check the network, and firewalls on the way")
    if isinstance(cause, ConnectionRefusedError):
        return LinkError("unreachable", f"{place}: connection refused", "nobody listens there: check host and port")
    if isinstance(cause, OSError):
        return LinkError("unreachable", f"{place}: {_words(cause)}", "check the network")
    return LinkError("protocol", f"{place}: {type(cause).__name__}: {cause}", "check what listens there")


def alert(reason: str, place: str) -> LinkError:
    """`reason`: OpenSSL's name for what went wrong, or a text that quotes it."""
    quoted = _IN_TEXT.search(reason)
    name = quoted[1] if quoted else reason
    for ending, what in _ALERTS.items():
        if name.endswith(ending):
            return LinkError("certificate", f"{place} refuses this device: its certificate {what} ({name})", _OWN_HINT)
    if "WRONG_VERSION_NUMBER" in name:
        return LinkError(
            "protocol", f"{place}: no TLS there", "mqtt:// and ws:// are without TLS; or the port is wrong"
        )
    return LinkError("certificate", f"{place}: TLS failed: {name}", "check that both ends speak TLS 1.2 or newer")


def closed(text: str, place: str, *, welcome: bool = True, secure: bool = False) -> LinkError:
    """A connection that was there. `text`: what the library said of its end. `welcome`: the server had answered to who
    this is; one that has not, and holds something against this device's certificate, may be gone before it is heard."""
    if _IN_TEXT.search(text):
        return alert(text, place)
    if not welcome:
        hint = "it may not accept this device's certificate" if secure else "it may want TLS, or speak something else"
        return LinkError(
            "refused", f"{place} has ended the connection without an answer{f': {text}' if text else ''}", hint
        )
    return LinkError("lost", f"{place}: connection lost{f': {text}' if text else ''}")


def _verification(error: ssl.SSLCertVerificationError, place: str, wall_ms: Callable[[], int]) -> LinkError:
    now = datetime.fromtimestamp(wall_ms() / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    code = error.verify_code
    what = error.verify_message
    if code == _NOT_YET:
        text = f"{place}: its certificate is not valid yet by this device's clock, which says {now}"
        return LinkError("certificate", text, _CLOCK_HINT)
    if code == _EXPIRED:
        text = f"{place}: its certificate has expired by this device's clock, which says {now}"
        return LinkError("certificate", text, f"renew the server's certificate; if the clock is wrong, {_CLOCK_HINT}")
    if code in _UNKNOWN_CA:
        text = f"{place}: its certificate was not issued by an authority that this device trusts: {what}"
        return LinkError("certificate", text, "`connection.ca` names the authority's certificate")
    if code in _OTHER_NAME or "mismatch" in what.lower():
        text = f"{place}: its certificate is another host's: {what}"
        return LinkError("certificate", text, "`connection.url` must have the name that the certificate has")
    if code == _REVOKED:
        return LinkError("certificate", f"{place}: its certificate was revoked", "give the server a new one")
    return LinkError("certificate", f"{place}: its certificate does not hold: {what}", "check the server's certificate")


def root(error: BaseException) -> BaseException:
    """What lies at the bottom: the first error of a group, the cause of a wrapper."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None and not isinstance(error, LinkError | ssl.SSLError | socket.gaierror):
            error = error.__cause__
        else:
            return error


def is_cancelled(error: BaseException) -> bool:
    """Whether it is none of our business: also within a group, since a nursery wraps what ended it."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_cancelled(each) for each in error.exceptions)
    return not isinstance(error, Exception)


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
