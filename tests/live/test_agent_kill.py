"""The agent is killed at random moments while an application writes through its socket; nothing acknowledged is lost.

The history of the table is read from its stream: what has once been replaced there never comes back.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agent_rig import AgentProcess, Application
from emulators import client as emulator_client
from live_rig import Mosquitto, RelayProcess, Table, table_name, until

from agent.api.client import Client

States = dict[str, dict[str, int]]  # model -> name -> rev


@pytest.fixture(params=["moto", "ministack"])
def table(request: pytest.FixtureRequest, broker: Mosquitto) -> Table:
    """`broker` is asked for so that a missing one is told in the same way as elsewhere."""
    address = request.getfixturevalue(request.param)
    return Table(address, table_name(request.node.nodeid), {"home-1": "main"})


def images(table: Table) -> Iterator[dict[str, Any]]:
    """Every image that an application's item has had in the table, in order."""
    streams = emulator_client(table.address, "dynamodbstreams")
    arn = table.client.describe_table(TableName=table.name)["Table"]["LatestStreamArn"]
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        where = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]  # fmt: skip
        while where:
            answer = streams.get_records(ShardIterator=where, Limit=1_000)
            if not answer["Records"]:
                break
            for record in answer["Records"]:
                image = record["dynamodb"].get("NewImage")
                if image and not image["pk"]["S"].startswith("_fleet"):
                    yield image
            where = answer.get("NextShardIterator")


def kills(folder: Path, broker: Mosquitto, table: Table, times: int, seed: int) -> int:
    """How many writes the application made."""
    chance = random.Random(seed)
    with RelayProcess(folder, table, broker.url) as relay:
        relay.ready()
        with AgentProcess(folder, {"url": f'"{broker.url}"'}).start() as agent:
            application = Application(agent.socket)
            application.start()
            for _ in range(times):
                application.wait(chance.randrange(1, 60))
                agent.kill()
                agent.start()
            application.wait(20)
            application.end()
            drain(agent)
            with agent.client() as client:
                on_device: States = {model: everything(client, model) for model in ("Setting", "Fault")}
            assert agent.terminate() == 0
            assert not agent.odd
    judge(application, on_device, states(table), history_of(table))
    return application.acknowledged


def drain(agent: AgentProcess) -> None:
    """Until all is acknowledged: for as long as it goes on."""
    left = agent.status()["pending"]
    while left:
        until(partial(fewer, agent, left), f"fewer than {left} wait", agent.pause)
        left = agent.status()["pending"]


def fewer(agent: AgentProcess, left: int) -> bool:
    now: int = agent.status()["pending"]
    return now < left


def everything(client: Client, model: str) -> dict[str, int]:
    found: dict[str, int] = {}
    after: dict[str, Any] = {}
    name = "name" if model == "Setting" else "id"
    while True:
        answer = client.ask("find", model=model, limit=1_000, **after)
        found.update((item[name], item["rev"]) for item in answer["items"])
        if not answer["more"]:
            return found
        after = {"after": answer["items"][-1]}


def judge(
    application: Application, on_device: States, in_table: States, history: dict[tuple[str, str], list[int]]
) -> None:
    assert in_table == on_device, "device and cloud are alike"
    for model, kept in (("Setting", application.settings), ("Fault", application.faults)):
        for key, rev in kept.items():
            now = on_device[model].get(key)
            assert now == rev or (now is not None and (model, key, now) in application.tried and now > rev), (key, rev)
        for key, rev in on_device[model].items():
            assert kept.get(key) == rev or (model, key, rev) in application.tried, f"nobody wrote {key} {rev}"
    assert len(history) >= len(on_device["Fault"])
    for item, revs in history.items():
        assert revs == sorted(set(revs)), f"{item} went back, or took effect twice: {revs}"


def states(table: Table) -> States:
    found: States = {"Setting": {}, "Fault": {}}
    for item in table.items().values():
        found[item["_type"]][item.get("name") or item["id"]] = item["rev"]
    return found


def history_of(table: Table) -> dict[tuple[str, str], list[int]]:
    """Key -> the revs that its item has had."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for image in images(table):
        found[image["pk"]["S"], image["sk"]["S"]].append(int(image["rev"]["N"]))
    return found


def judged(on_device: States, in_table: States, *revs: int) -> None:
    """Of an application whose last write to `s1` was acknowledged with rev 5, and one with rev 6 never answered."""
    application = Application("nowhere")
    application.settings = {"s1": 5}
    application.tried = {("Setting", "s1", 6)}
    judge(application, on_device, in_table, {("d", "s1"): list(revs)})


def test_what_must_not_be_is_noticed() -> None:
    good: States = {"Setting": {"s1": 5}, "Fault": {}}
    judged(good, good, 1, 5)
    judged({"Setting": {"s1": 6}, "Fault": {}}, {"Setting": {"s1": 6}, "Fault": {}}, 1, 5, 6)
    for on_device in ({}, {"s1": 4}, {"s1": 7}, {"s1": 5, "s2": 1}):
        bad: States = {"Setting": on_device, "Fault": {}}
        with pytest.raises(AssertionError):
            judged(bad, bad, 1, 5)
    with pytest.raises(AssertionError, match="alike"):
        judged(good, {"Setting": {}, "Fault": {}}, 1, 5)
    for revs in ((1, 5, 5), (5, 1), (1, 5, 1, 5)):
        with pytest.raises(AssertionError, match="twice"):
            judged(good, good, *revs)


def test_no_acknowledged_write_is_lost_and_none_takes_effect_twice(
    tmp_path: Path, broker: Mosquitto, table: Table
) -> None:
    kills(tmp_path, broker, table, times=4, seed=1)


@pytest.mark.slow
def test_so_it_is_after_two_hundred_kills(
    tmp_path: Path, broker: Mosquitto, table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    writes = kills(tmp_path, broker, table, times=200, seed=2)
    with capsys.disabled():
        print(f" [{writes} writes]", end="")
