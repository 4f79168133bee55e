"""What goes into a Session and what comes out: small typed values. Times are milliseconds of a monotonic clock."""

from __future__ import annotations

import enum
from typing import Final

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something happened to the device."""


class Boot(Event, frozen=True, gc=False):
    """The agent has started; its database is open."""


class Connected(Event, frozen=True, gc=False):
    """A clean MQTT session is up and its subscriptions are acknowledged."""


class Disconnected(Event, frozen=True, gc=False):
    """The connection is gone, or could not be made."""


class Received(Event, frozen=True, gc=False):
    """A message arrived on one of the device's topics."""

    payload: bytes


class LocalChange(Event, frozen=True, gc=False):
    """The outbox has something new."""


class Timer(Event, frozen=True, gc=False):
    """The time of the last SetTimer has come (or an earlier one: harmless)."""


class Compare(Event, frozen=True, gc=False):
    """Somebody wants to know whether device and cloud hold the same items: a digest is compared as soon as may be."""


class Stop(Event, frozen=True, gc=False):
    """The agent is to end in good order."""


class Effect(msgspec.Struct, frozen=True, gc=False):
    """Something to be done by the driver."""


class Send(Effect, frozen=True, gc=False):
    """Publish on the device's own topic, QoS 1."""

    payload: bytes


class SetTimer(Effect, frozen=True, gc=False):
    """Wake the session at this time. Replaces the one before."""

    at_ms: int


class Connect(Effect, frozen=True, gc=False):
    """Start to connect; answer with Connected or Disconnected."""


class Disconnect(Effect, frozen=True, gc=False):
    """Close the connection; no event follows."""


class State(enum.Enum):
    __hash__ = object.__hash__  # enum's own is a call of Python at every look into a table

    OFF = "off"  # not booted, or stopped
    WAITING = "waiting"  # until it is time to connect
    CONNECTING = "connecting"
    JOINING = "joining"  # connected; no ack of the own epoch yet: nothing goes up
    IDLE = "idle"  # connected, adopted, nothing in flight
    SENDING = "sending"  # connected, adopted, one batch in flight


NEVER: Final = 1 << 62  # no time
ONLINE: Final = (State.JOINING, State.IDLE, State.SENDING)
BOOT: Final = Boot()
CONNECTED: Final = Connected()
DISCONNECTED: Final = Disconnected()
LOCAL_CHANGE: Final = LocalChange()
TIMER: Final = Timer()
COMPARE: Final = Compare()
STOP: Final = Stop()
CONNECT: Final = Connect()
DISCONNECT: Final = Disconnect()
