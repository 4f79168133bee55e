"""From the node of one field in a schema file to a Field, with every mistake noted.

Never looks at another field but those nested in it. Called by agent.protocol.onetable.model_reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agent.protocol.errors import ModelError
from agent.protocol.keys import HASH, PRIVATE_ATTRIBUTES, SORT
from agent.protocol.onetable.binding import Binder
from agent.protocol.onetable.dates import MS_MAX, iso_ms, store_ms
from agent.protocol.onetable.fields import BUFFERS, Encode, Field
from agent.protocol.onetable.inspector import Inspector, did_you_mean, kind_of
from agent.protocol.onetable.json5 import Node
from agent.protocol.onetable.layout import place_of
from agent.protocol.onetable.regex import PatternError, compile_pattern
from agent.protocol.onetable.template import Part, TemplateError, parse
from agent.protocol.onetable.values import base64_bytes, looks_tagged
from agent.protocol.onetable.writing import writer

TYPES: Final = ("string", "number", "boolean", "date", "object", "array", "set", *BUFFERS)
INDEXED: Final = ("string", "number", "date", *BUFFERS)
UNIQUE: Final = ("string", "number", "boolean", "date", *BUFFERS)
FIELD_KEYS: Final = (
    "type", "value", "required", "default", "generate", "enum", "validate", "map", "encode", "ttl", "isoDates", "nulls",
    "unique", "scope", "schema", "items", "partial", "hidden", "filter", "crypt", "fixed", "reference", "timestamp",
    "description",
)  # fmt: skip
_GENERATE = re.compile(r"ulid|uuid|uid|uid\(([1-9][0-9]?)\)")


@dataclass(frozen=True, slots=True)
class Params:
    """The schema's `params`, after defaults. `key_limits`: attributes of indexes, with the bytes that each takes."""

    type_field: str = "_type"
    iso: bool = False
    nulls: bool = False
    partial: bool = False
    created_field: str | None = "created"  # None: not stamped
    updated_field: str | None = "updated"
    key_limits: Mapping[str, int] = field(default_factory=dict)


