"""Indexes of the table: which attributes they sort items by, and where an item stands in each.

An index is sparse: an item without the index's attributes is not in it. Does no I/O. Read by
agent.protocol.onetable.loader; the keys are computed for the database by agent.protocol.onetable.model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.protocol.keys import HASH, HASH_BYTES_MAX, SORT, SORT_BYTES_MAX
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.inspector import Inspector
from agent.protocol.onetable.json5 import Node
from agent.protocol.onetable.template import Template

PRIMARY: Final = "primary"
INDEX_KEYS: Final = ("hash", "sort", "project", "type", "description", "follow")
Scalar = int | float | str
IndexKey = tuple[Scalar, Scalar | None]  # None: the index has no sort key


@dataclass(frozen=True, slots=True)
class Index:
    """`project`: `all`, `keys`, or the attributes that the index holds besides the keys. `hash`, `sort`: attributes."""

    name: str
    hash: str
    sort: str | None
    project: str | tuple[str, ...] = "all"
    local: bool = False

    def key(self, key: Key, image: Image) -> IndexKey | None:
        """Where an item stands; None: not in this index."""
        hash_value = _scalar(self.hash, key, image)
        sort_value = None if self.sort is None else _scalar(self.sort, key, image)
        if hash_value is None or (self.sort is not None and sort_value is None):
            return None
        return hash_value, sort_value

    def search(
        self, templates: Mapping[str, Template | None], scope: Mapping[str, Any]
    ) -> tuple[Scalar, Scalar | None] | None:
        """Where items with the values of `scope` (attribute -> stored form) are: the hash key, and the sort key or what
        its template gives up to the first variable that is missing. None when the hash key cannot be told."""
        hash_value, template = scope.get(self.hash), templates.get(self.hash)
        if hash_value is None and template is not None:
            hash_value = template.render(scope)
        if hash_value is None or hash_value == "":
            return None
        if self.sort is None:
            return hash_value, None
        sort_value, template = scope.get(self.sort), templates.get(self.sort)
        if sort_value is None and template is not None:
            sort_value = template.begin(scope) or None
        return hash_value, sort_value


def _scalar(attribute: str, key: Key, image: Image) -> Scalar | None:
    """What can be a key: a text that is not empty, or a number."""
    if attribute in (HASH, SORT):
        return key[attribute == SORT]
    value: Any = image.get(attribute)
    if value.__class__ in (str, int, float) and value != "":
        scalar: Scalar = value
        return scalar
    return None


def key_limits(indexes: Iterable[Index]) -> dict[str, int]:
    """Attribute -> how many bytes of text the table takes in it, for the attributes of the secondary indexes."""
    limits: dict[str, int] = {}
    for index in indexes:
        for attribute, limit in ((index.hash, HASH_BYTES_MAX), (index.sort, SORT_BYTES_MAX)):
            if attribute is not None and attribute not in (HASH, SORT):
                limits[attribute] = min(limit, limits.get(attribute, limit))
    return limits


def read_indexes(see: Inspector, node: Node | None) -> tuple[Index, ...]:
    """The secondary indexes of a schema; what is wrong with any index is noted."""
    if node is None:
        return ()
    named = see.members(node, "indexes")
    if PRIMARY not in named and isinstance(node.value, dict):
        see.note(node, "indexes", "has no 'primary'", "primary: {hash: 'pk', sort: 'sk'}")
    read = [_read_index(see, name, member) for name, member in named.items()]
    return tuple(index for index in read if index is not None and index.name != PRIMARY)


def _read_index(see: Inspector, name: str, node: Node) -> Index | None:
    key = f"indexes.{name}"
    members = see.known_members(node, key, INDEX_KEYS)
    if not isinstance(node.value, dict):
        return None
    hash_name = see.text(members, key, "hash", "")
    sort_name = see.text(members, key, "sort", "")
    local = see.choice(members, key, "type", ("local", "global"), "global") == "local"
    project = _read_project(see, members, key)
    if name == PRIMARY:
        for part, wanted in (("hash", HASH), ("sort", SORT)):
            if part not in members:
                see.note(node, key, f"has no {part!r}", f"{part}: {wanted!r}", at_name=True)
            elif members[part].value != wanted:
                message = "other names of the key attributes are not supported"
                see.note(members[part], f"{key}.{part}", message, f"write {wanted!r}")
    elif local:
        if "hash" in members and hash_name != HASH:
            see.note(members["hash"], f"{key}.hash", "a local index has the table's own hash key", f"write {HASH!r}")
        if "sort" not in members:
            see.note(node, key, "has no 'sort'", "a local index is another order of the same hash key", at_name=True)
        hash_name = HASH
    elif "hash" not in members:
        see.note(node, key, "has no 'hash'", "local indexes have type: 'local'", at_name=True)
    if name != PRIMARY and hash_name and hash_name == sort_name:
        see.note(members["sort"], f"{key}.sort", "hash and sort are the same attribute")
    return Index(name, hash_name, sort_name or None, project, local)


def _read_project(see: Inspector, members: Mapping[str, Node], key: str) -> str | tuple[str, ...]:
    node = members.get("project")
    if node is None or not isinstance(node.value, list):
        return see.choice(dict(members), key, "project", ("all", "keys"), "all")
    for item in node.value:
        if not isinstance(item.value, str) or not item.value:
            see.note(item, f"{key}.project", "expected the name of an attribute")
    return tuple(item.value for item in node.value if isinstance(item.value, str))
