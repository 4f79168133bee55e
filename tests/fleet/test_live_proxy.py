"""The proxy of live runs, on loopback: each disturbance, on one connection or on all of a door, and its end.

Under trio's mock clock, which jumps when nothing moves: what a rate or a delay asks for is a lower bound of it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest
import trio
import trio.testing

from fleet.live.proxy import HELD_BYTES_MAX, Door, Passage, Proxy

LIMIT_S: Final = 100_000.0  # of the mock clock; pytest's own limit is for the wall
SETTLE_S: Final = 0.02  # the clock jumps when nothing has moved for so long
LINGER: Final = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() is a reset


@dataclass
class Pair:
    """A connection through the door, both of its ends."""

    client: trio.SocketStream
    target: trio.SocketStream
    passage: Passage


@dataclass
class Rig:
    proxy: Proxy
    door: Door
    arrivals: trio.MemoryReceiveChannel[trio.SocketStream]
    clients: list[trio.SocketStream] = field(default_factory=list)

    async def client(self, door: Door | None = None) -> trio.SocketStream:
        self.clients.append(await trio.open_tcp_stream("127.0.0.1", (door or self.door).port))
        return self.clients[-1]

    async def pair(self) -> Pair:
        before = self.door.passages[-1:]
        client = await self.client()
        target = await self.arrivals.receive()
        await until(lambda: self.door.passages[-1:] != before)
        return Pair(client, target, self.door.passages[-1])


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    arrive, arrivals = trio.open_memory_channel[trio.SocketStream](100)

    async def keep(stream: trio.SocketStream) -> None:
        arrive.send_nowait(stream)
        await trio.Event().wait()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, keep, listeners)
        proxy = Proxy(nursery)
        made = Rig(proxy, await proxy.open("a", listeners[0].socket.getsockname()), arrivals)
        try:
            yield made
        finally:
            nursery.cancel_scope.cancel()
            for client in made.clients:
                client.socket.close()


def live(test: Callable[[Rig], Awaitable[None]]) -> Callable[[], None]:
    """The body under a clock of its own, with a rig."""

    async def body() -> None:
        with trio.fail_after(LIMIT_S):
            async with rig() as made:
                await test(made)

    def run() -> None:
        trio.run(body, clock=trio.testing.MockClock(autojump_threshold=SETTLE_S))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        assert more, f"ended after {len(data)} of {size} bytes"
        data += more
    return data


async def passes(pair: Pair) -> None:
    """Both ways."""
    for source, sink in ((pair.client, pair.target), (pair.target, pair.client)):
        await source.send_all(b"through")
        assert await exactly(sink, 7) == b"through"


async def passing(seconds: float) -> None:
    """So long on the mock clock, which jumps there."""
    with trio.move_on_after(seconds):
        await trio.Event().wait()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await passing(0.01)


def quiet(stream: trio.SocketStream) -> bool:
    """Nothing is there to be read, no end either."""
    try:
        stream.socket._sock.recv(1, socket.MSG_PEEK)  # type: ignore[attr-defined]
    except BlockingIOError:
        return True
    return False


@live
async def test_bytes_pass_both_ways_in_order_and_ends_pass_too(rig: Rig) -> None:
    pair = await rig.pair()
    sent = bytes(range(256)) * 20_000  # more than fits anywhere on the way
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.client.send_all, sent)
        assert await exactly(pair.target, len(sent)) == sent
    await passes(pair)
    await pair.client.send_eof()
    assert await pair.target.receive_some() == b""
    await pair.target.send_all(b"last words")
    assert await exactly(pair.client, 10) == b"last words"
    await pair.target.aclose()
    assert await pair.client.receive_some() == b""
    await pair.passage.over.wait()
    assert rig.door.passages == []


@live
async def test_what_stalls_is_held_and_comes_when_it_flows(rig: Rig) -> None:
    pair, other = await rig.pair(), await rig.pair()
    await passes(pair)
    rig.door.stall()
    await pair.client.send_all(b"up")
    await pair.target.send_all(b"down")
    await until(lambda: pair.passage.held_bytes == (2, 4))
    late = await rig.pair()
    await late.client.send_all(b"late")
    await until(lambda: late.passage.held_bytes == (4, 0))
    await passing(3_600)
    assert quiet(pair.target) and quiet(pair.client) and quiet(late.target) and quiet(other.target)
    rig.door.flow()
    assert await exactly(pair.target, 2) == b"up"
    assert await exactly(pair.client, 4) == b"down"
    assert await exactly(late.target, 4) == b"late"
    await passes(other)


@live
async def test_a_stall_pushes_back_on_the_sender_and_loses_nothing(rig: Rig) -> None:
    pair = await rig.pair()
    rig.door.stall()
    size = 100 * HELD_BYTES_MAX
    async with trio.open_nursery() as nursery:
        sent = trio.Event()

        async def send() -> None:
            await pair.client.send_all(b"x" * size)
            sent.set()

        nursery.start_soon(send)
        await until(lambda: pair.passage.held_bytes[0] >= HELD_BYTES_MAX)
        await passing(60)
        assert not sent.is_set() and pair.passage.held_bytes[0] < 2 * HELD_BYTES_MAX
        rig.door.flow()
        assert await exactly(pair.target, size) == b"x" * size


@live
async def test_an_end_waits_behind_a_stall(rig: Rig) -> None:
    pair = await rig.pair()
    rig.door.stall()
    await pair.client.send_all(b"last words")
    await pair.client.aclose()
    await passing(60)
    assert quiet(pair.target)
    rig.door.flow()
    assert await exactly(pair.target, 10) == b"last words"
    assert await pair.target.receive_some() == b""


@live
async def test_a_throttle_lets_no_more_pass_than_its_rate_each_way_and_can_be_lifted(rig: Rig) -> None:
    pair = await rig.pair()
    rig.door.throttle(1_000)
    began = trio.current_time()
    await pair.client.send_all(b"x" * 3_000)
    await exactly(pair.target, 2_000)
    assert trio.current_time() - began >= 1.9
    await exactly(pair.target, 1_000)
    assert trio.current_time() - began >= 2.9
    began = trio.current_time()
    await pair.target.send_all(b"x" * 1_000)
    await exactly(pair.client, 1_000)
    assert trio.current_time() - began >= 0.9
    rig.door.throttle(1)
    await pair.client.send_all(b"x" * 100_000)
    await exactly(pair.target, 1)
    rig.door.throttle()
    await exactly(pair.target, 99_999)
    assert trio.current_time() - began < 50_000, "the rest did not wait for the old rate"


@live
async def test_a_delay_is_of_each_chunk_and_keeps_the_order(rig: Rig) -> None:
    pair = await rig.pair()
    rig.door.delay(30)
    began = trio.current_time()
    for text in (b"one", b"two", b"three"):
        await pair.client.send_all(text)
        await passing(10)
    assert quiet(pair.target) or trio.current_time() - began >= 30
    assert await exactly(pair.target, 11) == b"onetwothree"
    assert 50 <= trio.current_time() - began < 90, "delays of what is under way overlap"
    await pair.client.send_all(b"late")
    await until(lambda: pair.passage.held_bytes == (4, 0))
    rig.door.delay(0)
    began = trio.current_time()
    assert await exactly(pair.target, 4) == b"late"
    assert trio.current_time() - began < 30
    await passes(pair)


@live
async def test_a_reset_is_an_error_at_both_ends_and_a_new_connection_works(rig: Rig) -> None:
    pair = await rig.pair()
    rig.door.reset()
    for end in (pair.client, pair.target):
        with pytest.raises(trio.BrokenResourceError):
            await end.receive_some()
    await pair.passage.over.wait()
    await passes(await rig.pair())


@live
async def test_a_finish_is_an_orderly_end_at_both_ends(rig: Rig) -> None:
    pair = await rig.pair()
    rig.door.finish()
    assert await pair.client.receive_some() == b""
    assert await pair.target.receive_some() == b""
    await pair.client.send_all(b"nobody hears")
    await passing(60)
    assert not pair.passage.over.is_set(), "neither end has closed yet"
    await pair.client.aclose()
    await pair.target.aclose()
    await pair.passage.over.wait()


@live
async def test_a_half_open_connection_takes_everything_and_gives_nothing_not_even_an_end(rig: Rig) -> None:
    pair = await rig.pair()
    await passes(pair)
    rig.door.half_open()
    await pair.client.send_all(b"x" * 10_000_000)
    await pair.target.send_all(b"x" * 10_000_000)
    await passes(await rig.pair())
    await pair.client.aclose()
    await passing(3_600)
    assert quiet(pair.target)
    assert not pair.passage.over.is_set()
    await pair.target.aclose()
    await pair.passage.over.wait()


@live
async def test_a_half_open_connection_keeps_a_reset_to_itself(rig: Rig) -> None:
    pair = await rig.pair()
    pair.passage.half_open()
    pair.client.setsockopt(*LINGER)
    await pair.client.aclose()
    await passing(60)
    assert quiet(pair.target)


@live
async def test_a_connection_that_goes_half_open_while_it_is_full_keeps_a_reset_to_itself(rig: Rig) -> None:
    pair = await rig.pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.client.send_all, b"x" * 100 * HELD_BYTES_MAX)
        await until(lambda: pair.passage.held_bytes[0] >= HELD_BYTES_MAX)
        pair.passage.half_open()
        pair.target.setsockopt(*LINGER)
        await pair.target.aclose()
        await passing(60)
    assert quiet(pair.client)


@live
async def test_a_reset_of_one_end_reaches_the_other(rig: Rig) -> None:
    for first, second in ((0, 1), (1, 0)):
        pair = await rig.pair()
        ends = (pair.client, pair.target)
        ends[first].setsockopt(*LINGER)
        await ends[first].aclose()
        with pytest.raises(trio.BrokenResourceError):
            await ends[second].receive_some()


@live
async def test_a_disturbance_of_one_connection_leaves_the_others(rig: Rig) -> None:
    first, second = await rig.pair(), await rig.pair()
    first.passage.half_open()
    await passes(second)
    third = await rig.pair()
    third.passage.reset()
    with pytest.raises(trio.BrokenResourceError):
        await third.client.receive_some()
    await passes(second)


@live
async def test_a_door_that_refuses_resets_those_who_come_and_keeps_those_who_are_in(rig: Rig) -> None:
    pair = await rig.pair()
    rig.door.refusing = True
    client = await rig.client()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    await passes(pair)
    rig.door.heal()
    await passes(await rig.pair())


@live
async def test_a_target_that_is_not_there_is_a_reset(rig: Rig) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nobody = listeners[0].socket.getsockname()
    await listeners[0].aclose()
    door = await rig.proxy.open("b", nobody)
    client = await rig.client(door)
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()


@live
async def test_doors_have_ports_and_conditions_of_their_own(rig: Rig) -> None:
    other = await rig.proxy.open("b", rig.door.target)
    assert other.port != rig.door.port
    assert sorted(rig.proxy.doors) == ["a", "b"]
    other.stall()
    await passes(await rig.pair())
    with pytest.raises(ValueError, match="'b'"):
        await rig.proxy.open("b", rig.door.target)
    with pytest.raises(ValueError, match="or stall"):
        other.throttle(0)
    with pytest.raises(ValueError, match="delay"):
        other.delay(-1)
