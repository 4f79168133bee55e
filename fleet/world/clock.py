"""Virtual time: simpy's Environment in whole microseconds, with a light way to call a function at a time.

What happens at the same microsecond happens in an order that the seed chooses, not in the order of scheduling, so that
schedules are explored: each entity (a device, a worker, the broker) has a `Tie`, a generator of its own, advanced once
for each thing that it schedules. No entity disturbs the order among others. Never reads a clock on the wall.
Used by everything in fleet.world; plain simpy processes run on it too.

An entry of the heap is (time, tie value, tie serial, function, argument): the first three are unique together (a Tie
repeats after 2**30 values), so functions are never compared.

A fleet has tens of thousands of calls waiting, most of them minutes away: a heap of all of them is deep and cold. What
lies beyond the present second is kept in a list for each second, unsorted, and goes into the heap when its second
begins. The order in which things happen does not depend on that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Final

from simpy.core import EmptySchedule, Environment, StopSimulation
from simpy.events import NORMAL, Event

from fleet.rng import digest64

# A multiplicative generator of 30 bits (L'Ecuyer, "Tables of linear congruential generators of different sizes and good
# lattice structure", 1999): what Python multiplies fastest, and every call that is scheduled draws one.
DRAW_BITS: Final = 30
MODULUS: Final = (1 << DRAW_BITS) - 35
FACTOR: Final = 771_645_345
_FIRST: Final = -(1 << 80)  # before every tie value and every simpy priority
_SECOND_BITS: Final = 20  # 2**20 µs, 1.05 s

Action = Callable[[Any], object]
Entry = tuple[int, int, int, Action, Any]


class Tie:
    """One entity's order among things of the same microsecond. Made by `Clock.tie`."""

    __slots__ = ("serial", "state")

    def __init__(self, seed: int, entity: str, serial: int) -> None:
        self.state = digest64(seed, entity, "tie") % (MODULUS - 1) + 1
        self.serial = serial

    def reseed(self, number: int) -> None:
        """From now on other values."""
        self.state = digest64(self.state, "reseed", number) % (MODULUS - 1) + 1

    def draw(self) -> int:
        """The next value, 1 .. 2**DRAW_BITS - 36. Also good for cheap numbers that need no stream of their own."""
        self.state = state = self.state * FACTOR % MODULUS
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

    def __init__(self) -> None:
        super().__init__()
        self.live = True


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
        self._far: dict[int, list[Entry]] = {}  # number of a second -> what is due in it; all beyond the horizon
        self._horizon = 0  # the heap has everything that is due before
        self._begin_fn: Final[Action] = self._begin_second

    @property
    def now(self) -> int:
        return self._now

    @property
    def heap(self) -> list[Entry]:
        """For code that pushes many entries of the next moments. It does not hold all: see `entries`."""
        return self._queue

    def entries(self) -> Iterator[Entry]:
        """All that is waiting, in no order: for counting what is under way."""
        for entry in self._queue:
            if entry[3] is not self._begin_fn:
                yield entry
        for bucket in self._far.values():
            yield from bucket

    def tie(self, entity: str) -> Tie:
        """The order of an entity; one for each name."""
        self._serial += 1
        return Tie(self.seed, entity, self._serial)

    # The fast way: no handle, nothing to cancel.

    def post_at(self, when_us: int, tie: Tie, fn: Action, arg: Any) -> None:
        """Calls fn(arg) at `when_us`, which must not be in the past."""
        if when_us < self._now:
            raise ValueError(f"{when_us} µs is in the past: now is {self._now}")
        tie.state = state = tie.state * FACTOR % MODULUS
        if when_us < self._horizon:
            heappush(self._queue, (when_us, state, tie.serial, fn, arg))
        else:
            self._put_far((when_us, state, tie.serial, fn, arg))

    def post_in(self, delay_us: int, tie: Tie, fn: Action, arg: Any) -> None:
        if delay_us < 0:
            raise ValueError(f"a delay of {delay_us} µs")
        when_us = self._now + delay_us
        tie.state = state = tie.state * FACTOR % MODULUS
        if when_us < self._horizon:
            heappush(self._queue, (when_us, state, tie.serial, fn, arg))
        else:
            self._put_far((when_us, state, tie.serial, fn, arg))

    def _put_far(self, entry: Entry) -> None:
        number = entry[0] >> _SECOND_BITS
        bucket = self._far.get(number)
        if bucket is not None:
            bucket.append(entry)
            return
        if not self._far:  # nothing was, so nothing calls for the next second
            second = (self._now >> _SECOND_BITS) + 1
            self._call_for(second)
            if number < second:
                heappush(self._queue, entry)
                return
        self._far[number] = [entry]

    def _call_for(self, second: int) -> None:
        """A mark in the heap: at that time, before anything else, what is due in that second is put there."""
        self._horizon = second << _SECOND_BITS
        heappush(self._queue, (self._horizon, _FIRST - 1, second, self._begin_fn, second))

    def _begin_second(self, second: int) -> None:
        bucket = self._far.pop(second, None)
        if bucket is not None:
            self._queue += bucket
            heapify(self._queue)
        if self._far:
            self._call_for(second + 1)
        else:
            self._horizon = (second + 1) << _SECOND_BITS

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
        rank = ((priority - NORMAL) << DRAW_BITS) + own.draw()
        heappush(self._queue, (self._now + delay, rank, own.serial, self._run_event, event))

    def peek(self) -> Any:
        """simpy's: when the next thing happens; infinity when nothing will."""
        queue = self._queue
        while queue and queue[0][3] is self._begin_fn:
            self._begin_second(heappop(queue)[4])
        return queue[0][0] if queue else inf

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
