"""Hostile clients of the WebSocket listener: whatever they send, or do not, they lose their own connection at most.

Each test ends with a device that is let in and served as ever. Called by pytest only.
"""

from __future__ import annotations

import socket

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from websocket_rig import Site, closing, frame, handshake, later, received, run, token_for

from agent.protocol import websocket
from agent.protocol.messages import MESSAGE_BYTES_MAX
from agent.protocol.topics import to_all, to_device
from cloud.listener_config import ListenerConfig
from cloud.table import Publish

TEXT, CLOSE, PING = 1, 8, 9


async def serves(site: Site) -> None:
    """A device of its own is let in, heard and answered."""
    async with site.client("home-2") as client:
        await client.send_message("{fine}")
        while (message := await site.next()).payload != b"{fine}":
            pass
        await message.publish(Publish(to_device("home-2"), b"{fine}", 1))
        with trio.fail_after(60):
            assert await client.get_message() == "{fine}"


# Before anybody knows who it is.

UPGRADE = handshake("home-1")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n", "http"),
        (b"GET /v1/home-1 HTTP/1.1\r\nHost: relay\r\n\r\n", "http"),
        (b"POST /v1/home-1 HTTP/1.1\r\nHost: relay\r\nContent-Length: 3\r\n\r\nabc", "http"),
        (UPGRADE.replace(b"Version: 13", b"Version: 12"), "http"),
        (UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: gopher"), "http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "http"),  # TLS, on a port without
        (b"\x00\xff\xfe rubbish\r\n\r\n", "http"),
        (b"MQTT\r\n\r\n", "http"),
        (b"A" * 20_000, "http"),
        (UPGRADE[:-2] + b"X: " + b"y" * 20_000, "http"),
        (UPGRADE.replace(b"Host: relay", b"Host: \xff\xfe"), "malformed"),
        (UPGRADE.replace(b"Host: relay", b"Host: xn--a"), "malformed"),
        (UPGRADE.replace(b"Protocol: fleet", b"Protocol: \xff"), "malformed"),
        (UPGRADE.replace(b"Connection: Upgrade", b"Connection: \xff"), "malformed"),
        (UPGRADE.replace(b"Bearer ", b"Bearer \xe9"), "credentials"),
        (UPGRADE.replace(b"Bearer secret", b"Basic secret"), "credentials"),
        (UPGRADE.replace(b"/v1/home-1", b"/v1/home-1%00"), "path"),
        (UPGRADE.replace(b"/v1/home-1", b"/v1/../v1/home-1"), "path"),
    ],
)
def test_what_is_no_request_of_a_device_is_counted_told_once_and_forgotten(request_: bytes, reason: str) -> None:
    async def test(site: Site) -> None:
        for _ in range(3):
            async with site.raw(request=request_) as stream:
                answer = await received(stream)
                assert b"101" not in answer.split(b"\r\n")[0]
        await site.until(lambda: not site.listener.handshaking)
        assert site.counters[f"websocket_refused_{reason}"] == 3, site.counters
        assert len(site.told("websocket-refused", reason)) == 1
        await serves(site)

    run(test)


@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(0, len(UPGRADE)))
def test_any_bytes_in_a_handshake_end_one_connection_at_most(data: bytes, cut: int) -> None:
    async def test(site: Site) -> None:
        async with site.raw(request=UPGRADE[:cut] + data + UPGRADE[cut:]) as stream:
            await stream.send_eof()
            await received(stream)
        await serves(site)

    run(test, ListenerConfig(refusal_ms=1))


@settings(max_examples=25, deadline=None)
@given(data=st.binary(min_size=2, max_size=300))
def test_any_bytes_after_the_handshake_end_one_connection_at_most(data: bytes) -> None:
    async def test(site: Site) -> None:
        async with site.raw("home-1") as stream:
            await stream.send_all(data)
            await stream.send_eof()
            await received(stream)
        await serves(site)

    run(test)


