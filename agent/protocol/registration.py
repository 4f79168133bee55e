"""The file that makes a device one of a fleet: who it is, whose it is, and the token that proves it to the relay.

Written by `fleet-cloud register --token --out FILE`, read where an agent is set up. It holds a secret: whoever writes
it lets nobody else read it. JSON; keys that a reader does not know are left alone. Pure: files are read elsewhere.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agent.protocol.errors import InputError, Problem
from agent.protocol.topics import PREFIX, valid_id
from agent.protocol.websocket import TOKEN_CHARS_MAX

VERSION: Final = 1


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """`token`: "" for a device that has none, but a certificate. `prefix`: of the topics at a broker. `url`: where the
    relay (ws, wss) or the broker (mqtt, mqtts) is; "" where nobody said it. `fleet`: the version of this form."""

    device: str
    account: str
    token: str = ""
    prefix: str = PREFIX
    url: str = ""
    fleet: int = VERSION


def text_of(registration: Registration) -> str:
    """What stands in the file."""
    return msgspec.json.format(msgspec.json.encode(registration), indent=2).decode() + "\n"


def registration_of(text: str | bytes, place: str) -> Registration:
    """What a file says. `place`: its name, for errors. Raises InputError with every mistake."""
    try:
        found = msgspec.json.decode(text, type=Registration)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeError) as error:
        hint = "`fleet-cloud register DEVICE --account ACCOUNT --token --out FILE` writes one"
        raise InputError([Problem(place, 0, 0, "", f"is no registration: {_plain(error)}", hint)]) from None
    problems = []
    if found.fleet != VERSION:
        problems.append(Problem(place, 0, 0, "fleet", f"version {found.fleet}, expected {VERSION}", "update the agent"))
    for name, value in (("device", found.device), ("account", found.account)):
        if not valid_id(value):
            problems.append(Problem(place, 0, 0, name, f"{value!r} is no id", "1 to 128 letters, digits and :_.-"))
    if len(found.token) > TOKEN_CHARS_MAX or not found.token.isascii() or not found.token.isprintable():
        problems.append(Problem(place, 0, 0, "token", f"expected at most {TOKEN_CHARS_MAX} printable characters"))
    if problems:
        raise InputError(problems)
    return found


def _plain(error: Exception) -> str:
    return str(error).replace("`", "'").replace("$.", "")
