"""Who may do what at the broker: the one set of rules that the ACL of mosquitto and the policy of AWS IoT are made of.

A device may connect under its own name alone, publish to its own service topic, say whether it is there, and hear its
own topic, its account's and the one for all. The relay may hear every topic of theirs, and publish to those of devices
and accounts. What no rule allows is refused. Pure. Called by `fleet-cloud acl`, by cloud.template and by tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from agent.protocol.topics import from_device, presence, to_account, to_all, to_device, valid_id

Right = Literal["publish", "subscribe"]  # who may subscribe may receive
DEVICE_NAME: Final = "${iot:Connection.Thing.ThingName}"
ACCOUNT_ATTRIBUTE: Final = "account"  # of the thing
ACCOUNT_NAME: Final = f"${{iot:Connection.Thing.Attributes[{ACCOUNT_ATTRIBUTE}]}}"
ANY: Final = "+"  # MQTT's: one level


@dataclass(frozen=True, slots=True)
class Rule:
    """`topic`: a filter of MQTT."""

    right: Right
    topic: str
    retained: bool = False  # AWS IoT Core asks for a permission of its own


def device_rules(device: str, account: str, prefix: str) -> tuple[Rule, ...]:
    """What one device may do. The names may stand for themselves, as in a policy."""
    return (
        Rule("publish", from_device(device, prefix)),
        Rule("publish", presence(device, prefix), retained=True),
        Rule("subscribe", to_device(device, prefix)),
        Rule("subscribe", to_account(account, prefix)),
        Rule("subscribe", to_all(prefix)),
    )


def relay_rules(prefix: str) -> tuple[Rule, ...]:
    """The last two for a relay with a WebSocket listener: it hands on to its devices what other relays say to them."""
    return (
        Rule("subscribe", from_device(ANY, prefix)),
        Rule("publish", to_device(ANY, prefix)),
        Rule("publish", to_account(ANY, prefix)),
        Rule("subscribe", to_device(ANY, prefix)),
        Rule("subscribe", to_account(ANY, prefix)),
    )


def service_filter(prefix: str) -> str:
    """The topics that devices publish to, as a filter."""
    return from_device(ANY, prefix)


# Mosquitto


def mosquitto_acl(devices: Mapping[str, str], relay: str, prefix: str) -> str:
    """The text of an `acl_file`. `devices`: device -> account; a device's user name is its id. `relay`: its user name.

    Raises ValueError for an id that is none: in this file a line break or a wildcard would be a rule of its own."""
    for name in (*devices, *devices.values()):
        if not valid_id(name):
            raise ValueError(f"{name!r} is no id of a device or an account")
    if relay in devices or not valid_id(relay):
        raise ValueError(f"{relay!r} is no name for the relay")
    blocks = ["# Made by `fleet-cloud acl`. What is not listed is refused, to users without a name too."]
    blocks.append(_block(relay, relay_rules(prefix)))
    blocks += [_block(device, device_rules(device, account, prefix)) for device, account in devices.items()]
    return "\n\n".join(blocks) + "\n"


def _block(user: str, rules: Iterable[Rule]) -> str:
    words = {"publish": "write", "subscribe": "read"}
    return "\n".join([f"user {user}", *(f"topic {words[rule.right]} {rule.topic}" for rule in rules)])


# AWS IoT Core

Arn = Any  # a text, or what CloudFormation makes a text of


def device_policy(prefix: str, arn: Mapping[str, Arn]) -> dict[str, Any]:
    """The policy that every device's certificate has. `arn`: what stands before the last part of `client`, `topic` and
    `topicfilter` ARNs, with a trailing slash; texts, or CloudFormation's functions.

    The names come from the thing that the certificate belongs to, and are empty where it belongs to none: then nothing
    is allowed. The account is the thing's attribute `account`."""
    rules = device_rules(DEVICE_NAME, ACCOUNT_NAME, prefix)
    attached = {"Bool": {"iot:Connection.Thing.IsAttached": ["true"]}}
    publish = [rule.topic for rule in rules if rule.right == "publish"]
    retain = [rule.topic for rule in rules if rule.retained]
    hear = [rule.topic for rule in rules if rule.right == "subscribe"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            _statement("iot:Connect", arn["client"], [DEVICE_NAME], attached),
            _statement("iot:Publish", arn["topic"], publish, attached),
            _statement("iot:RetainPublish", arn["topic"], retain, attached),
            _statement("iot:Subscribe", arn["topicfilter"], hear, attached),
            _statement("iot:Receive", arn["topic"], hear, attached),
        ],
    }


def _statement(action: str, before: Arn, names: list[str], condition: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": action,
        "Resource": [joined(before, name) for name in names],
        "Condition": condition,
    }


def joined(before: Arn, name: str) -> Arn:
    """An ARN of its beginning and its name; where the beginning is made by CloudFormation, so is the whole."""
    return before + name if isinstance(before, str) else {"Fn::Join": ["", [before, name]]}


def policy_arns(partition: str, region: str, account: str) -> dict[str, str]:
    """The beginnings of ARNs for `device_policy`, where all of it is known."""
    return {kind: f"arn:{partition}:iot:{region}:{account}:{kind}/" for kind in ("client", "topic", "topicfilter")}


def relay_publishes(prefix: str, arn: Arn) -> list[Arn]:
    """What the functions in AWS may publish to, as ARNs. A policy of IAM knows `*` alone."""
    topics = [rule.topic for rule in relay_rules(prefix) if rule.right == "publish"]
    return [joined(arn, topic.replace(ANY, "*")) for topic in topics]