@pytest.mark.parametrize(
    "data",
    [
        frame(3, b""),  # no such kind
        frame(TEXT | 0x40, b"{}"),  # a reserved bit
        b"\x81\x02{}",  # without a mask
        frame(PING, b"", final=False),
        frame(PING, b"x" * 126),
        frame(CLOSE, b"\x03"),
        frame(CLOSE, b"\x00\x01"),
        frame(CLOSE, b"\x03\xe8\xff\xfe"),
        frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"{}") + frame(CLOSE, b"\x03\xe8"),
        frame(TEXT, b"\xff\xfe"),
        frame(TEXT, b"\xc3", final=False) + frame(0, b"\x28"),
        frame(0, b"{}"),
        frame(TEXT, b"{", final=False) + frame(TEXT, b"}"),
        b"\x81\xff" + b"\xff" * 8 + bytes(4),
        b"\x81\xff\x7f" + b"\xff" * 7 + bytes(4),
        frame(TEXT, b"x" * (MESSAGE_BYTES_MAX + 1)) + frame(3, b"") * 100,
        frame(TEXT, b"x" * (MESSAGE_BYTES_MAX + 1)) + frame(CLOSE, b"") + frame(CLOSE, b"\x00"),
    ],
)
def test_frames_that_break_the_rules_end_their_own_connection(data: bytes) -> None:
    async def test(site: Site) -> None:
        for more in (b"", frame(TEXT, b"{}"), frame(3, b"")):
            async with site.raw("home-1") as stream:
                await stream.send_all(data + more)
                await received(stream)
            await site.until(lambda: not site.listener.connections)
            async with site.raw("home-1") as stream:  # as the relay says goodbye to it
                await site.until(lambda: "home-1" in site.listener.connections)
                site.listener.connections["home-1"].close(websocket.REPLACED)
                await trio.lowlevel.checkpoint()
                await stream.send_all(data + more)
                await received(stream)
            await site.until(lambda: not site.listener.connections)
        assert site.intake.waiting <= 4
        await serves(site)

    run(test)


def test_one_that_connects_and_says_nothing_is_gone_after_a_while_and_one_that_leaves_at_once() -> None:
    async def test(site: Site) -> None:
        began = trio.current_time()
        for request in (b"", b"GET /v1/home-1 HT"):
            async with site.raw(request=request) as stream:
                assert await received(stream) == b""
        assert trio.current_time() - began == pytest.approx(2 * site.listener.config.handshake_ms / 1000, abs=1)
        assert site.counters["websocket_refused_timeout"] == 2
        async with site.raw(request=b""):
            pass
        await site.until(lambda: site.counters["websocket_refused_gone"] == 1)
        await serves(site)

    run(test)


def test_an_address_that_fills_its_handshakes_costs_another_address_nothing() -> None:
    async def test(site: Site) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(silent, site)
            await site.until(lambda: site.counters["websocket_refused_flood"] == 12 - 4)
            assert site.listener.handshaking == 4
            elsewhere = await trio.open_tcp_stream("127.0.0.1", site.port, local_address="127.0.0.2")
            async with elsewhere:
                await elsewhere.send_all(handshake("home-1"))
                assert b" 101 " in await received(elsewhere, b"\r\n\r\n")
            nursery.cancel_scope.cancel()
        assert len(site.told("websocket-refused", "flood")) == 1

    run(test, ListenerConfig(handshakes_per_address=4))


async def silent(site: Site) -> None:
    async with site.raw(request=b"") as stream:
        await received(stream)


def test_a_guesser_is_slowed_reads_nothing_and_costs_neither_its_neighbours_nor_other_addresses() -> None:
    async def test(site: Site) -> None:
        async with site.client("home-2"):  # of the guesser's address, and known
            pass
        statuses = [(await site.refused("home-1", token=f"guess-{n}"))[0] for n in range(10)]
        assert statuses[:4] == [401] * 4 and statuses[5:] == [429] * 5
        asked = site.registry.asked["home-1"]
        assert asked <= 5 and site.counters["websocket_refused_rate"] >= 5
        await serves(site)  # home-2 again
        assert (await site.refused("home-1"))[0] == 429  # right, but nobody knows: it is told to come again
        async with await trio.open_tcp_stream("127.0.0.1", site.port, local_address="127.0.0.2") as elsewhere:
            await elsewhere.send_all(handshake("home-1"))
            assert b" 101 " in await received(elsewhere, b"\r\n\r\n")
        await later(60 / site.listener.config.failures_per_minute * 5)
        async with site.client("away-1"):
            pass

    run(test, ListenerConfig(failures=4, failures_per_minute=6))


# As a device.


