"""What a connection died of, in words: each with what to do about it. Called by pytest only."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from agent.transport.port import KINDS, LinkError
from agent.transport.reasons import alert, closed, is_cancelled, root, why

NOW_MS = 1_700_000_000_000


def unverified(code: int, message: str = "x") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_code = code
    error.verify_message = message
    return error


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] text")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (socket.gaierror(-2, "Name or service not known"), "name", "a: name or service not known"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "unreachable", "a:1: connection refused"),
        (TimeoutError("timed out"), "unreachable", "no answer in time"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "unreachable", "network is unreachable"),
        (unverified(9), "certificate", "not valid yet by this device's clock, which says 2023-11-14 22:13 UTC"),
        (unverified(10), "certificate", "has expired by this device's clock"),
        (unverified(19, "self-signed certificate in chain"), "certificate", "not issued by an authority"),
        (unverified(62, "Hostname mismatch"), "certificate", "another host's"),
        (unverified(64, "IP address mismatch"), "certificate", "another host's"),
        (unverified(23, "revoked"), "certificate", "was revoked"),
        (tls("TLSV1_ALERT_UNKNOWN_CA"), "certificate", "refuses this device: its certificate was not issued"),
        (tls("SSLV3_ALERT_CERTIFICATE_EXPIRED"), "certificate", "its certificate has expired"),
        (tls("SSLV3_ALERT_CERTIFICATE_REVOKED"), "certificate", "its certificate was revoked"),
        (tls("WRONG_VERSION_NUMBER"), "protocol", "no TLS there"),
        (tls("SOMETHING_NEW"), "certificate", "TLS failed: SOMETHING_NEW"),
        (ValueError("strange"), "protocol", "ValueError: strange"),
    ],
)
def test_every_error_has_its_words(error: Exception, kind: str, text: str) -> None:
    found = why(error, "a:1", lambda: NOW_MS)
    assert found.kind == kind and text in found.message
    assert found.hint
    wrapped = OSError("all attempts failed")
    wrapped.__cause__ = ExceptionGroup("attempts", [error])
    assert why(wrapped, "a:1", lambda: NOW_MS).message == found.message


def test_the_end_of_a_connection_may_say_why() -> None:
    assert closed("", "a:1").kind == "lost"
    text = "failed to receive on socket: [SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"
    assert closed(text, "a:1").kind == "certificate" and "is missing" in closed(text, "a:1").message
    assert alert("TLSV1_ALERT_ACCESS_DENIED", "a:1").kind == "certificate"


def test_groups_are_opened_and_what_is_not_ours_is_left_alone() -> None:
    error = LinkError("refused", "no")
    assert root(ExceptionGroup("a", [ExceptionGroup("b", [error])])) is error
    assert why(ExceptionGroup("a", [error]), "a:1", lambda: 0) is error
    assert is_cancelled(KeyboardInterrupt()) and is_cancelled(BaseExceptionGroup("a", [error, KeyboardInterrupt()]))
    assert not is_cancelled(ExceptionGroup("a", [error]))


def test_every_kind_is_explained() -> None:
    assert all(len(text) > 10 for text in KINDS.values())
