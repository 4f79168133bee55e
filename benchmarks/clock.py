"""Events a second of the simulator's clock, beside bare simpy's in the same run. No world, no devices."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

from benchmarks.measure import Effort, Result, ratios, side_by_side
from fleet.rng import rng
from fleet.world.clock import Clock

ENTITIES = 1000  # things under way at any time, as in a fleet
QUESTION = "how many events does a simulation get through?"


def _delays() -> list[int]:
    stream = rng(1, "benchmark", "delays")
    return [stream.between(1, 1_000_000) for _ in range(4096)]


def _posts(delays: list[int]) -> Any:
    """Each entity posts its next call when one comes."""

    def work(n: int) -> None:
        clock = Clock(1)
        left = n

        def fire(index: int) -> None:
            nonlocal left
            left -= 1
            if left > 0:
                clock.post_in(delays[left & 4095], ties[index], fire, index)

        ties = [clock.tie(f"device-{index}") for index in range(ENTITIES)]
        for index in range(ENTITIES):
            clock.post_in(delays[index], ties[index], fire, index)
        clock.run_until(1 << 60)

    return work


def _callbacks(delays: list[int]) -> Any:
    """The same in bare simpy, by a timeout's callback: the least that it can do."""

    def work(n: int) -> None:
        env = simpy.Environment()
        left = n

        def fire(_event: simpy.Event) -> None:
            nonlocal left
            left -= 1
            if left > 0:
                env.timeout(delays[left & 4095]).callbacks.append(fire)

        for index in range(ENTITIES):
            env.timeout(delays[index]).callbacks.append(fire)
        env.run()

    return work


def _processes(make: Any, delays: list[int]) -> Any:
    """As people write simpy: one process for each entity."""

    def work(n: int) -> None:
        env = make()
        left = n

        def entity() -> Generator[Any, Any, None]:
            nonlocal left
            while left > 0:
                left -= 1
                yield env.timeout(delays[left & 4095])

        for _ in range(ENTITIES):
            env.process(entity())
        env.run()

    return work


def run(effort: Effort) -> Result:
    result = Result("clock", QUESTION)
    delays = _delays()
    posts, callbacks = side_by_side(_posts(delays), _callbacks(delays), effort)
    result.add("events, fleet's clock", posts, "1/s")
    result.add("events, bare simpy, callbacks", callbacks, "1/s")
    result.add("fleet's clock / simpy, callbacks", ratios(posts, callbacks), "ratio", "more is faster")
    own, bare = side_by_side(_processes(lambda: Clock(1), delays), _processes(simpy.Environment, delays), effort)
    result.add("events, simpy's processes on fleet's clock", own, "1/s")
    result.add("events, bare simpy, processes", bare, "1/s")
    result.add("processes, fleet's clock / simpy", ratios(own, bare), "ratio", "the price of seeded order")
    return result
