"""`acl`: what a broker must allow, as mosquitto's file or as AWS IoT's policy. Called by cloud.cli."""

from __future__ import annotations

import argparse
import json

from agent.protocol.commands.failure import OK, CommandError
from agent.protocol.commands.typed import checked_id
from cloud.access import device_policy, mosquitto_acl, policy_arns


def acl(arguments: argparse.Namespace) -> int:
    prefix = arguments.topic_prefix
    if arguments.iot_policy:
        print(json.dumps(device_policy(prefix, policy_arns("aws", "*", "*")), indent=2))
        return OK
    if arguments.pairs:
        devices = dict(map(_pair, arguments.pairs))
    else:
        from cloud.commands.devices import registered  # here: needs boto3, and the rest does not
        from cloud.commands.opening import opened

        devices = {name: item["account"] for name, item in registered(opened(arguments).table).items()}
    try:
        print(mosquitto_acl(devices, arguments.relay, prefix), end="")
    except ValueError as error:
        raise CommandError(str(error), "1 to 128 letters, digits and :_.- , and not a device's name") from None
    return OK


def _pair(text: str) -> tuple[str, str]:
    device, equals, account = text.partition("=")
    if not equals or not device or not account:
        raise CommandError(f"{text!r}: expected DEVICE=ACCOUNT")
    return checked_id(device, "device"), checked_id(account, "account")
