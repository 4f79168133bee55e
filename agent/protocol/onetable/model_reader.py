"""From a model's nodes in a schema file to its fields and templates, with every mistake noted.

Never looks at more than one model and never decides about sync (agent.protocol.onetable.rules does). Called by
agent.protocol.onetable.loader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from agent.protocol.keys import HASH, SORT
from agent.protocol.onetable.binding import Binder
from agent.protocol.onetable.field_reader import FieldReader, Params
from agent.protocol.onetable.fields import Encode, Field
from agent.protocol.onetable.inspector import Inspector, did_you_mean
from agent.protocol.onetable.json5 import Node
from agent.protocol.onetable.layout import place_shown
from agent.protocol.onetable.template import Template, Variable

__all__ = ["Params", "Parts", "read_model"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a model's nodes say."""

    fields: tuple[Field, ...]
    hash_template: Template | None
    sort_template: Template | None
    created: Field | None
    updated: Field | None
    visible_keys: tuple[bool, bool]


def read_model(see: Inspector, name: str, node: Node, params: Params) -> Parts:
    """Never raises; what is wrong is noted, and left out of the result."""
    return _ModelReader(FieldReader(see, name, params)).read(node)


class _ModelReader:
    __slots__ = ("key", "name", "nodes", "params", "reader", "see")

    def __init__(self, reader: FieldReader) -> None:
        self.reader = reader
        self.see, self.name, self.key, self.params = reader.see, reader.name, reader.key, reader.params
        self.nodes: dict[str, Node] = {}

    def read(self, node: Node) -> Parts:
        params = self.params
        self.nodes = self.see.members(node, self.key)
        for part in (HASH, SORT):
            if part not in self.nodes and isinstance(node.value, dict):
                self.see.note(node, self.key, f"has no {part!r}", "each model needs both key fields", at_name=True)
        read = {
            name: field for name, member in self.nodes.items() if (field := self.reader.top(name, member)) is not None
        }
        keys: dict[str, Field] = {name: read.pop(name) for name in (HASH, SORT) if name in read}
        self.check_keys(keys)
        self.check_type_field(read)
        created = self.stamp(read, params.created_field)
        updated = self.stamp(read, params.updated_field)
        stamps = {field.name: field for field in (created, updated) if field is not None}
        known: dict[str, Field] = {**read, **keys, **stamps}
        binder = Binder(
            self.see, self.name, self.key, self.nodes, known, self.reader.parts_of, top=True, stamps=tuple(stamps)
        )
        hash_template, sort_template = binder.template(HASH), binder.template(SORT)
        bound = [self.with_scope(binder, binder.with_template(field)) for field in read.values()]
        templates = {HASH: hash_template, SORT: sort_template, **{field.name: field.template for field in bound}}
        fields = tuple(self.with_encode(field, known, templates) for field in bound)
        self.check_attributes((*fields, *stamps.values()))
        self.check_stamped(fields, updated)
        visible = tuple(part in keys and not keys[part].hidden for part in (HASH, SORT))
        return Parts(fields, hash_template, sort_template, created, updated, (visible[0], visible[1]))

    def with_scope(self, binder: Binder, field: Field) -> Field:
        parts = self.reader.scopes.get(field.name)
        return field if parts is None else replace(field, scope=binder.scope(field.name, parts))

    # --- the model as a whole

    def check_keys(self, keys: dict[str, Field]) -> None:
        for name, field in keys.items():
            node, key = self.nodes[name], f"{self.key}.{name}"
            if field.type != "string":
                self.see.note(node, key, f"a key is a string; the type is {field.type!r}")
            for other in ("default", "generate", "enum", "validate", "encode"):
                if other in node.value:
                    hint = "put it on a field that the template uses"
                    self.see.note(node.value[other], f"{key}.{other}", "does not go on a key", hint)

    def check_type_field(self, read: dict[str, Field]) -> None:
        """A schema may list the type field; its value is the model's name whatever it says."""
        field = read.pop(self.params.type_field, None)
        if field is not None and (field.type != "string" or field.attribute != self.params.type_field):
            node = self.nodes[self.params.type_field]
            self.see.note(node, f"{self.key}.{field.name}", "holds the model's name: a string under this very name")

    def stamp(self, read: dict[str, Field], name: str | None) -> Field | None:
        """The field of a time stamp, listed in the model or not."""
        if name is None:
            return None
        field = read.pop(name, None)
        if field is None:
            return Field(self.name, name, name, name, "date", iso=self.params.iso)
        if field.type != "date" or field.ttl or name in self.reader.parts_of or field.packed or field.unique:
            self.reader.parts_of.pop(name, None)
            message = "is stamped by the library: its type is 'date', with an attribute of its own"
            self.see.note(self.nodes[name], f"{self.key}.{name}", message)
        # A stamp is there on every write: what else the schema says of it cannot matter.
        return replace(field, type="date", ttl=False, required=False, default=None, packed=None, unique=False)

    def check_attributes(self, fields: Iterable[Field]) -> None:
        """No two fields may share a place, no field the library's, and none the attribute that others are packed in."""
        holders: dict[str, Field] = {}
        packs: dict[str, Field] = {}
        listed = tuple(fields)
        for field in listed:
            if field.packed is not None:
                packs.setdefault(field.packed[0], field)
        for field in listed:
            first = holders.setdefault(field.attribute, field)
            attribute = field.packed[0] if field.packed else field.attribute
            other = ""
            if attribute in (self.params.type_field, HASH, SORT):
                other = "the library"
            elif first is not field:
                other = f"the field {first.name!r}"
            elif field.packed is None and attribute in packs:
                other = f"the field {packs[attribute].name!r}, which is packed in it,"
            node = self.nodes.get(field.name)
            if other and node is not None:
                shown = place_shown(field.attribute)
                self.see.note(node, f"{self.key}.{field.name}", f"its attribute {shown!r} belongs to {other} already")

    def check_stamped(self, fields: tuple[Field, ...], updated: Field | None) -> None:
        """A template with the updated stamp is made again whenever that is set, also where the key is not at hand."""
        encoded = [field.name for field in fields if field.encode is not None]
        for field in fields:
            names = [variable.name for variable in field.template.variables] if field.template else []
            both = [name for name in names if name in encoded]
            if both and updated is not None and updated.name in names:
                message = f"'${{{updated.name}}}' and '${{{both[0]}}}', which is encoded, cannot be in one template"
                self.see.note(self.nodes[field.name].value["value"], f"{self.key}.{field.name}.value", message)

    # --- encoded fields

    def with_encode(self, field: Field, known: dict[str, Field], templates: dict[str, Template | None]) -> Field:
        """The encode with its source's place instead of its name."""
        encode = field.encode
        if encode is None:
            return field
        node = self.nodes[field.name].value["encode"]
        key = f"{self.key}.{field.name}.encode"
        at = node.value[0]
        source = known.get(encode.attribute) or next(
            (other for other in known.values() if other.attribute == encode.attribute), None
        )
        if source is None or source.encode is not None or source.type != "string":
            names = [name for name, other in known.items() if other.type == "string" and other.encode is None]
            hint = did_you_mean(encode.attribute, names) if source is None else ""
            self.see.note(at, key, f"{encode.attribute!r} is no field that holds a text", hint)
            return field
        template = templates.get(source.name)
        if template is not None:
            self.check_part(field, encode, template, node, key)
        return replace(field, encode=replace(encode, attribute=source.attribute))

    def check_part(self, field: Field, encode: Encode, template: Template, node: Node, key: str) -> None:
        """Whether that part of what the template gives is this very field."""
        place = next(
            (i for i, part in enumerate(template.parts) if isinstance(part, Variable) and part.name == field.name), None
        )
        if place is None:
            self.see.note(node.value[0], key, f"{template.text!r} does not use '${{{field.name}}}'")
            return
        before, after = template.parts[:place], template.parts[place + 1 :]
        literals = [part.split(encode.separator) for part in before if isinstance(part, str)]
        left, right = before[-1] if before else None, after[0] if after else None
        open_left = left is not None and not (isinstance(left, str) and left.endswith(encode.separator))
        open_right = right is not None and not (isinstance(right, str) and right.startswith(encode.separator))
        if open_left or open_right:
            message = f"{template.text!r}: no {encode.separator!r} parts '${{{field.name}}}' from what is beside it"
            self.see.note(node.value[1], key, message)
            return
        index = sum(len(pieces) - 1 for pieces in literals)
        if index != encode.index:
            message = f"part {encode.index} of {template.text!r} is not '${{{field.name}}}'"
            hint = f"['{encode.attribute}', '{encode.separator}', {index}]"
            self.see.note(node.value[2], key, message, hint)
