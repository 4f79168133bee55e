"""Who may do what at the broker: the policy and the ACL say the same, and a real mosquitto does.

Called by pytest only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import paho.mqtt.client as mqtt
import pytest
from access_rules import acl_allows, policy_allows
from mosquitto import LIMIT_S, PASSWORD, Client, broker
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from agent.protocol.topics import from_device, presence, to_account, to_all, to_device
from cloud.access import DEVICE_NAME, device_policy, mosquitto_acl, policy_arns, relay_publishes
from cloud.cli import main
from fleet.live.parts import NotInstalled

DEVICES: Final = {"home-1": "main", "home-2": "main", "away-1": "other", "a.b:c_d-e": "main"}
PREFIX: Final = "ioto"
ACL: Final = mosquitto_acl(DEVICES, "relay", PREFIX)
POLICY: Final = device_policy(PREFIX, policy_arns("aws", "eu-west-1", "123456789012"))
ALLOWED: Final = [
    ("publish", from_device("home-1")),
    ("subscribe", to_device("home-1")),
    ("subscribe", to_account("main")),
    ("subscribe", to_all()),
]
# What a device may try besides: other devices and accounts, wildcards, other directions, other depths and spellings.
TOPICS: Final = [
    *(topic for _, topic in ALLOWED),
    *(make(name) for make in (from_device, to_device, to_account) for name in ("home-2", "away-1", "other", "+", "#")),
    *(from_device(name) for name in ("home-1/x", "HOME-1", "home-11", "home", "")),
    *("#", "+", "ioto/#", "ioto/+/home-1/sync", "ioto/device/home-1/#", "ioto/device/home-1/+", "ioto/device/home-1"),
    *("ioto/service/home-1", "ioto/service/home-1/sync/", "ioto/service/home-1/sync/x", "/ioto/service/home-1/sync"),
    *(
        "other/service/home-1/sync",
        "ioto/service/*/sync",
        "ioto/account/main",
        "ioto/account/all/#",
        "$SYS/#",
        "$SYS/x",
    ),
    *("$aws/things/home-1/shadow/update", "$aws/rules/fleet/ioto/service/home-2/sync", "$share/g/ioto/device/+/sync"),
]
CASES: Final = [
    (device, action, topic) for device in DEVICES for action in ("publish", "subscribe") for topic in TOPICS
]


# Policy and ACL


def test_policy_and_acl_say_the_same_of_every_device_action_and_topic() -> None:
    differing = [
        case for case in CASES if policy_allows(POLICY, case[0], DEVICES[case[0]], *case[1:]) != acl_allows(ACL, *case)
    ]
    assert differing == []
    assert len(CASES) > 300


def test_a_device_may_do_four_things() -> None:
    for action in ("publish", "subscribe"):
        for topic in TOPICS:
            wanted = (action, topic) in ALLOWED
            assert acl_allows(ACL, "home-1", action, topic) is wanted, (action, topic)
            assert policy_allows(POLICY, "home-1", "main", action, topic) is wanted, (action, topic)


def test_what_may_be_subscribed_to_may_be_received_and_nothing_else() -> None:
    for topic in TOPICS:
        subscribed = policy_allows(POLICY, "home-1", "main", "subscribe", topic)
        assert policy_allows(POLICY, "home-1", "main", "iot:Receive", topic) is subscribed


def test_a_certificate_connects_under_its_things_name_alone() -> None:
    assert policy_allows(POLICY, "home-1", "main", "connect", "home-1")
    for name in ("home-2", "home-1x", "", "*", "relay"):
        assert not policy_allows(POLICY, "home-1", "main", "connect", name)


def test_a_certificate_without_a_thing_may_do_nothing() -> None:
    for action in ("connect", "publish", "subscribe", "iot:Receive"):
        for name in ("home-1", *TOPICS):
            assert not policy_allows(POLICY, None, "", action, name)


def test_a_thing_without_an_account_has_its_own_topics_and_the_one_for_all() -> None:
    heard = [topic for topic in TOPICS if policy_allows(POLICY, "home-1", "", "subscribe", topic)]
    assert heard == [to_device("home-1"), to_all()]


def test_the_policy_grants_five_actions_and_no_more() -> None:
    actions = [statement["Action"] for statement in POLICY["Statement"]]
    assert actions == ["iot:Connect", "iot:Publish", "iot:RetainPublish", "iot:Subscribe", "iot:Receive"]
    (retained,) = (one["Resource"] for one in POLICY["Statement"] if one["Action"] == "iot:RetainPublish")
    assert [name.split("/", 1)[1] for name in retained] == [presence(DEVICE_NAME)]


def test_a_device_says_of_itself_alone_that_it_is_there() -> None:
    for device in DEVICES:
        for other in DEVICES:
            assert acl_allows(ACL, device, "publish", presence(other)) == (device == other)
    assert not acl_allows(ACL, "relay", "publish", presence(next(iter(DEVICES))))


def test_the_relay_hears_all_devices_and_speaks_to_all() -> None:
    for device, account in DEVICES.items():
        assert acl_allows(ACL, "relay", "subscribe", from_device(device))
        for topic in (to_device(device), to_account(account), to_all()):
            assert acl_allows(ACL, "relay", "publish", topic)
            assert acl_allows(ACL, "relay", "subscribe", topic)  # what other relays say, for its own devices
        assert not acl_allows(ACL, "relay", "publish", from_device(device))
    assert relay_publishes(PREFIX, "arn:t/") == ["arn:t/ioto/device/*/sync", "arn:t/ioto/account/*/sync"]


@pytest.mark.parametrize("name", ["+", "#", "a/b", "x\ntopic readwrite #", "", "all", "relay", "a b"])
def test_a_name_that_would_be_a_rule_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no (id|name)"):
        mosquitto_acl({name: "main"}, "relay", PREFIX)
    if name != "relay":
        with pytest.raises(ValueError, match=r"no (id|name)"):
            mosquitto_acl({"home-1": name}, "relay", PREFIX)


def test_the_command_prints_both(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [f"{device}={account}" for device, account in DEVICES.items()]
    assert main(["acl", *pairs]) == 0
    assert capsys.readouterr().out == ACL
    assert main(["acl", "--iot-policy"]) == 0
    assert '"iot:Connect"' in capsys.readouterr().out
    for wrong in ("home-1", "home-1=", "=main", "home 1=main", "home-1=all", "relay=main"):
        assert main(["acl", wrong]) == 2, wrong
        assert capsys.readouterr().err.startswith("fleet-cloud: ")


# A real broker


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, ci: bool) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("mosquitto")
    try:
        with broker(folder, ACL, [*DEVICES, "relay", "stranger"]) as address:
            yield address
    except NotInstalled as missing:
        if ci:
            pytest.fail(str(missing))
        pytest.skip(str(missing))


PUBLISHABLE: Final = [topic for topic in TOPICS if topic and "+" not in topic and "#" not in topic]


@pytest.mark.parametrize("device", ["home-1", "away-1", "stranger"])
def test_the_broker_takes_what_the_rules_allow_and_refuses_the_rest(port: int, device: str) -> None:
    """The broker says so to a client of MQTT 5; and the relay gets exactly what was taken."""
    with Client("relay", port) as relay, Client(device, port) as client:
        assert relay.subscribe("ioto/service/+/sync")
        taken = [topic for topic in PUBLISHABLE if client.publish(topic, topic.encode())]
        assert taken == [topic for topic in PUBLISHABLE if acl_allows(ACL, device, "publish", topic)]
        assert [topic for topic, _ in relay.received()] == taken


@pytest.mark.parametrize("device", ["home-1", "away-1", "stranger"])
def test_the_broker_delivers_what_the_rules_allow_whatever_was_subscribed_to(port: int, device: str) -> None:
    """This mosquitto grants any subscription and checks each delivery: what counts is what comes."""
    topics = [to_all(), *(to_device(name) for name in DEVICES), to_account("main"), to_account("other")]
    with Client("relay", port) as relay, Client(device, port) as client, Client("relay-2", port) as nobody:
        assert not nobody.connected
        for topic in ("#", "+/#", "ioto/#", *topics, "ioto/device/+/sync", "ioto/account/+/sync", "ioto/+/+/+"):
            client.subscribe(topic)
        for topic in topics:
            assert relay.publish(topic, topic.encode())
        wanted = {topic for topic in topics if acl_allows(ACL, device, "subscribe", topic)}
        assert {topic for topic, _ in client.received()} == wanted


def test_nobody_comes_in_without_a_name_and_a_password(port: int) -> None:
    with Client("unknown", port) as client:
        assert not client.connected


def test_a_device_cannot_take_the_place_of_another(port: int) -> None:
    """Its client id is its user name, whatever it says: nobody is thrown out."""
    with Client("home-1", port) as victim:
        with Client("away-1", port) as thief:
            thief.mqtt.disconnect()
            thief.mqtt.loop_stop()
            thief.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="home-1", protocol=mqtt.MQTTv5)
            thief.mqtt.username_pw_set("away-1", "secret")
            thief.mqtt.on_connect = lambda client, data, flags, reason, properties: thief.said.put(("connect", reason))
            thief.mqtt.connect("127.0.0.1", port)
            thief.mqtt.loop_start()
            assert not thief.said.get(timeout=20)[1].is_failure
        assert victim.publish(from_device("home-1"), b"still here")
        assert victim.mqtt.is_connected()


def taken_from_a_group(port: int, group: str, guessed: str) -> tuple[int, int]:
    """Of six messages for relays that share their work in a group: how many come, and how many a device gets that joins
    a group by the name that it guessed."""
    with Client("relay", port) as relay, Client("home-1", port) as device, Client("away-1", port) as thief:
        relay.subscribe(f"$share/{group}/ioto/service/+/sync")
        thief.subscribe(f"$share/{guessed}/ioto/service/+/sync")
        thief.subscribe(f"$share/{guessed}/ioto/service/home-1/sync")
        for number in range(6):
            assert device.publish(from_device("home-1"), b"%d" % number)
        return len(relay.received()), len(thief.received())


def test_a_device_that_does_not_know_the_relays_group_takes_nothing_from_it(port: int) -> None:
    assert taken_from_a_group(port, "f3b1c2d4e5a69788", "fleet") == (6, 0)


def test_a_device_that_knows_the_relays_group_makes_messages_vanish(port: int) -> None:
    """Mosquitto 2.0 gives it its share, and then refuses delivery. The group's name is a secret, until this fails."""
    come, stolen = taken_from_a_group(port, "fleet", "fleet")
    assert stolen == 0
    assert come < 6


def leave_a_will(port: int, device: str, topic: str) -> None:
    """Connects with a last will, and goes in the way that makes the broker publish it; returns when that is done."""
    gone = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv5)
    client.username_pw_set(device, PASSWORD)
    client.will_set(topic, topic.encode(), qos=1)
    client.on_connect = lambda client, data, flags, reason, properties: client.disconnect(
        ReasonCode(PacketTypes.DISCONNECT, identifier=4)
    )
    client.on_disconnect = lambda client, data, flags, reason, properties: gone.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert gone.wait(LIMIT_S)
    client.loop_stop()


def test_a_last_will_is_a_message_like_any_other(port: int) -> None:
    with Client("relay", port) as relay:
        relay.subscribe("ioto/service/+/sync")
        for topic in (from_device("home-2"), from_device("home-1"), to_all()):
            leave_a_will(port, "home-1", topic)
        topic, _ = relay.got.get(timeout=LIMIT_S)
        assert topic == from_device("home-1")
        assert relay.received() == []
