"""Finds and opens the table and the schema that a command works on.

Takes no table that is not Fleet's own (cloud.dynamodb_table.open_table). Called by the commands that have one.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.protocol import new_ids
from agent.protocol.commands.failure import CommandError
from agent.protocol.commands.typed import checked_id
from agent.protocol.process import Context
from agent.protocol.schema import Schema
from cloud import system
from cloud.commands.grammar import TABLE
from cloud.config import RelayConfig
from cloud.dynamodb import DynamoTable
from cloud.dynamodb_table import connect, open_table
from cloud.items import Items
from cloud.relay import Relay
from cloud.table import Publish
from cloud.table_definition import ttl_attribute as ttl_attribute_of

SCHEMA: Final = "schema.json5"


@dataclass(frozen=True, slots=True)
class Opened:
    """A table of Fleet's own."""

    client: Any
    table: DynamoTable

    def items(self) -> Items:
        return Items(
            self.client,
            self.table,
            clock_ms=system.wall_ms,
            new_id=new_id(),
            wait=system.pause,
            chance=system.chance,
        )


def client_of(arguments: argparse.Namespace, service: str = "dynamodb") -> Any:
    """Sends nothing. Raises Unusable."""
    endpoint_url = arguments.endpoint_url or os.environ.get("FLEET_ENDPOINT_URL") or None
    return connect(region=arguments.region, endpoint_url=endpoint_url, profile=arguments.profile, service=service)


def table_name(arguments: argparse.Namespace) -> str:
    return arguments.table or os.environ.get("FLEET_TABLE") or TABLE


def opened(arguments: argparse.Namespace, ttl_attribute: str | None = None) -> Opened:
    """`ttl_attribute`: where what the command works on has its time to live. Raises Unusable for a table that is not
    fit, or not Fleet's."""
    client, name = client_of(arguments), table_name(arguments)
    open_table(client, name, ttl_attribute)
    table = DynamoTable(client, name, wait=system.pause, chance=system.chance, token=system.token)
    return Opened(client, table)


def schema_of(arguments: argparse.Namespace) -> Schema:
    """Raises InputError with every mistake, or CommandError when there is none."""
    schema = schema_if_any(arguments)
    if schema is None:
        raise CommandError(f"{SCHEMA}: no such schema", "name it with --schema or $FLEET_SCHEMA")
    return schema


def schema_if_any(arguments: argparse.Namespace) -> Schema | None:
    """The same; None when none is named and none is here."""
    named = arguments.schema or os.environ.get("FLEET_SCHEMA")
    if named:
        return Schema.load(named)
    return Schema.load(SCHEMA) if Path(SCHEMA).exists() else None


def logic(schema: Schema, config: RelayConfig | None = None) -> Relay:
    """The relay's logic, for a command that does a part of its work. `config`: the numbers of the relay's processes;
    None: the defaults."""
    config = config or RelayConfig(ttl_attribute=ttl_attribute_of(schema))
    try:
        return Relay(schema, config, system.wall_ms, system.random_hex, Counter(), lambda device: None)
    except ValueError as error:  # the schema's ttl is not the table's
        raise CommandError(str(error), "set relay.ttl_attribute in the file of --config") from None


def unheard(message: Publish) -> None:
    """There is no broker here: a device misses the push, and asks for the row when the next one comes, or soon."""


def context_of(arguments: argparse.Namespace) -> Context:
    return Context(checked_id(arguments.device, "device"), checked_id(arguments.account, "account"))


def new_id() -> Callable[[str], str]:
    return new_ids.generator(system.random_bytes, system.wall_ms, _ulid)


def _ulid(data: bytes) -> str:
    from ulid import ULID  # here: most commands make none

    return str(ULID.from_bytes(data))
