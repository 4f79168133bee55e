"""From a model's nodes in a schema file to its fields and templates, with every mistake noted.

Never looks at more than one model and never decides about sync (agent.protocol.rules does). Called by
agent.protocol.loader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.protocol.errors import ModelError
from agent.protocol.fields import Field, iso_ms, store_ms, writer
from agent.protocol.inspector import Inspector, did_you_mean, kind_of
from agent.protocol.json5 import Node
from agent.protocol.model import HASH, PRIVATE_ATTRIBUTES, SORT
from agent.protocol.regex import PatternError, compile_pattern
from agent.protocol.template import IDS, Part, Template, TemplateError, Variable, parse

TYPES: Final = ("string", "number", "boolean", "date", "object", "array")
TYPES_LATER: Final = ("set", "buffer", "binary", "arraybuffer")
FIELD_KEYS: Final = (
    "type", "value", "required", "default", "generate", "enum", "validate", "map", "encode", "ttl", "isoDates", "nulls",
    "unique", "scope", "schema", "items", "partial", "hidden", "filter", "crypt", "fixed", "reference", "timestamp",
    "description",
)  # fmt: skip
_GENERATE = re.compile(r"ulid|uuid|uid|uid\(([1-9][0-9]?)\)")


@dataclass(frozen=True, slots=True)
class Params:
    """The schema's `params`, after defaults."""

    type_field: str = "_type"
    iso: bool = False
    nulls: bool = False
    partial: bool = False
    created_field: str | None = "created"  # None: not stamped
    updated_field: str | None = "updated"


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
    return _ModelReader(see, name, params).read(node)