class FieldReader:
    """Reads the fields of one model. `parts_of`, `scopes`: the templates of its top fields, not yet bound."""

    __slots__ = ("key", "name", "params", "parts_of", "scopes", "see")

    def __init__(self, see: Inspector, name: str, params: Params) -> None:
        self.see = see
        self.name = name
        self.key = f"models.{name}"
        self.params = params
        self.parts_of: dict[str, tuple[Part, ...]] = {}
        self.scopes: dict[str, tuple[Part, ...]] = {}

    def top(self, name: str, node: Node) -> Field | None:
        """A field of the model itself; None when it cannot be made."""
        if not name or "." in name or "\0" in name or name.startswith(PRIVATE_ATTRIBUTES):
            hint = "a name has no '.', and does not begin with " + ", ".join(PRIVATE_ATTRIBUTES)
            self.see.note(node, f"{self.key}.{name}", f"{name!r} cannot be a field's name", hint, at_name=True)
        return self._field(name, node, name, None, self.parts_of)

    def _field(
        self, name: str, node: Node, path: str, parent: Field | None, parts_of: dict[str, tuple[Part, ...]]
    ) -> Field | None:
        see, key = self.see, f"{self.key}.{path}"
        members = see.known_members(node, key, FIELD_KEYS)
        if not isinstance(node.value, dict):
            return None
        kind = self._type(members, node, key)
        self._refused(members, key, parent)
        if kind is None:
            return None
        params = self.params
        top = parent is None
        has_template = self._template(name, members, key, kind, parts_of)
        packed, attribute = self._attribute(name, members, key, top)
        iso = see.flag(members, key, "isoDates", params.iso)
        if params.iso and not iso:
            see.note(members["isoDates"], f"{key}.isoDates", "cannot be switched off: params.isoDates is on")
        validate = see.text(members, key, "validate", "")
        limit = params.key_limits.get(attribute, 0) if top else 0
        made = Field(
            model=self.name,
            name=name,
            path=path,
            attribute=place_of(attribute, packed, False),
            type=kind,
            required=see.flag(members, key, "required", False),
            generate=self._generate(members, key, kind),
            enum=self._enum(members, key, kind),
            validate=validate or None,
            pattern=self._pattern(members, key, kind, validate),
            hidden=see.flag(members, key, "hidden", has_template),
            iso=iso or params.iso,
            ttl=see.flag(members, key, "ttl", False),
            # The JavaScript library cannot read an item in which bytes are NULL.
            nulls=see.flag(members, key, "nulls", params.nulls) and not limit and kind not in BUFFERS,
            partial=see.flag(members, key, "partial", params.partial if parent is None else parent.partial),
            unique=see.flag(members, key, "unique", False),
            packed=packed,
            encode=self._encode(members, key),
            key_bytes_max=limit,
        )
        if made.encode is not None:
            made = replace(made, attribute=place_of(name, None, True))
        self._check(made, attribute, members, key, top)
        made = self._nested(made, members, key)
        return made if has_template else self._with_default(made, members, key)

    def _type(self, members: dict[str, Node], node: Node, key: str) -> str | None:
        given = members.get("type")
        if given is None:
            self.see.note(node, key, "has no 'type'", f"one of {', '.join(TYPES)}", at_name=True)
            return None
        kind = given.value.lower() if isinstance(given.value, str) else None
        if kind in TYPES:
            return str(kind)
        if kind is None:
            self.see.note(given, f"{key}.type", f"expected the name of a type, found {kind_of(given.value)}")
        else:
            hint = did_you_mean(given.value, TYPES)
            self.see.note(given, f"{key}.type", f"unknown type {given.value[:40]!r}", hint)
        return None

    def _refused(self, members: dict[str, Node], key: str, parent: Field | None) -> None:
        """What must not be passed over in silence."""
        see = self.see
        if see.flag(members, key, "crypt", False):
            hint = "the value would be stored in clear"
            see.note(members["crypt"], f"{key}.crypt", "encrypted fields are not supported", hint)
        if parent is None:
            return
        for name in ("unique", "encode", "ttl"):
            node = members.get(name)
            if node is not None and node.value is not False:
                what = (
                    "only a date at the top of a model can be a ttl" if name == "ttl" else "goes with top fields only"
                )
                see.note(node, f"{key}.{name}", what)

    def _check(self, made: Field, attribute: str, members: dict[str, Node], key: str, top: bool) -> None:
        """What the properties of one field may not be together."""
        see = self.see
        if made.ttl and made.type != "date":
            see.note(members["ttl"], f"{key}.ttl", "only a date at the top of a model can be a ttl")
        if made.ttl and made.packed:
            see.note(members["map"], f"{key}.map", "a ttl needs an attribute of its own: the table sweeps by it")
        if made.key_bytes_max and made.encode is None and made.type not in INDEXED:
            message = f"the attribute {attribute!r} is the key of an index: the type cannot be {made.type!r}"
            see.note(members["type"], f"{key}.type", message, f"one of {', '.join(INDEXED)}")
        if made.unique and top:
            if made.type not in UNIQUE:
                see.note(members["unique"], f"{key}.unique", f"does not go with the type {made.type!r}")
            elif made.encode is not None:
                see.note(members["unique"], f"{key}.unique", "an encoded field is not stored: it cannot be unique")
            elif made.name in (HASH, SORT):
                see.note(members["unique"], f"{key}.unique", "a key is unique already", "leave it out")
        if "scope" in members:
            self._scope(made, members["scope"], f"{key}.scope")
        if made.encode is not None:
            if made.type not in ("string", "number"):
                see.note(members["encode"], f"{key}.encode", f"gives a text or a number; the type is {made.type!r}")
            for other in ("value", "map", "ttl"):
                if other in members:
                    see.note(
                        members[other], f"{key}.{other}", "does not go with 'encode'", "an encoded field is not stored"
                    )

    def _scope(self, made: Field, node: Node, key: str) -> None:
        if not made.unique:
            self.see.note(node, key, "goes with 'unique' only")
        elif not isinstance(node.value, str) or not node.value:
            self.see.note(node, key, f"expected a template, found {kind_of(node.value)}")
        else:
            parts = self._parse(node, key)
            if parts is not None:
                self.scopes[made.name] = parts

    def _encode(self, members: dict[str, Node], key: str) -> Encode | None:
        node = members.get("encode")
        if node is None or node.value is False:
            return None
        example = "write ['sk', '#', 1]: attribute, separator, number of the part"
        if isinstance(node.value, str):
            self.see.note(node, f"{key}.encode", "the short form counts variables, not parts: refused", example)
            return None
        items = [item.value for item in node.value] if isinstance(node.value, list) else []
        shape = [str, str, int]
        if [type(item) for item in items] != shape or not items[0] or not items[1] or items[2] < 0:
            self.see.note(node, f"{key}.encode", "expected an attribute, a separator and the number of a part", example)
            return None
        return Encode(items[0], items[1], items[2])

    def _parse(self, node: Node, key: str) -> tuple[Part, ...] | None:
        try:
            return parse(node.value)
        except TemplateError as error:
            self.see.note(node, key, str(error), "variables look like ${name}, ${name.part} or ${name:6:0}")
            return None

    def _template(
        self, name: str, members: dict[str, Node], key: str, kind: str, parts_of: dict[str, tuple[Part, ...]]
    ) -> bool:
        """Whether the field has a template; its parts go to `parts_of`."""
        node = members.get("value")
        if node is None or node.value is False:
            return False
        path = f"{key}.value"
        if not isinstance(node.value, str):
            self.see.note(node, path, f"expected a template, found {kind_of(node.value)}")
        elif kind != "string":
            self.see.note(node, path, f"a template gives a string; the type is {kind!r}")
        elif node.value:
            parts = self._parse(node, path)
            if parts is not None:
                parts_of[name] = parts
        else:
            self.see.note(node, path, "is empty")
        return True

    def _attribute(
        self, name: str, members: dict[str, Node], key: str, top: bool
    ) -> tuple[tuple[str, str] | None, str]:
        """(attribute, member) of a packed field, and the attribute."""
        see = self.see
        attribute = see.text(members, key, "map", name)
        node = members.get("map")
        if not top and looks_tagged(attribute):
            # Else an object with this member alone would have to be escaped in every image that holds it.
            at = node or members["type"]
            see.note(at, f"{key}.map" if node else key, f"{attribute!r} cannot be the name of a nested attribute")
        if node is None:
            return None, attribute
        if "." in attribute:
            return self._packed(attribute, node, key, name, top)
        if attribute in (HASH, SORT) and attribute != name:
            see.note(node, f"{key}.map", f"{attribute!r} is a key: give it a template instead")
        elif name in (HASH, SORT) and attribute != name and top:
            see.note(node, f"{key}.map", "a key keeps its name")
        elif attribute.startswith(PRIVATE_ATTRIBUTES) or "\0" in attribute:
            see.note(node, f"{key}.map", f"{attribute!r} is a name of Fleet's own")
        return None, attribute

    def _packed(self, text: str, node: Node, key: str, name: str, top: bool) -> tuple[tuple[str, str] | None, str]:
        attribute, _, sub = text.partition(".")
        message = ""
        if not top:
            message = "only fields at the top of a model can be packed"
        elif not attribute or not sub or "." in sub or "\0" in text:
            message = "packs a field into a member of one attribute: 'attribute.member'"
        elif name in (HASH, SORT) or attribute in (HASH, SORT):
            message = "a key keeps its name"
        elif attribute.startswith(PRIVATE_ATTRIBUTES):
            message = f"{attribute!r} is a name of Fleet's own"
        elif looks_tagged(sub):
            message = f"{sub!r} cannot be the name of a packed member"
        elif attribute in self.params.key_limits:
            message = f"{attribute!r} is the key of an index: it cannot be an object"
        if message:
            self.see.note(node, f"{key}.map", message)
            return None, name
        return (attribute, sub), attribute

    def _enum(self, members: dict[str, Node], key: str, kind: str) -> tuple[Any, ...]:
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

    def _pattern(self, members: dict[str, Node], key: str, kind: str, text: str) -> re.Pattern[str] | None:
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

    def _generate(self, members: dict[str, Node], key: str, kind: str) -> str | None:
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
        else:
            return value
        return None

    def _nested(self, made: Field, members: dict[str, Node], key: str) -> Field:
        """With the fields of an object that has a schema, or the element of an array that has items."""
        see, path = self.see, made.path
        if "schema" in members:
            if made.type != "object":
                see.note(members["schema"], f"{key}.schema", f"goes with objects; the type is {made.type!r}")
            nodes = see.members(members["schema"], f"{key}.schema")
            parts_of: dict[str, tuple[Part, ...]] = {}
            known: dict[str, Field] = {}
            for name, node in nodes.items():
                sub = self._field(name, node, f"{path}.{name}", made, parts_of)
                if sub is not None:
                    known[name] = sub
            binder = Binder(see, f"{self.name}.{path}", key, nodes, known, parts_of)
            made = replace(made, fields=tuple(binder.with_template(sub) for sub in known.values()))
            self._check_members(made, members["schema"], key)
        if "items" in members:
            if made.type != "array":
                see.note(members["items"], f"{key}.items", f"goes with arrays; the type is {made.type!r}")
            inside: dict[str, tuple[Part, ...]] = {}
            items = self._field("items", members["items"], f"{path}.items", made, inside)
            for name in ("value", "generate"):
                if items is not None and isinstance(members["items"].value, dict) and name in members["items"].value:
                    see.note(members["items"].value[name], f"{key}.items.{name}", "an element of an array is given")
            made = replace(made, items=items)
        return made

    def _check_members(self, made: Field, schema: Node, key: str) -> None:
        holders: dict[str, Field] = {}
        for sub in made.fields or ():
            first = holders.setdefault(sub.attribute, sub)
            if first is not sub:
                message = f"its attribute {sub.attribute!r} belongs to the field {first.name!r} already"
                self.see.note(schema.value[sub.name], f"{key}.{sub.name}", message)

    def _with_default(self, made: Field, members: dict[str, Node], key: str) -> Field:
        node = members.get("default")
        if node is None or node.value is None:
            return self._empty_default(made)
        value = node.plain()
        try:
            if made.type == "date":
                stamp = iso_ms(value) if isinstance(value, str) else value
                if not isinstance(stamp, int) or isinstance(stamp, bool) or abs(stamp) > MS_MAX:
                    made.refuse("type", "expected milliseconds or a text as 2026-01-02T03:04:05.678Z")
                return replace(made, default=store_ms(stamp, iso=made.iso, ttl=made.ttl))
            if made.type in BUFFERS:
                try:
                    value = base64_bytes(value)
                except ValueError as error:
                    made.refuse("type", str(error))
            return replace(made, default=writer(made, True)(value))
        except (ModelError, OverflowError) as error:
            text = str(error).removeprefix(f"{self.name}.{made.path}: ")
            self.see.note(node, f"{key}.default", f"does not fit the field: {text}")
            return made

    @staticmethod
    def _empty_default(made: Field) -> Field:
        """A required object or array whose fields have a schema begins empty, so that nested defaults fill it."""
        if not made.required or made.generates:
            return made
        if made.items is not None and made.items.fields is not None:
            return replace(made, default=[])
        if made.fields is None:
            return made
        try:
            return replace(made, default=writer(made, True)({}))
        except ModelError:  # a nested field is required and has no default: the object has to be given
            return made
