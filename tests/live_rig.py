"""Real processes for tests: mosquitto, relays as `fleet-cloud relay` starts them, and devices on real connections.

A device is the real Session and Database behind paho-mqtt, driven by the test's own thread. Everything is on loopback;
a process ends with the context that started it. Nothing waits for a time: only for what a process says or does, within
a limit. Used by tests/live.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from device_rig import Device
from dynamo_rig import adapter
from emulators import KEY_ID, REGION, SECRET
from emulators import client as emulator_client
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from process_rig import LIMIT_S, ROOT, LoggingProcess, until
from relay_rig import FILE

from agent.config import AgentConfig
from agent.events import CONNECTED, DISCONNECTED, TIMER, Connect, Disconnect, Event, Received, Send
from agent.protocol.topics import from_device, to_account, to_all, to_device
from cloud.dynamodb_table import create_table
from cloud.head import public_image
from cloud.registry import registration
from cloud.table import PK, PRIVATE_PREFIX, SK, Key
from fleet.live.parts import Mosquitto, free_port, relay_command
from fleet.live.processes import Processes

__all__ = ["LIMIT_S", "ROOT", "Mosquitto", "free_port", "until"]  # handed on to tests, besides what is defined here

STREAM: Final = {"lease_ms": 1_500, "renew_ms": 300, "checkpoint_ms": 200, "poll_ms": 40, "backoff_cap_ms": 500}
QUICK: Final = AgentConfig(
    boot_jitter_ms=0, hello_period_ms=2_000, hello_spacing_ms=100, resend_base_ms=400, connect_base_ms=100
)


@contextlib.contextmanager
def mosquitto(folder: Path, *lines: str) -> Iterator[Mosquitto]:
    """`lines`: of its configuration, besides the listener. Raises fleet.live.parts.NotInstalled."""
    with Processes() as processes:
        broker = Mosquitto(processes, folder, lines)
        broker.start()
        yield broker


# The table.


def table_name(test: str) -> str:
    """Of a test's own table: short, since the tokens of transactions begin with it."""
    return f"live-{zlib.crc32(test.encode()):08x}"


class Table:
    """A table on an emulator, made as Fleet needs it, with devices registered."""

    def __init__(self, address: str, name: str, accounts: Mapping[str, str]) -> None:
        self.address = address  # as relays are told it
        self.name = name
        self.client = emulator_client(address)
        create_table(self.client, name)
        self.execute = adapter(self.client, name).execute
        for device, account in accounts.items():
            self.execute(registration(device, account, wall_ms()))

    def items(self, private: bool = False) -> dict[Key, dict[str, Any]]:
        """What applications see; with `private` the relay's own items instead."""
        from cloud.dynamodb_values import item_of

        found: dict[Key, dict[str, Any]] = {}
        more: dict[str, Any] = {}
        while True:
            answer = self.client.scan(TableName=self.name, ConsistentRead=True, **more)
            for attributes in answer["Items"]:
                item = item_of(attributes)
                if item[PK].startswith(PRIVATE_PREFIX) == private:
                    found[item[PK], item[SK]] = dict(item) if private else public_image(item)
            if "LastEvaluatedKey" not in answer:
                return found
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def leases(self) -> dict[str, dict[str, Any]]:
        """Shard -> its lease."""
        return {
            key[1].removeprefix("shard#"): item
            for key, item in self.items(private=True).items()
            if key[0].startswith("_fleet#lease#") and key[1].startswith("shard#")
        }


