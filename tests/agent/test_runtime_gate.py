"""On demand and within a budget: when the agent is connected, what a metered link carries. Called by pytest only."""

from __future__ import annotations

import msgspec
import pytest
import trio
from relay_rig import config, setting, stored
from runtime_rig import AWAY, CONFIG, Bench, live, pass_time

from agent.runtime.budget import DAY_MS, Bucket, Budget
from agent.runtime.gate import BUDGET_QUIET_MS, Gate, GateSettings
from cloud.table import Put

ON_DEMAND = GateSettings(on_demand=True, poll_ms=3_600_000, linger_ms=10_000)
BRISK = msgspec.structs.replace(CONFIG, stable_ms=5_000)


def test_a_bucket_fills_evenly_and_holds_a_days_amount() -> None:
    bucket = Bucket(2_400, 0)
    assert bucket.level(0) == bucket.level(10 * DAY_MS) == 2_400
    bucket.take(2_400, 0)
    assert bucket.is_empty(0) and bucket.level(DAY_MS // 2) == pytest.approx(1_200)
    assert 0 < bucket.wait_ms(0) <= DAY_MS // 24 + 1  # an hour's amount is enough to begin
    assert bucket.wait_ms(DAY_MS // 24 + 1) == 0


def test_what_has_begun_may_cost_a_days_amount_more_and_no_longer_silence_follows() -> None:
    bucket = Bucket(2_400, 0)
    bucket.take(1_000_000, 0)
    assert bucket.level(0) == -2_400
    assert bucket.wait_ms(0) <= DAY_MS + DAY_MS // 24 + 1


def test_no_limit_is_no_limit() -> None:
    budget = Budget(0, 0, 0)
    budget.take(1e12, 1_000_000, 5)
    assert (
        not budget.is_limited and not budget.is_empty(5) and budget.wait_ms(5) == 0 and budget.left(5) == (None, None)
    )


def test_a_budget_survives_a_restart_and_a_clock_that_went_back() -> None:
    budget = Budget(24_000, 100, 0)
    budget.take(24_000, 10, 0)
    kept = budget.kept(0, DAY_MS)
    for wall_ms, wanted in ((DAY_MS, 0), (DAY_MS + DAY_MS // 2, 12_000), (0, 0), (30 * DAY_MS, 24_000)):
        again = Budget(24_000, 100, 5_000)
        again.restore(kept, 5_000, wall_ms)
        assert again.left(5_000)[0] == wanted
    again.restore(b"no json", 5_000, 0)


def test_on_demand_it_is_connected_for_what_is_said_and_then_no_more() -> None:
    async def body(bench: Bench) -> None:
        transport = bench.transport
        await bench.until(lambda: transport.ended, 60)
        first = transport.ended[0] - transport.attempts[0]
        assert 10 <= first <= 12, "quiet for so long"
        await pass_time(300)
        assert len(transport.attempts) == 1
        bench.write(1)
        began = trio.current_time()
        await bench.settled()
        assert trio.current_time() - began < 1
        await bench.until(lambda: len(transport.ended) == 2, 60)
        bench.rig.execute(Put(stored(config(7))))
        bench.rig.sequence()
        await bench.until(lambda: bench.database.get("Config", {}), 3_600 * 1.3)
        assert len(transport.attempts) == 3

    bench = live(lambda clock: Bench(clock, config=BRISK, gate=ON_DEMAND), body)
    assert not bench.events("no-connection")


def test_on_demand_many_connections_do_not_grow_the_back_off() -> None:
    async def body(bench: Bench) -> None:
        for i in range(30):
            await pass_time(60)
            bench.write(i)
            began = trio.current_time()
            await bench.settled()
            assert trio.current_time() - began < 5, f"connection {i}"

    live(lambda clock: Bench(clock, config=BRISK, gate=ON_DEMAND), body)


def test_on_demand_it_keeps_trying_while_something_waits() -> None:
    async def body(bench: Bench) -> None:
        await bench.until(lambda: bench.transport.ended, 60)
        bench.transport.away = AWAY
        bench.write(1)
        await pass_time(3_600)
        assert len(bench.transport.attempts) > 10
        bench.transport.away = None
        await bench.until(lambda: not bench.database.pending(), 400)

    live(lambda clock: Bench(clock, config=BRISK, gate=ON_DEMAND), body)


def test_a_budget_of_bytes_is_kept_over_days() -> None:
    """A device that writes every ten minutes, on a tenth of what that would cost."""
    per_day = 24 * 1024

    async def body(bench: Bench) -> None:
        day = 86_400.0
        for i in range(6 * 24 * 4):
            await pass_time(600)
            bench.write(i, f"s{i % 40}")
        spent = sum(len(payload) + 100 for payload in bench.transport.sent) + 1_000 * len(bench.transport.attempts)
        days = trio.current_time() / day
        assert spent <= per_day * (days + 2)  # a full bucket at first, and a debt at last
        assert bench.in_table(), "what the budget allows is sent"
        await bench.until(lambda: not bench.database.pending(), 3 * day)
        assert len(bench.in_table()) == 40

    bench = live(lambda clock: Bench(clock, gate=GateSettings(bytes_per_day=per_day)), body)
    assert bench.events("connection-closed")[0]["reason"] == "budget"
    assert bench.events("connection-waits")[0]["reason"] == "budget"


def test_a_budget_of_messages_is_kept_too() -> None:
    async def body(bench: Bench) -> None:
        for i in range(200):
            bench.write(i)
            await pass_time(30)
        days = trio.current_time() / 86_400
        assert len(bench.transport.sent) <= 48 * (days + 2)
        assert not bench.agent.is_online

    live(lambda clock: Bench(clock, gate=GateSettings(messages_per_day=48)), body)


def test_a_snapshot_that_has_begun_is_not_cut() -> None:
    """The answer to the first hello costs more than the day's budget; the connection waits until it is quiet."""

    async def body(bench: Bench) -> None:
        for i in range(400):
            bench.rig.execute(Put(stored(setting(i, f"s{i}", padding="x" * 1_000))))  # several messages
        await bench.until(lambda: bench.transport.ended, 60)
        assert len(list(bench.database.find("Setting"))) == 400
        assert bench.events("connection-closed")[0]["reason"] == "budget"

    live(lambda clock: Bench(clock, gate=GateSettings(bytes_per_day=1_500)), body)


def test_a_gate_says_when_to_look_again() -> None:
    gate = Gate(msgspec.structs.replace(ON_DEMAND, bytes_per_day=1_000_000), 0, lambda: 0.5)
    gate.connecting(1_000, 0)
    gate.connected(1.0, 0)
    assert gate.look_again_ms(0) == BUDGET_QUIET_MS
    assert gate.look_again_ms(BUDGET_QUIET_MS) == 7_000
    assert gate.closes(9_999, need=False) == "" and gate.closes(10_000, need=True) == ""
    assert gate.closes(10_000, need=False) == "idle"
    gate.disconnected(10_000)
    assert gate.opens_in_ms(10_000, need=False) == 3_590_000 and gate.opens_in_ms(10_000, need=True) == 0
    assert gate.why_shut(10_000, need=False) == "on-demand"
    gate.budget.take(2_000_000, 0, 10_000)
    assert gate.opens_in_ms(10_000, need=True) > 0 and gate.why_shut(10_000, need=True) == "budget"
