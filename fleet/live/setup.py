"""What a live run starts, from what it was asked for: table, broker or WebSocket, relays, the devices' configurations.

What is not given is started; what is given is used and left alone. Nothing here knows of faults or of time. Called by
fleet.live.run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.protocol.topics import PREFIX, valid_id
from agent.transport.address import address_of
from cloud.access import mosquitto_acl
from cloud.dynamodb_table import on_this_machine
from cloud.system import device_token
from fleet.live.attach import Listener
from fleet.live.broker import EXAMPLE, RELAY, GivenBroker, check_files, check_reached, given_broker, hidden, refused
from fleet.live.device import DeviceSetup
from fleet.live.parts import Mosquitto, MotoServer, NotInstalled, RelayPart, free_port, program
from fleet.live.processes import Part, Processes
from fleet.live.script import DeviceOp
from fleet.live.table import REGION, LiveTable
from fleet.scenario.plan import Plan

RELAYS_MAX: Final = 2  # each is a process that asks the emulator several times a second
PASSWORD: Final = "FLEET_BROKER_PASSWORD"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for. Empty texts: to be started."""

    broker: str = ""
    websocket: bool = False
    table: str = ""
    speed: float = 1.0
    per_device: bool = False
    attach: list[str] = []
    ca: str = ""
    cert: str = ""
    key: str = ""

    def given(self) -> GivenBroker | None:
        """The broker that is there. Raises InputError."""
        return given_broker(self.broker, self.ca, self.cert, self.key) if self.broker else None


def checked(asked: Asked, plan: Plan) -> tuple[Asked, str]:
    """What can be had of it, and a line that says so where something else is taken. Starts nothing. Raises
    InputError."""
    if asked.broker and asked.websocket:
        raise refused("--websocket", "", "without a broker; with --broker there is one", "leave one of them out")
    if not 0.01 <= asked.speed <= 1000:
        raise refused("--speed", f"{asked.speed:g}", "expected a number from 0.01 to 1000")
    for device in asked.attach:
        if not valid_id(device):
            raise refused("--attach", device, "is no id", "1 to 128 letters, digits and :_.- , and not 'all'")
    if asked.broker:
        broker = given_broker(asked.broker, asked.ca, asked.cert, asked.key)
        for fault in plan.faults:
            if fault.kind == "broker-outage":
                message = f"the fault {fault.name!r} takes the broker away, and this one was not started by the run"
                raise refused("--broker", hidden(asked.broker), message, "leave the fault or the broker out")
        check_files(broker, [device.id for device in plan.devices])
    for option in ("ca", "cert", "key"):
        if getattr(asked, option) and not asked.broker:
            raise refused(f"--{option}", getattr(asked, option), "goes with --broker", f"--broker {EXAMPLE}")
    _without_a_name_twice(asked, plan)
    if asked.table and not (asked.table.startswith("http://") and on_this_machine(asked.table)):
        message = "not on this machine: a live run makes and deletes a table, on emulators here only"
        raise refused("--table", asked.table, message, "http://127.0.0.1:PORT of one, or leave --table out for moto")
    if not asked.table:
        _look_for_moto()
    if asked.broker or asked.websocket:
        return asked, ""
    try:
        program("mosquitto")
    except NotInstalled as missing:
        told = f"{missing}: devices connect to the relay itself, by WebSocket"
        return msgspec.structs.replace(asked, websocket=True), told
    return asked, ""


def _without_a_name_twice(asked: Asked, plan: Plan) -> None:
    taken = {device.id for device in plan.devices}
    for device in asked.attach:
        if device in taken:
            raise refused("--attach", device, "is a device of the scenario, which the run starts itself")


def _look_for_moto() -> None:
    from importlib.util import find_spec

    if find_spec("moto") is None or find_spec("flask") is None:
        raise refused("--table", "", "moto's server is not installed", "pip install 'fleet-sync[moto]'")


