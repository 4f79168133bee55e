"""The way to a table on DynamoDB: a client, whether the table is fit for Fleet and Fleet's own, and one for emulators.

Nothing here changes a table that exists. `create_table` makes one on an emulator on this machine alone, and refuses
every other address. A table is Fleet's when it holds the marker item; `open_table` takes no other. Whatever is wrong is
an Unusable with its next step. Called by the relay's service, by commands and by tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError

from agent.protocol.onetable.attributes import AttributeMap, key_attributes
from cloud.dynamodb_errors import RAISED, Unusable, fault_of, unusable
from cloud.table import MARKER_KEY, PK, SK, Throttled, Unavailable

VIEW: Final = "NEW_AND_OLD_IMAGES"
_KEYS: Final = {PK: ("HASH", "S"), SK: ("RANGE", "S")}
_PROVISION_HINT: Final = "`fleet-cloud provision` makes a table that is right"


class Unreachable(Unusable):
    """Nobody answers there, or not now: it may be over by itself."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Of one call. A late answer is a lost one: `read_s` should exceed what the slowest transaction takes."""

    connect_s: float = 3.0
    read_s: float = 10.0


def connect(
    *,
    region: str | None = None,
    endpoint_url: str | None = None,
    profile: str | None = None,
    service: str = "dynamodb",
    timeouts: Timeouts | None = None,
    connections_max: int = 32,
    keys: tuple[str, str] | None = None,
) -> Any:
    """boto3's client of `service` (also `dynamodbstreams`), without retries of its own. Sends nothing.

    `keys`: the id of an access key and its secret. What is not given comes from the environment and the files that AWS
    tools share. Raises Unusable."""
    import boto3  # takes a third of a second, which no other command should wait for
    from botocore.config import Config

    timeouts = timeouts or Timeouts()
    # Botocore may put the account into the address, which leads away from the one that was given.
    own_address: dict[str, Any] = {"account_id_endpoint_mode": "disabled"} if endpoint_url else {}
    if endpoint_url and on_this_machine(endpoint_url):
        own_address["proxies"] = {}  # to a proxy, `127.0.0.1` would be the proxy's machine
    config = Config(
        connect_timeout=timeouts.connect_s,
        read_timeout=timeouts.read_s,
        retries={"total_max_attempts": 1},
        max_pool_connections=connections_max,
        **own_address,
    )
    given = {} if keys is None else {"aws_access_key_id": keys[0], "aws_secret_access_key": keys[1]}
    try:
        region = region or os.environ.get("AWS_REGION")  # as AWS's own tools do; boto3 alone does not
        session = boto3.session.Session(profile_name=profile, region_name=region)
        return session.client(service, endpoint_url=endpoint_url, config=config, **given)
    except (BotoCoreError, ValueError) as error:
        raise unusable(error) from None


def definition(name: str) -> dict[str, Any]:
    """A table as Fleet needs it, as parameters of CreateTable."""
    return {
        "TableName": name,
        "KeySchema": [{"AttributeName": key, "KeyType": kind} for key, (kind, _) in _KEYS.items()],
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind} for key, (_, kind) in _KEYS.items()],
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": {"StreamEnabled": True, "StreamViewType": VIEW},
    }


def marker() -> AttributeMap:
    """The item that says that a table is Fleet's."""
    return {**key_attributes(MARKER_KEY), "_type": {"S": "_FleetTable"}}


def open_table(client: Any, name: str, ttl_attribute: str | None = None) -> str:
    """The name (ARN) of the stream of a table that is fit and Fleet's own. Reads only. Raises Unusable.

    `ttl_attribute`: where its time to live must be; None: anywhere."""
    stream, _ = our_table(client, name)
    check_ttl(client, name, ttl_attribute)
    return stream


def our_table(client: Any, name: str) -> tuple[str, AttributeMap]:
    """The stream's name (ARN) and the marker, whatever becomes of the time to live. Reads only. Raises Unusable."""
    description = asked(client, name, lambda: client.describe_table(TableName=name))["Table"]
    stream = check_description(description, place_of(client, name))
    answer = asked(
        client,
        name,
        lambda: client.get_item(TableName=name, Key=key_attributes(MARKER_KEY), ConsistentRead=True),
    )
    if "Item" not in answer:
        raise Unusable(
            f"{place_of(client, name)} is not Fleet's: it has no marker item",
            "Nothing was changed. Give the name of a table made for Fleet; " + _PROVISION_HINT,
        )
    return stream, answer["Item"]


def ttl_of(client: Any, name: str) -> tuple[str, str]:
    """A table's time to live: its status by the service's name (`DISABLED`), and the attribute. Raises Unusable."""
    told = asked(client, name, lambda: client.describe_time_to_live(TableName=name))["TimeToLiveDescription"]
    return str(told.get("TimeToLiveStatus", "DISABLED")), str(told.get("AttributeName", ""))