@pytest.mark.parametrize(
    "message",
    [
        "x" * (MESSAGE_BYTES_MAX + 1),
        b"x" * (MESSAGE_BYTES_MAX + 1),
        "é" * (MESSAGE_BYTES_MAX // 2 + 1),
        "x" * 3_000_000,
    ],
)
def test_a_message_that_is_too_large_ends_its_connection_and_the_device_learns_why(message: str | bytes) -> None:
    async def test(site: Site) -> None:
        async with site.client("home-1") as client:
            with trio.move_on_after(60):
                try:
                    await client.send_message(message)
                except Exception:  # the other side may close while it still sends
                    assert client.closed
            assert await closing(client) == websocket.OVERSIZE
        await site.until(lambda: site.counters["websocket_closed_oversize"] == 1)
        assert site.intake.waiting == 0
        await serves(site)

    run(test)


def test_one_that_is_closed_while_it_still_sends_is_not_reset() -> None:
    async def test(site: Site) -> None:
        async with site.raw("home-1") as stream:
            await stream.send_all(frame(TEXT, b"x" * 3_000_000))
            assert websocket.OVERSIZE.to_bytes(2, "big") in await received(stream, b"Exceeded")
        await serves(site)

    run(test)


def test_fragments_without_end_or_content_are_cut_off() -> None:
    async def test(site: Site) -> None:
        async with site.raw("home-1") as stream:
            await stream.send_all(frame(TEXT, b"", final=False))
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(3_000):
                while True:
                    await stream.send_all(frame(0, b"", final=False) * 5_000)
        await site.until(lambda: site.counters["websocket_closed_malformed"] == 1)
        assert site.counters["websocket_bytes_in"] < 8 * MESSAGE_BYTES_MAX
        await serves(site)

    run(test)


def test_a_storm_of_pings_is_cut_off() -> None:
    async def test(site: Site) -> None:
        async with site.raw("home-1") as stream:
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(3_000):
                while True:
                    await stream.send_all(frame(PING, b"x" * 100) * 100)
                    await stream.receive_some()
        await serves(site)

    run(test)


def test_a_device_that_sends_bytes_for_its_handshake_before_the_answer_is_cut_off() -> None:
    async def test(site: Site) -> None:
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(3_000):
            async with site.raw(request=handshake("home-1", "wrong")) as stream:
                while True:
                    await stream.send_all(b"x" * 10_000)
        await serves(site)

    run(test)


def test_one_that_does_not_read_is_closed_and_holds_no_memory_after_that() -> None:
    """It takes what the system buffers; then its queue fills, and pushes are dropped, for it alone."""

    async def test(site: Site) -> None:
        config = site.listener.config
        async with site.raw("home-1") as stream, site.client("away-1") as other:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            for number in range(200):
                site.listener.push(Publish(to_all(), b"%06d" % number + b"x" * 100_000, 0))
                with trio.fail_after(60):
                    message = await other.get_message()
                    assert isinstance(message, bytes) and message[:6] == b"%06d" % number
            assert site.listener.waiting_bytes <= config.queue_bytes
            assert site.counters["publish_dropped"] > 0
            await site.until(lambda: "home-1" not in site.listener.connections)
            assert site.counters["websocket_closed_slow"] + site.counters["websocket_closed_idle"] == 1
            assert site.listener.waiting_bytes == 0
        await serves(site)

    run(test, ListenerConfig(queue_bytes=1 << 20))


def test_answers_to_one_that_does_not_read_wait_and_are_given_up_with_it() -> None:
    async def test(site: Site) -> None:
        async with site.raw("home-1") as stream:
            await stream.send_all(frame(TEXT, b"{}"))
            message = await site.next()
            began = trio.current_time()
            answer = Publish(to_device("home-1"), b"x" * MESSAGE_BYTES_MAX, 1)
            while "home-1" in site.listener.connections:
                await message.publish(answer)
            assert site.counters["publish_lost"] + site.counters["publish_dropped"] >= 1
            assert trio.current_time() - began <= 2 * site.listener.config.slow_ms / 1000
        assert site.listener.waiting_bytes == 0
        await serves(site)

    run(test, ListenerConfig(queue_bytes=MESSAGE_BYTES_MAX))


def test_what_waits_for_all_together_is_bounded_too() -> None:
    async def test(site: Site) -> None:
        async with site.raw("home-1"), site.raw("home-2"), site.raw("away-1"):
            for _ in range(200):
                site.listener.push(Publish(to_all(), b"x" * 100_000, 0))
                await trio.lowlevel.checkpoint()
            assert site.listener.waiting_bytes <= 1 << 20
            assert site.counters["publish_dropped"] > 0

    run(test, ListenerConfig(queues_bytes=1 << 20))


def test_two_copies_of_a_device_throw_each_other_out_and_nobody_else() -> None:
    async def test(site: Site) -> None:
        async with site.client("away-1") as other:
            for _ in range(20):
                async with site.raw("home-1"):
                    await site.until(lambda: "home-1" in site.listener.connections)
            assert other.closed is None
        await serves(site)

    run(test)


def test_a_client_that_resets_in_the_middle_of_anything_leaves_nothing_behind() -> None:
    async def test(site: Site) -> None:
        for request in (b"", UPGRADE[:40], UPGRADE, handshake("home-1", "wrong")):
            stream = await trio.open_tcp_stream("127.0.0.1", site.port)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            if request:
                await stream.send_all(request)
                await later(0.01)
            await trio.aclose_forcefully(stream)
        await site.until(lambda: not site.listener.handshaking and not site.listener.connections)
        assert token_for("home-1") not in str(site.lines)
        await serves(site)

    run(test)