class Cloud:
    """Table, broker and relays of one run. Its methods wait: they are for threads."""

    def __init__(self, processes: Processes, folder: Path, plan: Plan, schema: Path, asked: Asked) -> None:
        self.broker: Mosquitto | None = None
        self.relays: list[RelayPart] = []
        self.table: LiveTable
        self.target = ("127.0.0.1", 0)  # where devices are to connect to
        self.secrets: dict[str, str] = {}
        self._processes = processes
        self._folder = folder
        self._plan = plan
        self._schema = schema
        self._asked = asked
        self._given = asked.given()
        self.attached = dict.fromkeys(asked.attach, plan.groups[0].account)  # device -> account
        self._accounts = {device.id: plan.groups[device.group].account for device in plan.devices}
        self._accounts.update(self.attached)

    def start(self, wall_ms: int) -> None:
        """Raises NotReady, NotInstalled and InputError."""
        asked = self._asked
        if self._given is not None:
            check_reached(self._given)
        address = asked.table
        if not address:
            moto = MotoServer(self._processes, self._folder)
            moto.start()
            address = moto.url
        self.table = LiveTable(address)
        for device, account in self._accounts.items():
            token = self.table.register(device, account, wall_ms, token=asked.websocket)
            self.secrets[device] = token or device_token()
        if not asked.broker and not asked.websocket:
            self._start_broker()
        self._start_relays()

    def close(self) -> None:
        if hasattr(self, "table"):
            self.table.close()

    def _start_broker(self) -> None:
        plan = self._plan.broker
        lines = (
            "persistence false",
            "set_tcp_nodelay true",
            f"max_inflight_messages {min(plan.in_flight_max, 65_535)}",
            f"max_queued_messages {plan.queue_max}",
        )
        self.secrets[RELAY] = device_token()
        users = {name: self.secrets[name] for name in (*self._accounts, RELAY)}
        acl = mosquitto_acl(self._accounts, RELAY, PREFIX)
        self.broker = Mosquitto(self._processes, self._folder, lines, users=users, acl=acl)
        self.broker.start()
        self.target = ("127.0.0.1", self.broker.port)

    def _start_relays(self) -> None:
        asked = self._asked
        config = self._folder / "relay.json5"
        config.write_text(json.dumps(relay_numbers(self._plan)))
        more = ["--config", str(config)]
        count = min(RELAYS_MAX, self._plan.cloud.workers)
        url = ""
        if asked.websocket:
            count, port = 1, free_port()
            more += ["--websocket", f"127.0.0.1:{port}"]
            self.target = ("127.0.0.1", port)
        elif self._given is not None:
            url, self.target = self._given.url_of(RELAY), (self._given.address.host, self._given.address.port)
            more += self._given.relay_options()
        else:
            url = f"mqtt://{RELAY}@127.0.0.1:{self.target[1]}"
        for number in range(count):
            relay = RelayPart(
                self._processes,
                self._folder,
                table=self.table.name,
                schema=self._schema,
                broker=url,
                endpoint_url=self.table.address,
                region=REGION,
                more=more,
                name=f"relay-{number + 1}",
            )
            password = self.secrets[RELAY] if self._given is None and url else self._password()
            if password:
                relay.environment[PASSWORD] = password
            relay.start()
            relay.ready = _is_up  # started again while the broker is away, it has not failed
            self.relays.append(relay)

    def _password(self) -> str:
        """At the broker that was given."""
        return "" if self._given is None else self._given.password

    def listener(self) -> Listener | None:
        """Of the attached devices' messages; None without a broker."""
        asked = self._asked
        if asked.websocket or not self.attached:
            return None
        given = self._given or GivenBroker(
            address=address_of(f"mqtt://{self.target[0]}:{self.target[1]}"),
            username=RELAY,
            password=self.secrets[RELAY],
        )
        try:
            return Listener(*self.target, given.client(RELAY), self.attached)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise refused("--broker", hidden(asked.broker), reason, "start it, or leave --broker out") from None

    def invitation(self, device: str, port: int) -> Path:
        """The configuration with which an attached device comes through that port of loopback."""
        config = self._folder / f"{device}.toml"
        config.touch(0o600)
        config.write_text(self._config(device, self.attached[device], port, boot_jitter="0s"))
        return config

    def setup(self, device: str, port: int, ops: list[DeviceOp]) -> DeviceSetup:
        """The configuration file of one device, whose way in is that port of loopback; and what it is to do."""
        plan = next(one for one in self._plan.devices if one.id == device)
        group = self._plan.groups[plan.group]
        config = self._folder / f"{device}.toml"
        config.touch(0o600)
        config.write_text(self._config(device, group.account, port, compact=group.encoding == "msgpack"))
        return DeviceSetup(
            id=device,
            config=str(config),
            offset_us=plan.clock_offset_us,
            drift_ppb=plan.clock_drift_ppb,
            ops=ops,
            server_name=self._given.address.host if self._given is not None and self._given.address.secure else "",
        )

    def _config(self, device: str, account: str, port: int, **session: Any) -> str:
        keep_alive = f"{max(5_000, self._plan.broker.keep_alive_us // 1000)}ms"
        connection: dict[str, Any] = {"keep_alive": keep_alive}
        if self._asked.websocket:
            connection.update(url=f"ws://127.0.0.1:{port}", token=self.secrets[device])
        elif self._given is None:
            connection.update(url=f"mqtt://127.0.0.1:{port}", password=self.secrets[device])
        else:
            connection.update(self._given.connection(device, port))
        sections: Mapping[str, Mapping[str, Any]] = {
            "device": {"id": device, "account": account},
            "database": {"file": f"{device}.db", "schema": str(self._schema)},
            "connection": connection,
            "session": session,
            "api": {"socket": "none"},
        }
        return "\n".join(
            "\n".join((f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())))
            for name, values in sections.items()
        )


def _is_up(part: Part) -> bool:
    return part.says('"started"')


def relay_numbers(plan: Plan) -> dict[str, dict[str, int]]:
    """A relay's settings as the plan's simulated cloud has them."""
    cloud = plan.cloud
    lease_ms = cloud.lease_us // 1000
    return {
        "relay": {
            "retention_ms": cloud.feed_retention_ms,
            "expiry_margin_ms": cloud.ttl_margin_ms,
            "record_life_ms": cloud.record_life_us // 1000,
            "worker_life_ms": cloud.worker_life_us // 1000,
            "future_ms": cloud.future_bound_ms,
        },
        "stream": {
            "lease_ms": lease_ms,
            "renew_ms": max(1, lease_ms // 4),
            "checkpoint_ms": min(1_000, max(1, lease_ms // 4)),
            "poll_ms": max(1, cloud.poll_every_us // 1000),
        },
    }
