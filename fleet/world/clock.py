"""Virtual time: simpy's Environment in whole microseconds, with a light way to call a function at a time.

What happens at the same microsecond happens in an order that the seed chooses, not in the order of scheduling, so that
schedules are explored: each entity (a device, a worker, the broker) has a `Tie`, a generator of its own, advanced once
for each thing that it schedules. No entity disturbs the order among others. Never reads a clock on the wall.
Used by everything in fleet.world; plain simpy processes run on it too.

An entry of the heap is (time, tie value, tie serial, function, argument): the first three are unique together (a Tie
repeats after 2**64 values), so functions are never compared.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

from simpy.core import EmptySchedule, Environment, StopSimulation
from simpy.events import NORMAL, Event

from fleet.rng import digest64

MASK: Final = (1 << 64) - 1
# Knuth's MMIX generator: the high bits are good, the low ones are not. Users take bits from the top.
FACTOR: Final = 6364136223846793005
STEP: Final = 1442695040888963407
_FIRST: Final = -(1 << 80)  # before every tie value and every simpy priority

Action = Callable[[Any], object]
Entry = tuple[int, int, int, Action, Any]


class Tie:
    """One entity's order among things of the same microsecond. Made by `Clock.tie`."""

    __slots__ = ("serial", "state")

    def __init__(self, seed: int, entity: str, serial: int) -> None:
        self.state = digest64(seed, entity, "tie")
        self.serial = serial

    def draw(self) -> int:
        """The next 64 bits. Also good for cheap numbers that need no stream of their own: use the high bits."""
        self.state = state = (self.state * FACTOR + STEP) & MASK
        return state


class Handle:
    """A call that may be cancelled. Its entry stays in the heap and does nothing when its time comes."""

    __slots__ = ("arg", "fn")

    def __init__(self, fn: Action, arg: Any) -> None:
        self.fn: Action | None = fn
        self.arg = arg

    @property
    def pending(self) -> bool:
        return self.fn is not None

    def cancel(self) -> None:
        """May be called at any time, also afterwards."""
        self.fn = self.arg = None


def _fire(handle: Handle) -> None:
    fn = handle.fn
    if fn is not None:
        arg = handle.arg
        handle.fn = handle.arg = None
        fn(arg)


class _Stop(Exception):
    """Ends one run_until; `live` until that has ended."""

    live = True


def _stop(stop: _Stop) -> None:
    if stop.live:
        raise stop


class Clock(Environment):
    """Virtual time from 0. `now` is in microseconds, as an int."""

    _now: int
    _queue: list[Entry]  # type: ignore[assignment]  # simpy's entries hold an event; ours a function and its argument

    def __init__(self, seed: int) -> None:
        super().__init__(0)
        self.seed = seed
        self._serial = 0
        self._own = self.tie("clock")
        self._stops = 0
        self._run_event: Final[Action] = self._process_event

    @property
    def now(self) -> int:
        return self._now

    @property
    def heap(self) -> list[Entry]:
        """For code that pushes many entries, and for counting what is under way. In no order but the heap's."""
        return self._queue

    def tie(self, entity: str) -> Tie:
        """The order of an entity; one for each name."""
        self._serial += 1
        return Tie(self.seed, entity, self._serial)

    # The fast way: no handle, nothing to cancel.

    def post_at(self, when_us: int, tie: Tie, fn: Action, arg: Any) -> None:
        """Calls fn(arg) at `when_us`, which must not be in the past."""
        if when_us < self._now:
            raise ValueError(f"{when_us} µs is in the past: now is {self._now}")
        tie.state = state = (tie.state * FACTOR + STEP) & MASK
        heappush(self._queue, (when_us, state, tie.serial, fn, arg))

    def post_in(self, delay_us: int, tie: Tie, fn: Action, arg: Any) -> None:
        if delay_us < 0:
            raise ValueError(f"a delay of {delay_us} µs")
        tie.state = state = (tie.state * FACTOR + STEP) & MASK
        heappush(self._queue, (self._now + delay_us, state, tie.serial, fn, arg))

    def call_at(self, when_us: int, tie: Tie, fn: Action, arg: Any) -> Handle:
        """As post_at, and can be cancelled."""
        handle = Handle(fn, arg)
        self.post_at(when_us, tie, _fire, handle)
        return handle

    def call_in(self, delay_us: int, tie: Tie, fn: Action, arg: Any) -> Handle:
        handle = Handle(fn, arg)
        self.post_in(delay_us, tie, _fire, handle)
        return handle

    # simpy's side.

    def schedule(self, event: Event, priority: int = NORMAL, delay: Any = 0) -> None:
        """simpy's way in. Priority counts before the tie. Delays must be whole microseconds."""
        if type(delay) is not int:
            raise TypeError(f"virtual time is in whole microseconds, not {delay!r}")
        if delay < 0:
            raise ValueError(f"a delay of {delay} µs")
        own = self._own
        rank = ((priority - NORMAL) << 64) + own.draw()
        heappush(self._queue, (self._now + delay, rank, own.serial, self._run_event, event))

    def step(self) -> None:
        try:
            self._now, _, _, fn, arg = heappop(self._queue)
        except IndexError:
            raise EmptySchedule from None
        fn(arg)

    def _process_event(self, event: Event) -> None:
        """What simpy's Environment.step does with one event."""
        callbacks = event.callbacks
        event.callbacks = None  # type: ignore[assignment]  # as simpy does: it has happened
        position = 0
        try:
            for callback in callbacks:
                position += 1
                callback(event)
        except StopSimulation:
            # The callbacks that are left run when the simulation goes on.
            event.callbacks = callbacks[position:]
            self.schedule(event, -1)
            raise
        if not event._ok and not hasattr(event, "_defused"):
            raise event._value

    def run_until(self, when_us: int) -> None:
        """Runs everything that is due before `when_us`, which is the time afterwards. An error of a call comes out."""
        if when_us < self._now:
            raise ValueError(f"{when_us} µs is in the past: now is {self._now}")
        stop = _Stop()
        queue = self._queue
        pop = heappop
        # A mark in the heap ends the loop: cheaper than comparing times before every entry.
        self._stops += 1
        heappush(queue, (when_us, _FIRST, self._stops, _stop, stop))
        try:
            while True:
                self._now, _, _, fn, arg = pop(queue)
                fn(arg)
        except _Stop as reached:
            if reached is not stop:
                raise
        finally:
            stop.live = False
            stop.__traceback__ = None  # it leads back to this frame: a cycle, and with it the last event's argument
