"""The driver: effects carried out, connections made and given up, failures told once; in virtual time. Pytest only."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
import pytest
import trio
from relay_rig import config, stored
from runtime_rig import AWAY, CONFIG, Bench, RealClock, live, looked_for, pass_time

from agent.events import State
from agent.file_errors import StoreError
from agent.session import Session
from agent.transport.port import LinkError
from cloud.table import Put


def test_writes_go_up_and_changes_come_down() -> None:
    async def body(bench: Bench) -> None:
        bench.write(1)
        await bench.settled()
        assert bench.in_table() == {"mode": 1}
        bench.rig.execute(Put(stored(config(7))))
        bench.rig.sequence()
        await bench.until(lambda: bench.database.get("Config", {}), 1_200)  # at the latest by the next hello
        assert bench.agent.is_online and bench.agent.state == "idle"

    bench = live(Bench, body)
    assert [event["event"] for event in bench.said] == ["connected"]
    assert bench.agent.session is not None and bench.agent.session.state is State.OFF


def test_a_write_before_the_agent_runs_and_one_while_it_is_offline_are_sent() -> None:
    async def body(bench: Bench) -> None:
        await bench.settled()
        bench.transport.away = AWAY
        bench.transport.cut()
        await bench.until(lambda: not bench.agent.is_online)
        bench.write(2, "late")
        await pass_time(600)
        bench.transport.away = None
        await bench.until(lambda: not bench.database.pending(), 600)
        assert bench.in_table() == {"early": 1, "late": 2}

    def made(clock: Any) -> Bench:
        bench = Bench(clock)
        bench.write(1, "early")
        return bench

    live(made, body)


def test_a_day_without_a_broker_is_told_once_an_hour_and_no_storm() -> None:
    async def body(bench: Bench) -> None:
        bench.transport.away = AWAY
        await pass_time(86_400)

    bench = live(Bench, body)
    told = bench.events("no-connection")
    assert 20 <= len(told) <= 26
    assert told[0]["reason"] == "broker:1883: connection refused" and told[0]["hint"] == "is it there?"
    assert told[0]["about"] == "unreachable"
    # On average half the cap of 5 minutes apart, after a few in the first minutes.
    assert 400 <= len(bench.transport.attempts) <= 800
    gaps = [b - a for a, b in zip(bench.transport.attempts, bench.transport.attempts[1:], strict=False)]
    assert max(gaps) <= 300


def test_accept_then_drop_backs_off_too() -> None:
    """A server that takes each connection and ends it at once, for an hour."""

    async def body(bench: Bench) -> None:
        async def ends() -> None:
            while True:
                await pass_time(0.2)
                bench.transport.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends)
            await pass_time(3_600)
            nursery.cancel_scope.cancel()

    bench = live(Bench, body)
    assert 10 <= len(bench.transport.attempts) <= 60


def test_another_reason_is_told_anew_and_the_end_of_it() -> None:
    refused = LinkError("refused", "no such user", "check the password")

    async def body(bench: Bench) -> None:
        bench.transport.script.extend([AWAY, AWAY, refused, refused, AWAY])
        await bench.until(lambda: bench.agent.is_online, 120)

    bench = live(Bench, body)
    assert [event["about"] for event in bench.events("no-connection")] == ["unreachable", "refused", "unreachable"]
    assert bench.events("no-connection-over")[0]["about"] == "unreachable"
    assert bench.agent.trouble is None


def test_a_mistake_of_the_transport_is_told_and_tried_again() -> None:
    async def body(bench: Bench) -> None:
        bench.transport.script.extend([RuntimeError("planted")])
        bench.write(1)
        await bench.settled()

    bench = live(Bench, body)
    assert "planted" in bench.events("transport-error")[0]["reason"]
    assert bench.events("no-connection")[0]["about"] == "internal"


def test_a_stop_sends_what_waits_first() -> None:
    async def body(bench: Bench) -> None:
        await bench.settled()
        for i in range(300):  # several batches
            bench.write(i, f"s{i}")
        bench.agent.stop()

    bench = live(Bench, body)
    assert len(bench.in_table()) == 300


def test_a_stop_without_a_relay_ends_within_its_limit() -> None:
    async def body(bench: Bench) -> None:
        await bench.settled()
        bench.transport.rig = None
        bench.write(1)
        began = trio.current_time()
        bench.agent.stop()
        with trio.fail_after(6):
            await looked_for(lambda: bench.transport.ended)
        assert 4.9 < trio.current_time() - began < 5.2

    bench = live(Bench, body)
    assert bench.database.pending() == 1


def test_a_stop_while_it_is_connecting_or_waiting_is_at_once() -> None:
    async def body(bench: Bench) -> None:
        bench.transport.away = AWAY
        await pass_time(1_000)

    clock_before: list[float] = []

    async def timed(bench: Bench) -> None:
        await body(bench)
        clock_before.append(trio.current_time())

    bench = live(Bench, timed)
    assert bench.clock.current_time() - clock_before[0] < 0.1


class Full:
    """A disk without room: every statement that writes fails."""

    def __init__(self, bench: Bench) -> None:
        self._store = bench.database.store
        self._execute = self._store.execute

    def fill(self) -> None:
        def refuse(sql: str, values: Any = ()) -> sqlite3.Cursor:
            if sql.startswith(("INSERT", "UPDATE", "DELETE")):
                raise StoreError("the disk is full", "make room")
            return self._execute(sql, values)

        self._store.execute = refuse

    def clear(self) -> None:
        self._store.execute = self._execute


def test_a_full_disk_is_told_once_and_waited_for_while_reads_go_on() -> None:
    async def body(bench: Bench) -> None:
        bench.write(1)
        await bench.settled()
        disk = Full(bench)
        disk.fill()
        bench.rig.execute(Put(stored(config(7))))
        await bench.until(lambda: bench.agent.state == "failed", 1_200)
        assert "the disk is full" in bench.agent.failure
        await pass_time(1_000)
        assert bench.database.get("Setting", {"name": "mode"}) is not None
        with pytest.raises(StoreError, match="full"):
            bench.write(2)
        assert len(bench.events("session-failed")) == 1
        assert len(bench.transport.attempts) < 60
        disk.clear()
        bench.write(3)
        await bench.until(lambda: not bench.database.pending(), 300)
        assert bench.in_table() == {"mode": 3}
        await bench.until(lambda: bench.database.get("Config", {}), 1_200)

    live(Bench, body)


class Faulty(Session):
    """Fails at its third message."""

    def on_received(self, event: Any) -> None:
        self.probes["heard"] += 1
        if self.probes["heard"] == 3:
            raise RuntimeError("planted")
        super().on_received(event)


def test_a_mistake_of_the_session_costs_a_new_one_and_nothing_else() -> None:
    async def body(bench: Bench) -> None:
        for i in range(4):
            bench.write(i, f"s{i}")
            await bench.settled()
        assert len(bench.in_table()) == 4

    bench = live(lambda clock: Bench(clock, session_type=Faulty), body)
    assert "planted" in bench.events("session-error")[0]["reason"]
    assert len(bench.events("session-failed")) == 1


def test_a_callback_that_fails_is_told_and_harms_nobody() -> None:
    async def body(bench: Bench) -> None:
        def fail(change: Any) -> None:
            raise ZeroDivisionError

        bench.database.on("*", "*", fail)
        bench.write(1)
        await bench.settled()

    bench = live(Bench, body)
    assert all("ZeroDivisionError" in event["reason"] for event in bench.events("callback-failed"))
    assert len(bench.events("callback-failed")) >= 2  # created, synced


def test_a_callback_may_write() -> None:
    async def body(bench: Bench) -> None:
        def answer(change: Any) -> None:
            if change.key[1] == "setting#question" and change.event == "synced":
                bench.write(1, "answer")

        bench.database.on("Setting", "*", answer)
        bench.write(1, "question")
        await bench.until(lambda: bench.in_table() == {"question": 1, "answer": 1})

    live(Bench, body)


def test_another_part_takes_over_in_good_order() -> None:
    async def body(bench: Bench) -> None:
        bench.write(1)
        await bench.settled()
        other = type(bench.transport)(bench.rig)
        bench.agent.replace(msgspec.structs.replace(bench.agent.part, transport=other, config=CONFIG))
        bench.write(2)
        await bench.until(lambda: len(other.attempts) == 1)
        await bench.settled()
        assert len(bench.transport.ended) == 1
        assert bench.in_table() == {"mode": 2}

    live(Bench, body)


def test_what_comes_faster_than_the_session_works_waits_at_the_transport() -> None:
    async def body(bench: Bench) -> None:
        await bench.settled()
        agent = bench.agent
        attempt = agent._attempt
        assert attempt is not None
        sent = 0
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                nonlocal sent
                for _ in range(1_000):
                    await agent._heard(attempt, b"nonsense")
                    sent += 1
                    assert len(agent._inbox) <= 9

            nursery.start_soon(flood)
        await bench.until(lambda: agent.probes["message_refused_malformed"] == 1_000)
        assert sent == 1_000

    live(Bench, body)


def test_applications_write_from_many_threads() -> None:
    """In real time: the session works in a thread of its own."""

    async def main() -> None:
        bench = Bench(RealClock(), threads=trio.CapacityLimiter(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.agent.run)

            def application(name: str) -> None:
                for i in range(30):
                    bench.write(i, f"{name}{i % 5}")

            async with trio.open_nursery() as applications:
                for name in "abcd":
                    applications.start_soon(trio.to_thread.run_sync, application, name)
            with trio.fail_after(30):
                await looked_for(lambda: not bench.database.pending())
            assert bench.in_table() == {f"{name}{i}": 25 + i for name in "abcd" for i in range(5)}
            bench.agent.stop()

    trio.run(main)
