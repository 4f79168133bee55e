"""The brokers that the contract is asked of. In CI mosquitto must be there; elsewhere the tests say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_mosquitto import mosquitto_broker
from broker_port import BrokerPort
from broker_simulated import SimulatedBroker
from paho.mqtt.client import MQTTv5, MQTTv311

from fleet.live.parts import NotInstalled

VERSIONS = {"mosquitto-3.1.1": MQTTv311, "mosquitto-5": MQTTv5}


@pytest.fixture(params=["simulated", *VERSIONS])
def broker(request: pytest.FixtureRequest, tmp_path: Path, ci: bool) -> Iterator[BrokerPort]:
    if request.param == "simulated":
        yield SimulatedBroker()
        return
    try:
        with mosquitto_broker(tmp_path, VERSIONS[request.param]) as real:
            yield real
    except NotInstalled as missing:
        if ci:
            pytest.fail(str(missing))
        pytest.skip(str(missing))