class Door:
    """A way to a server that can be shut and opened again: connections break, and none can be made. `taken`: when each
    connection was made, in seconds."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition("//")[2].rpartition(":")
        self._to = (host, int(port))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listening: socket.socket | None = None
        self.taken: list[float] = []
        self.port = 0

    def open(self) -> str:
        """Its address, the same each time."""
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return f"http://127.0.0.1:{self.port}"

    def shut(self) -> None:
        if self._listening is not None:
            self._listening.shutdown(socket.SHUT_RDWR)  # closing alone would not wake who accepts
            self._listening.close()
            self._listening = None
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._open.clear()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = listening.accept()
                self.taken.append(time.monotonic())
                outer = socket.create_connection(self._to)
                with self._lock:
                    self._open += [inner, outer]
                for source, sink in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


# The relay.


class RelayProcess(LoggingProcess):
    """`program`: what runs it, by default the command itself. `broker`: "" for none."""

    def __init__(
        self,
        folder: Path,
        table: Table,
        broker: str,
        *options: str,
        name: str = "relay",
        stream: Mapping[str, int] = STREAM,
        more: str = "",
        program: Sequence[str] = ("-m", "cloud.cli"),
        schema: Path = FILE,
    ) -> None:
        super().__init__(name)
        self.broker = broker
        self.config = folder / f"{name}.json5"
        self.config.write_text(f"{{stream: {json.dumps(dict(stream))}, {more}}}")
        command = [*program]
        command += relay_command(
            table=table.name, schema=schema, broker=broker, endpoint_url=table.address, region=REGION, name=name
        )
        command += ["--config", str(self.config), *options]
        self.launch(command, {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET})

    def ready(self) -> RelayProcess:
        self.wait("broker-connected" if self.broker else "listening-for-devices")
        return self

    def figures(self) -> dict[str, float]:
        """Every sample of /metrics: `name{labels}` -> value."""
        address = self.wait("listening")["metrics"]
        with urllib.request.urlopen(address, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"}

    def health(self) -> tuple[int, dict[str, Any]]:
        address = self.wait("listening")["metrics"].replace("/metrics", "/health")
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


# Devices.


class LiveDevice(Device):
    """A device on a broker, on the clock of the machine. `pump` drives several until something is true."""

    def __init__(self, port: int, device_id: str = "home-1", account: str = "main", **more: Any) -> None:
        super().__init__(device_id=device_id, config=more.pop("config", QUICK), now_ms=wall_ms, **more)
        self.port = port
        self.account = account
        self.client: paho.Client | None = None
        self.heard: list[bytes] = []

    def feed(self, event: Event) -> None:
        for effect in self.session.receive(event, self.monotonic_ms()):
            if isinstance(effect, Send):
                self._send(effect.payload)
            elif isinstance(effect, Connect):
                self._connect()
            elif isinstance(effect, Disconnect):
                self._disconnect()

    def _send(self, payload: bytes) -> None:
        if self.client is not None:
            self.client.publish(from_device(self.context.device_id), payload, 1)

    def _connect(self) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False)
        client.on_connect = self._subscribe
        client.on_subscribe = lambda *_: self.feed(CONNECTED)
        client.on_message = lambda _client, _data, message: self._hear(bytes(message.payload))
        self.client = client
        try:
            client.connect("127.0.0.1", self.port, 30)
        except OSError:
            self._lost()

    def _subscribe(self, client: Any, *_: Any) -> None:
        device, account = self.context.device_id, self.account
        client.subscribe([(to_device(device), 1), (to_account(account), 0), (to_all(), 0)])

    def _hear(self, payload: bytes) -> None:
        self.heard.append(payload)
        self.feed(Received(payload))

    def _disconnect(self) -> None:
        if self.client is not None:
            self.client.disconnect()
            self.client = None

    def _lost(self) -> None:
        self.client = None
        self.feed(DISCONNECTED)

    def turn(self) -> None:
        """What has come, and what is due."""
        client = self.client
        if client is not None and client.loop(0.01) != paho.MQTT_ERR_SUCCESS and self.client is client:
            self._lost()
        if self.session.timer_at_ms <= self.monotonic_ms():
            self.feed(TIMER)

    def close(self) -> None:
        if self.client is not None:
            self.client.disconnect()
            self.client.loop_write()
            self.client = None
        self.off()
        self.connection.close()


AnyDevice = TypeVar("AnyDevice", bound=LiveDevice)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def devices(port: int, *names: str, **more: Any) -> Iterator[list[LiveDevice]]:
    with switched_on([LiveDevice(port, name, **more) for name in names]) as made:
        yield made


@contextlib.contextmanager
def switched_on(made: list[AnyDevice]) -> Iterator[list[AnyDevice]]:
    for device in made:
        device.boot()
    try:
        yield made
    finally:
        for device in made:
            device.close()


def pump(live: Sequence[LiveDevice], condition: Callable[[], Any], what: str) -> Any:
    def turn() -> None:
        for device in live:
            device.turn()

    return until(condition, what, turn)


def same(device: LiveDevice, table: Table) -> bool:
    """Whether a device and the table hold the same items of this device."""
    if device.store.outbox_rows:
        return False  # reading the whole table is work for the emulator, which has other work to do
    owner = device.context.device_id
    items = {key: item for key, item in table.items().items() if item.get("deviceId") == owner}
    return device.visible() == items


def alike(live: Sequence[LiveDevice], table: Table, items: int) -> None:
    """Every device and the table become equal, with so many items of the first device."""
    pump(
        live,
        lambda: len(live[0].visible()) == items and all(same(each, table) for each in live),
        f"devices and table are equal, with {items} items",
    )