def check_ttl(client: Any, name: str, ttl_attribute: str | None) -> None:
    """Whether a table's time to live is on, and in the right attribute: without it the feeds' rows would stay for ever.
    Raises Unusable."""
    status, attribute = ttl_of(client, name)
    if status not in ("ENABLED", "ENABLING"):
        raise Unusable(
            f"The time to live of {place_of(client, name)} is {status}",
            "`fleet-cloud provision` shows what the table lacks, and with --yes switches it on (an hour after it was "
            "switched off, at the earliest)",
        )
    if ttl_attribute not in (None, attribute):
        raise Unusable(
            f"{place_of(client, name)} has its time to live in {attribute!r}, and Fleet is to keep it in "
            f"{ttl_attribute!r}",
            "A table has one attribute for it: map the schema's fields to it, set the relay's ttl_attribute, or give "
            "another table",
        )


def check_description(description: Mapping[str, Any], place: str) -> str:
    """Whether a table is fit, as DescribeTable tells it: its state, keys and stream. Gives the stream's name (ARN).

    `place` is what messages call the table. Raises Unusable."""
    check_keys(description, place)
    stream = description.get("StreamSpecification", {})
    arn = description.get("LatestStreamArn")
    if not stream.get("StreamEnabled") or not arn:
        raise Unusable(f"{place} has no stream", f"Switch its stream on, with view type {VIEW}")
    if stream.get("StreamViewType") != VIEW:
        raise Unusable(
            f"The stream of {place} shows {stream.get('StreamViewType')}, and Fleet needs {VIEW}",
            "Switch the stream off, and on again with that view type",
        )
    return str(arn)


def check_keys(description: Mapping[str, Any], place: str) -> None:
    """Whether a table is there to be used, and has Fleet's keys. Raises Unusable."""
    status = description.get("TableStatus", "ACTIVE")
    if status not in ("ACTIVE", "UPDATING"):
        raise Unusable(f"{place} is {status}", "Wait until it is ACTIVE, and try again")
    types = {each["AttributeName"]: each["AttributeType"] for each in description["AttributeDefinitions"]}
    keys = {each["AttributeName"]: (each["KeyType"], types[each["AttributeName"]]) for each in description["KeySchema"]}
    if keys != _KEYS:
        raise Unusable(
            f"The keys of {place} are {_keys_text(keys)}, and Fleet needs {_keys_text(_KEYS)}",
            "The keys of a table cannot be changed: give another table. " + _PROVISION_HINT,
        )


def create_table(client: Any, name: str, ttl_attribute: str | None = "ttl") -> str:
    """Makes a table on an emulator on this machine, with its marker; the ARN of its stream. Raises Unusable.

    A table of that name that exists is left as it is, and refused. `ttl_attribute` None: its time to live stays off."""
    address = str(client.meta.endpoint_url)
    if not on_this_machine(address):
        raise Unusable(
            f"{address} is no emulator on this machine, and only there tables are made without asking",
            "Use `fleet-cloud provision`, which shows what it does, and changes no table unasked",
        )
    answer = asked(client, name, lambda: client.create_table(**definition(name)))
    if ttl_attribute is not None:
        wanted = {"Enabled": True, "AttributeName": ttl_attribute}
        asked(client, name, lambda: client.update_time_to_live(TableName=name, TimeToLiveSpecification=wanted))
    asked(client, name, lambda: client.put_item(TableName=name, Item=marker()))
    return str(answer["TableDescription"]["LatestStreamArn"])


def on_this_machine(address: str) -> bool:
    """Whether a URL leads to this machine itself, so that nobody else's table can be behind it."""
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def place_of(client: Any, name: str) -> str:
    """What messages call a table."""
    return f"table {name!r} in {client.meta.region_name} at {client.meta.endpoint_url}"


def _keys_text(keys: Mapping[str, tuple[str, str]]) -> str:
    return " and ".join(f"{name} ({kind}, {type_})" for name, (kind, type_) in keys.items())


def asked(client: Any, name: str, call: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The answer; every error as an Unusable that names the table and its place."""
    try:
        return call()
    except RAISED as error:
        response: Mapping[str, Any] = getattr(error, "response", None) or {}
        if response.get("Error", {}).get("Code") == "ResourceInUseException":
            raise Unusable(
                f"There is a {place_of(client, name)} already", "It was left as it is: give another name"
            ) from None
        found = fault_of(error).error
        if isinstance(found, Unusable):
            raise Unusable(f"{place_of(client, name)}: {found.problem}", found.hint) from None
        kind = Unreachable if isinstance(found, Unavailable | Throttled) else Unusable
        raise kind(
            f"{place_of(client, name)}: {found}",
            "Check the endpoint, the region and the network, and try again",
        ) from None