class _ModelReader:
    __slots__ = ("key", "name", "nodes", "params", "parts_of", "see")

    def __init__(self, see: Inspector, name: str, params: Params) -> None:
        self.see = see
        self.name = name
        self.key = f"models.{name}"
        self.params = params
        self.nodes: dict[str, Node] = {}
        self.parts_of: dict[str, tuple[Part, ...]] = {}

    def read(self, node: Node) -> Parts:
        self.nodes = self.see.members(node, self.key)
        for part in (HASH, SORT):
            if part not in self.nodes and isinstance(node.value, dict):
                self.see.note(node, self.key, f"has no {part!r}", "each model needs both key fields", at_name=True)
        read = {
            name: field
            for name, member in self.nodes.items()
            if (field := self.field(name, member, name, top=True)) is not None
        }
        keys: dict[str, Field] = {name: read.pop(name) for name in (HASH, SORT) if name in read}
        self.check_keys(keys)
        self.check_type_field(read)
        created = self.stamp(read, self.params.created_field)
        updated = self.stamp(read, self.params.updated_field)
        known: dict[str, Field] = {**read, **keys}
        templates = {name: self.bind(name, known) for name in self.parts_of}
        fields = tuple(replace(field, template=templates.get(name)) for name, field in read.items())
        self.check_attributes((*fields, *(stamp for stamp in (created, updated) if stamp)))
        visible = tuple(part in keys and not keys[part].hidden for part in (HASH, SORT))
        return Parts(fields, templates.get(HASH), templates.get(SORT), created, updated, (visible[0], visible[1]))

    # --- one field

    def field(self, name: str, node: Node, path: str, *, top: bool) -> Field | None:
        """A field with its nested ones; None when it cannot be made."""
        see, key = self.see, f"{self.key}.{path}"
        if top and (not name or "." in name or name.startswith(PRIVATE_ATTRIBUTES)):
            hint = "a name has no '.', and does not begin with " + ", ".join(PRIVATE_ATTRIBUTES)
            see.note(node, key, f"{name!r} cannot be a field's name", hint, at_name=True)
        members = see.known_members(node, key, FIELD_KEYS)
        if not isinstance(node.value, dict):
            return None
        kind = self.type_of(members, node, key)
        self.refuse_later(members, key)
        if kind is None:
            return None
        value = self.template(name, members, key, kind, top)
        params = self.params
        ttl = see.flag(members, key, "ttl", False)
        if ttl and (kind != "date" or not top):
            see.note(members["ttl"], f"{key}.ttl", "only a date at the top of a model can be a ttl")
        iso = see.flag(members, key, "isoDates", params.iso)
        if params.iso and not iso:
            see.note(members["isoDates"], f"{key}.isoDates", "cannot be switched off: params.isoDates is on")
        fields, items = self.nested(members, key, path, kind)
        enum = self.enum(members, key, kind)
        validate = see.text(members, key, "validate", "")
        field = Field(
            model=self.name,
            name=name,
            path=path,
            attribute=self.attribute(name, members, key),
            type=kind,
            required=see.flag(members, key, "required", False),
            generate=self.generate(members, key, kind, top),
            enum=enum,
            validate=validate or None,
            pattern=self.pattern(members, key, kind, validate),
            hidden=see.flag(members, key, "hidden", value),
            iso=iso or params.iso,
            ttl=ttl,
            nulls=see.flag(members, key, "nulls", params.nulls),
            partial=see.flag(members, key, "partial", params.partial),
            items=items,
            fields=fields,
        )
        return self.with_default(field, members, key)

    def type_of(self, members: dict[str, Node], node: Node, key: str) -> str | None:
        given = members.get("type")
        if given is None:
            self.see.note(node, key, "has no 'type'", f"one of {', '.join(TYPES)}", at_name=True)
            return None
        kind = given.value.lower() if isinstance(given.value, str) else None
        if kind in TYPES:
            return str(kind)
        if kind in TYPES_LATER:
            self.see.note(given, f"{key}.type", f"the type {given.value!r} is not supported yet")
        elif kind is None:
            self.see.note(given, f"{key}.type", f"expected the name of a type, found {kind_of(given.value)}")
        else:
            hint = did_you_mean(given.value, TYPES)
            self.see.note(given, f"{key}.type", f"unknown type {given.value[:40]!r}", hint)
        return None

    def refuse_later(self, members: dict[str, Node], key: str) -> None:
        """What must not be passed over in silence."""
        see = self.see
        if see.flag(members, key, "crypt", False):
            hint = "the value would be stored in clear"
            see.note(members["crypt"], f"{key}.crypt", "encrypted fields are not supported", hint)
        if see.flag(members, key, "unique", False):
            see.note(members["unique"], f"{key}.unique", "unique fields are not supported yet")
        elif "scope" in members:
            see.note(members["scope"], f"{key}.scope", "goes with 'unique' only")
        if "encode" in members:
            node = members["encode"]
            if isinstance(node.value, str):
                hint = "write ['sk', '#', 1]: attribute, separator, number of the part"
                see.note(node, f"{key}.encode", "the short form counts variables, not parts: refused", hint)
            else:
                see.note(node, f"{key}.encode", "'encode' is not supported yet")

    def template(self, name: str, members: dict[str, Node], key: str, kind: str, top: bool) -> bool:
        """Whether the field has a template; its parts go to `parts_of`."""
        node = members.get("value")
        if node is None or node.value is False:
            return False
        path = f"{key}.value"
        if not isinstance(node.value, str):
            self.see.note(node, path, f"expected a template, found {kind_of(node.value)}")
        elif not top:
            self.see.note(node, path, "a template in a nested field is not supported yet")
        elif kind != "string":
            self.see.note(node, path, f"a template gives a string; the type is {kind!r}")
        elif node.value:
            try:
                self.parts_of[name] = parse(node.value)
            except TemplateError as error:
                self.see.note(node, path, str(error), "variables look like ${name}, ${name.part} or ${name:6:0}")
        else:
            self.see.note(node, path, "is empty")
        return True

    def attribute(self, name: str, members: dict[str, Node], key: str) -> str:
        attribute = self.see.text(members, key, "map", name)
        node = members.get("map")
        if node is None:
            return attribute
        if "." in attribute:
            self.see.note(node, f"{key}.map", "several fields in one attribute are not supported yet")
        elif attribute in (HASH, SORT) and attribute != name:
            self.see.note(node, f"{key}.map", f"{attribute!r} is a key: give it a template instead")
        elif name in (HASH, SORT) and attribute != name:
            self.see.note(node, f"{key}.map", "a key keeps its name")
        elif attribute.startswith(PRIVATE_ATTRIBUTES):
            self.see.note(node, f"{key}.map", f"{attribute!r} is a name of Fleet's own")
        return attribute

    def enum(self, members: dict[str, Node], key: str, kind: str) -> tuple[Any, ...]:
        node = members.get("enum")
        if node is None:
            return ()
        path = f"{key}.enum"
        if kind not in ("string", "number"):
            self.see.note(node, path, f"goes with strings and numbers; the type is {kind!r}")
            return ()
        if not isinstance(node.value, list) or not node.value:
            self.see.note(node, path, f"expected a list of values, found {kind_of(node.value)}")
            return ()
        wanted: tuple[type, ...] = (str,) if kind == "string" else (int, float)
        for item in node.value:
            if not isinstance(item.value, wanted) or isinstance(item.value, bool):
                self.see.note(item, path, f"expected a {kind}, found {kind_of(item.value)}")
        return tuple(item.value for item in node.value if isinstance(item.value, wanted))

    def pattern(self, members: dict[str, Node], key: str, kind: str, text: str) -> re.Pattern[str] | None:
        if not text:
            return None
        node = members["validate"]
        if kind != "string":
            self.see.note(node, f"{key}.validate", f"goes with strings; the type is {kind!r}")
            return None
        try:
            return compile_pattern(text)
        except PatternError as error:
            self.see.note(node, f"{key}.validate", f"no regular expression: {error}")
            return None

    def generate(self, members: dict[str, Node], key: str, kind: str, top: bool) -> str | None:
        node = members.get("generate")
        if node is None or node.value is False:
            return None
        path = f"{key}.generate"
        value = node.value
        if not isinstance(value, str) or not _GENERATE.fullmatch(value):
            hint = did_you_mean(value, ("ulid", "uuid", "uid")) if isinstance(value, str) else ""
            self.see.note(node, path, "expected ulid, uuid, uid or uid(N) with N from 1 to 99", hint)
        elif kind != "string":
            self.see.note(node, path, f"gives a string; the type is {kind!r}")
        elif not top:
            self.see.note(node, path, "in a nested field it is not supported yet")
        else:
            return value
        return None

    def nested(
        self, members: dict[str, Node], key: str, path: str, kind: str
    ) -> tuple[tuple[Field, ...] | None, Field | None]:
        """The fields of an object with a schema, the element of an array with items."""
        fields: tuple[Field, ...] | None = None
        items: Field | None = None
        if "schema" in members:
            if kind != "object":
                self.see.note(members["schema"], f"{key}.schema", f"goes with objects; the type is {kind!r}")
            made = [
                self.field(name, node, f"{path}.{name}", top=False)
                for name, node in self.see.members(members["schema"], f"{key}.schema").items()
            ]
            fields = tuple(field for field in made if field is not None)
            self.check_attributes(fields, path)
        if "items" in members:
            if kind != "array":
                self.see.note(members["items"], f"{key}.items", f"goes with arrays; the type is {kind!r}")
            items = self.field("items", members["items"], f"{path}.items", top=False)
        return fields, items

    def with_default(self, field: Field, members: dict[str, Node], key: str) -> Field:
        node = members.get("default")
        if node is None or node.value is None:
            return field
        value = node.plain()
        try:
            if field.type == "date":
                stamp = iso_ms(value) if isinstance(value, str) else value
                if not isinstance(stamp, int) or isinstance(stamp, bool) or abs(stamp) > 2**53:
                    field.refuse("type", "expected milliseconds or a text as 2026-01-02T03:04:05.678Z")
                return replace(field, default=store_ms(stamp, iso=field.iso, ttl=field.ttl))
            return replace(field, default=writer(field, True)(value))
        except (ModelError, OverflowError) as error:
            text = str(error).removeprefix(f"{self.name}.{field.path}: ")
            self.see.note(node, f"{key}.default", f"does not fit the field: {text}")
            return field

    # --- the model as a whole

    def check_keys(self, keys: dict[str, Field]) -> None:
        for name, field in keys.items():
            node, key = self.nodes[name], f"{self.key}.{name}"
            if field.type != "string":
                self.see.note(node, key, f"a key is a string; the type is {field.type!r}")
            for other in ("default", "generate", "enum", "validate"):
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
        if field.type != "date" or field.ttl or name in self.parts_of:
            self.parts_of.pop(name, None)
            self.see.note(self.nodes[name], f"{self.key}.{name}", "is stamped by the library: its type is 'date'")
        # A stamp is there on every write: what else the schema says of it cannot matter.
        return replace(field, type="date", ttl=False, required=False, default=None)

    def check_attributes(self, fields: Iterable[Field], path: str = "") -> None:
        holders: dict[str, Field] = {}
        for field in fields:
            first = holders.setdefault(field.attribute, field)
            taken = not path and field.attribute in (self.params.type_field, HASH, SORT)
            if first is not field or taken:
                other = f"the field {first.name!r}" if not taken else "the library"
                message = f"its attribute {field.attribute!r} belongs to {other} already"
                node = self.nodes.get(field.path.partition(".")[0])
                if node is not None:
                    self.see.note(node, f"{self.key}.{field.path}", message)

    def bind(self, name: str, known: dict[str, Field]) -> Template | None:
        """The template with its variables bound to attributes, other templates put in where it uses them."""
        parts = self.expand(name, name, known, ())
        if parts is None:
            return None
        node = self.nodes[name].value["value"]
        return Template(node.value, parts)

    def expand(self, name: str, root: str, known: dict[str, Field], inside: tuple[str, ...]) -> tuple[Part, ...] | None:
        node = self.nodes[root].value["value"]
        key = f"{self.key}.{root}.value"
        out: list[Part] = []
        for part in self.parts_of[name]:
            if isinstance(part, str):
                out.append(part)
                continue
            if part.name in self.parts_of and not part.path and not part.pad_size:
                if part.name in (*inside, name):
                    self.see.note(node, key, f"'${{{part.name}}}' goes round in a circle")
                    return None
                deeper = self.expand(part.name, root, known, (*inside, name))
                if deeper is None:
                    return None
                out.extend(deeper)
                continue
            bound = self.bound(part, known, node, key)
            if bound is None:
                return None
            out.append(bound)
        return tuple(out)

    def bound(self, part: Variable, known: dict[str, Field], node: Node, key: str) -> Variable | None:
        field = known.get(part.name)
        stamps = (self.params.created_field, self.params.updated_field)
        if field is None or part.name in stamps:
            if part.name in IDS and not part.path:
                return part  # from the context alone: a model need not have a field for it
            if part.name in stamps or part.name in (HASH, SORT):
                self.see.note(node, key, f"'${{{part.name}}}' cannot be used in a template")
            else:
                names = [name for name in (*known, *IDS) if name not in (HASH, SORT)]
                hint = did_you_mean(part.name, names)
                self.see.note(node, key, f"'${{{part.name}}}' is no field of {self.name}", hint)
            return None
        if (field.type in ("object", "array")) != bool(part.path) or field.type == "array":
            need = "needs a path into it" if field.type == "object" else f"cannot be used: its type is {field.type!r}"
            self.see.note(node, key, f"'${{{'.'.join((part.name, *part.path))}}}' {need}")
            return None
        attributes: list[str] = []
        here: Field | None = field
        for step in part.path:
            sub = next((f for f in here.fields or () if f.name == step), None) if here else None
            if here is not None and here.fields is not None and sub is None:
                hint = did_you_mean(step, [f.name for f in here.fields])
                self.see.note(node, key, f"{here.path!r} has no field {step!r}", hint)
                return None
            attributes.append(sub.attribute if sub else step)
            here = sub
        return replace(part, attribute=field.attribute, path=tuple(attributes))
