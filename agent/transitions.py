"""The session's states and what may happen in each: the whole table, from which the documentation draws its diagram.

Pure data; decides nothing. Session runs by it and refuses what is not in it.
"""

from __future__ import annotations

from typing import Final

from agent.events import (
    ONLINE,
    Boot,
    Compare,
    Connected,
    Disconnected,
    Event,
    LocalChange,
    Received,
    State,
    Stop,
    Timer,
)

_SAME: Final[dict[State, tuple[State, ...]]] = {state: (state,) for state in State}

# state -> event -> (method of Session, states that may follow). A pair that is not here is an error of the driver.
TRANSITIONS: Final[dict[State, dict[type[Event], tuple[str, tuple[State, ...]]]]] = {
    State.OFF: {
        Boot: ("on_boot", (State.WAITING,)),
        Timer: ("on_nothing", _SAME[State.OFF]),  # one that was set before the stop
        LocalChange: ("on_nothing", _SAME[State.OFF]),  # an application may write before the boot and after the stop
        Compare: ("on_nothing", _SAME[State.OFF]),
    },
    State.WAITING: {
        Timer: ("on_timer_waiting", (State.WAITING, State.CONNECTING)),
        LocalChange: ("on_nothing", _SAME[State.WAITING]),
        Compare: ("on_compare", _SAME[State.WAITING]),
        Stop: ("on_stop", (State.OFF,)),
    },
    State.CONNECTING: {
        Connected: ("on_connected", ONLINE),
        Disconnected: ("on_disconnected", (State.WAITING,)),
        Timer: ("on_nothing", _SAME[State.CONNECTING]),
        LocalChange: ("on_nothing", _SAME[State.CONNECTING]),
        Compare: ("on_compare", _SAME[State.CONNECTING]),
        Stop: ("on_stop", (State.OFF,)),
    },
    State.JOINING: {
        Received: ("on_received", ONLINE),
        Disconnected: ("on_disconnected", (State.WAITING,)),
        Timer: ("on_timer_online", ONLINE),
        LocalChange: ("on_nothing", _SAME[State.JOINING]),
        Compare: ("on_compare", _SAME[State.JOINING]),
        Stop: ("on_stop", (State.OFF,)),
    },
    State.IDLE: {
        Received: ("on_received", ONLINE),
        Disconnected: ("on_disconnected", (State.WAITING,)),
        Timer: ("on_timer_online", ONLINE),
        LocalChange: ("on_local_change", (State.IDLE, State.SENDING)),
        Compare: ("on_compare", _SAME[State.IDLE]),
        Stop: ("on_stop", (State.OFF,)),
    },
    State.SENDING: {
        Received: ("on_received", ONLINE),
        Disconnected: ("on_disconnected", (State.WAITING,)),
        Timer: ("on_timer_online", ONLINE),
        LocalChange: ("on_local_change", _SAME[State.SENDING]),
        Compare: ("on_compare", _SAME[State.SENDING]),
        Stop: ("on_stop", (State.OFF,)),
    },
}


class IllegalTransitionError(RuntimeError):
    """The driver gave an event that cannot happen in this state."""
