"""What a schema asks of its table: secondary indexes and the attribute of the time to live, in DynamoDB's words.

Pure. Called by cloud.provision and by cloud.template, so that both make the same table.
"""

from __future__ import annotations

from typing import Any, Final

from agent.protocol.onetable.fields import Field
from agent.protocol.onetable.indexes import Index
from agent.protocol.schema import Schema
from cloud.config import RelayConfig
from cloud.dynamodb_table import definition
from cloud.table import PK, SK

TTL: Final = RelayConfig.__dataclass_fields__["ttl_attribute"].default


def ttl_attribute(schema: Schema | None) -> str:
    """The table has one; the relay's own rows share it with the schema's items, which have one at most."""
    models = () if schema is None else schema.models.values()
    return next((model.ttl_attribute for model in models if model.in_cloud and model.ttl_attribute), str(TTL))


def whole(name: str, schema: Schema | None) -> dict[str, Any]:
    """Parameters of CreateTable: `cloud.dynamodb_table.definition`, and the schema's secondary indexes."""
    made = definition(name)
    if schema is None:
        return made
    for index in schema.indexes.values():
        made.setdefault("LocalSecondaryIndexes" if index.local else "GlobalSecondaryIndexes", []).append(
            described(index)
        )
    names = {name for index in schema.indexes.values() for name in key_names(index)} - {PK, SK}
    made["AttributeDefinitions"] += [attribute_definition(schema, name) for name in sorted(names)]
    return made


def key_names(index: Index) -> tuple[str, ...]:
    return (index.hash,) if index.sort is None else (index.hash, index.sort)


def described(index: Index) -> dict[str, Any]:
    """An index as the service takes it and tells it."""
    keys = [{"AttributeName": index.hash, "KeyType": "HASH"}]
    if index.sort is not None:
        keys.append({"AttributeName": index.sort, "KeyType": "RANGE"})
    projection: dict[str, Any] = {"ProjectionType": "KEYS_ONLY" if index.project == "keys" else "ALL"}
    if isinstance(index.project, tuple):
        projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(index.project)}
    return {"IndexName": index.name, "KeySchema": keys, "Projection": projection}


def attribute_definition(schema: Schema, name: str) -> dict[str, str]:
    """A number where every model that has the attribute stores a number in it; else a text."""
    fields = [field for model in schema.models.values() for field in model.fields.values() if field.attribute == name]
    numbers = bool(fields) and all(_is_number(field) for field in fields)
    return {"AttributeName": name, "AttributeType": "N" if numbers else "S"}


def _is_number(field: Field) -> bool:
    return field.type == "number" or (field.type == "date" and (field.ttl or not field.iso))
