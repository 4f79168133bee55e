"""One model of a schema: makes, changes, checks and reads items. On the path of every message.

Never does I/O, never reads a clock, never changes an image in place: what it returns shares what did not change.
Called by the agent's database and session, by the relay, by workloads and the oracle. Made by agent.protocol.loader.
All per-field work is planned when the model is made: tuples of functions, no look-ups by name while writing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn

from agent.protocol.errors import ModelError
from agent.protocol.fields import Field, date_ms, merger, reader, shown, store_ms, verifier, writer
from agent.protocol.messages import FeedName, Image, Key
from agent.protocol.template import ACCOUNT, DEVICE, IDS, Template, pattern

Enable = Literal["cloud", "device", "both"]
Sync = Literal["none", "up", "down", "both"]
Conflict = Literal["latest", "arrival", "cloud", "device"]
Orphans = Literal["keep", "remove"]

HASH: Final = "pk"
SORT: Final = "sk"
HASH_BYTES_MAX: Final = 2048  # DynamoDB's limits on keys
SORT_BYTES_MAX: Final = 1024
PRIVATE_ATTRIBUTES: Final = ("_fleet", "_op", "_orphan")  # beginnings of the names that only the relay writes


@dataclass(frozen=True, slots=True)
class Context:
    """Who acts: its ids go into every item that models them. "" where there is none."""

    device_id: str
    account_id: str


@dataclass(frozen=True, slots=True)
class Process:
    """A model's entry in the schema's `process` section, after defaults."""

    enable: Enable = "both"
    sync: Sync = "none"
    conflict: Conflict = "latest"
    period_ms: int = 0
    orphans: Orphans = "keep"
    mem: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """What a model is made of. Templates are bound to attributes; None: the caller gives that part of the key."""

    name: str
    process: Process
    feed: FeedName | None
    type_field: str
    fields: tuple[Field, ...]  # without the keys, the type and the stamps
    hash_template: Template | None
    sort_template: Template | None
    created: Field | None
    updated: Field | None
    visible_keys: tuple[bool, bool] = (False, False)


class Model:
    """Immutable. Errors for applications are ModelErrors; their codes: key, model, type, required, enum, validate."""

    __slots__ = (
        "_check_plan",
        "_context_plan",
        "_create_plan",
        "_created",
        "_definition",
        "_frozen",
        "_key_ids",
        "_key_names",
        "_key_plan",
        "_known",
        "_read_plan",
        "_template_plan",
        "_update_plan",
        "_updated",
        "_updated_attribute",
        "conflict",
        "enable",
        "feed",
        "fields",
        "hash_template",
        "in_cloud",
        "mem",
        "name",
        "on_device",
        "orphans",
        "period_ms",
        "receives",
        "sends",
        "sort_template",
        "sync",
        "ttl_attribute",
        "type_field",
    )

    def __init__(self, definition: Definition) -> None:
        process = definition.process
        self.name = definition.name
        self.enable: Enable = process.enable
        self.sync: Sync = process.sync
        self.conflict: Conflict = process.conflict
        self.period_ms = process.period_ms
        self.orphans: Orphans = process.orphans
        self.mem = process.mem
        self.feed: FeedName | None = definition.feed
        self.sends = process.sync in ("up", "both")
        self.receives = process.sync in ("down", "both")
        self.on_device = process.enable != "cloud"
        self.in_cloud = process.enable != "device"
        self.type_field = definition.type_field
        self.hash_template = definition.hash_template.text if definition.hash_template else ""
        self.sort_template = definition.sort_template.text if definition.sort_template else ""
        stamps = [field for field in (definition.created, definition.updated) if field]
        everything = (*definition.fields, *stamps)
        self.fields: Mapping[str, Field] = MappingProxyType({field.name: field for field in everything})
        self.ttl_attribute = next((field.attribute for field in everything if field.ttl), None)
        self._definition = definition
        self._created = definition.created
        self._updated = definition.updated
        self._updated_attribute = definition.updated.attribute if definition.updated else None
        self._plan_keys(definition)
        self._plan_fields(definition.fields, everything)
        self._frozen = True

    def _plan_keys(self, definition: Definition) -> None:
        templates = (definition.hash_template, definition.sort_template)
        variables = [variable for template in templates if template for variable in template.variables]
        names = tuple(dict.fromkeys(variable.name for variable in variables))
        modelled = {field.name: field for field in definition.fields}
        self._key_names = frozenset(names)
        self._key_ids = tuple(name for name in names if name not in modelled)
        self._key_plan = tuple(
            (name, modelled[name].attribute, writer(modelled[name], True)) for name in names if name in modelled
        )

    def _plan_fields(self, fields: tuple[Field, ...], everything: tuple[Field, ...]) -> None:
        self._context_plan = tuple(
            (field.name == DEVICE, field.name, field.attribute, writer(field, True), field)
            for field in fields
            if field.name in IDS
        )
        self._create_plan = tuple(
            (field.name, field.attribute, writer(field, True), field.default, field.generate, field)
            for field in fields
            if field.name not in IDS
        )
        self._update_plan = {
            field.name: (field.attribute, writer(field, False), merger(field), field) for field in fields
        }
        self._template_plan = tuple(
            (field, field.template.render, frozenset(variable.name for variable in field.template.variables))
            for field in fields
            if field.template
        )
        self._check_plan = tuple((field.attribute, *verifier(field), field) for field in everything)
        self._read_plan = tuple(
            (field.name, field.attribute, reader(field)) for field in everything if not field.hidden
        )
        self._known = frozenset((self.type_field, *(field.attribute for field in everything)))

    def __setattr__(self, name: str, value: object) -> None:
        if getattr(self, "_frozen", False):
            raise AttributeError(f"a model cannot be changed: {name}")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Model({self.name!r})"

    # --- keys

    def key(self, props: Mapping[str, Any], context: Context) -> Key:
        """The key that `props` and the context give. Raises ModelError "key" when a variable is missing."""
        scope: Image = {}
        for name, attribute, write in self._key_plan:
            value = self._id(name, context) or props.get(name)
            if value is not None:
                scope[attribute] = write(value)
        return self._key(props, scope, context)

    def search(self, props: Mapping[str, Any], context: Context) -> tuple[str, str]:
        """Where the items are that have these properties: the hash key, and how their sort keys begin (the template up
        to its first variable that is not given). Raises ModelError "key" when the hash key cannot be told."""
        scope: Image = {name: text for name in self._key_ids if (text := self._id(name, context))}
        for name, attribute, write in self._key_plan:
            value = self._id(name, context) or props.get(name)
            if value is not None:
                scope[attribute] = write(value)
        definition = self._definition
        pk = definition.hash_template.render(scope) if definition.hash_template else None
        if HASH in props:
            pk = self._given(props, HASH, pk)
        if not pk:
            self._no_key(None, scope)
        prefix = definition.sort_template.begin(scope) if definition.sort_template else ""
        if props.get(SORT) is not None:
            begins = isinstance(props[SORT], str) and props[SORT].startswith(prefix)
            if not begins:
                self._refuse("key", f"{SORT} {shown(props[SORT])} is not what its template gives")
            prefix = props[SORT]
        return pk, prefix

    @staticmethod
    def _id(name: str, context: Context) -> str:
        if name == DEVICE:
            return context.device_id
        return context.account_id if name == ACCOUNT else ""

    def _key(self, props: Mapping[str, Any], scope: Image, context: Context) -> Key:
        if self._key_ids:
            scope = {**scope, **{name: text for name in self._key_ids if (text := self._id(name, context))}}
        definition = self._definition
        pk = definition.hash_template.render(scope) if definition.hash_template else None
        sk = definition.sort_template.render(scope) if definition.sort_template else None
        if HASH in props:
            pk = self._given(props, HASH, pk)
        if SORT in props:
            sk = self._given(props, SORT, sk)
        if not pk or not sk:
            self._no_key(pk, scope)
        if len(pk) > HASH_BYTES_MAX // 4 or len(sk) > SORT_BYTES_MAX // 4:  # cheap first: a character has 1 to 4 bytes
            for part, limit in ((pk, HASH_BYTES_MAX), (sk, SORT_BYTES_MAX)):
                if len(part.encode()) > limit:
                    self._refuse("key", f"the key {shown(part)} has more than {limit} bytes")
        return pk, sk

    def _given(self, props: Mapping[str, Any], name: str, made: str | None) -> str | None:
        """A part of the key that the caller passed: it wins, but a synced key must be what its template gives."""
        value = props[name]
        if value is None:
            return made
        if not isinstance(value, str) or (self.sync != "none" and value != made):
            self._refuse("key", f"{name} {shown(value)} is not what its template gives")
        return value

    def _no_key(self, pk: str | None, scope: Image) -> NoReturn:
        template = self._definition.sort_template if pk else self._definition.hash_template
        if template is None:
            self._refuse("key", f"needs {SORT if pk else HASH!r}: it has no template")
        missing = [v.name for v in template.variables if scope.get(v.attribute) in (None, "")]
        needed = " and ".join(dict.fromkeys(missing)) or "other values"
        self._refuse("key", f"needs {needed} for the key {template.text!r}")

    def _refuse(self, code: str, text: str) -> NoReturn:
        raise ModelError(code, f"{self.name}: {text}", model=self.name)

    # --- writing

    def create(
        self, props: Mapping[str, Any], context: Context, now_ms: int, new_id: Callable[[str], str]
    ) -> tuple[Key, Image]:
        """A new item: context, defaults, generated ids, templates, stamps. `new_id` gets "ulid", "uuid", "uid" or
        "uid(N)". Properties that the schema does not know are dropped, as OneTable does."""
        image: Image = {self.type_field: self.name}
        get = props.get
        for is_device, name, attribute, write, field in self._context_plan:
            value = (context.device_id if is_device else context.account_id) or get(name)
            if value:
                image[attribute] = write(value)
            elif field.required and not field.template:
                field.refuse("required", "is required")
        for name, attribute, write, default, generate, field in self._create_plan:
            value = get(name)
            if value is not None:
                image[attribute] = write(value)
            elif default is not None:
                image[attribute] = default
            elif generate is not None:
                image[attribute] = new_id(generate)
            elif field.required:
                if field.template is None:
                    field.refuse("required", "is required")
            elif field.nulls and name in props:
                image[attribute] = None
        for field, render, _ in self._template_plan:
            if field.attribute not in image:
                text = render(image)
                if text is not None:
                    image[field.attribute] = field_text(field, text)
                elif field.required:
                    field.refuse("required", f"is required, and {field.template} lacks a variable")
        if self._created is not None:
            image[self._created.attribute] = store_ms(now_ms, iso=self._created.iso, ttl=False)
        if self._updated is not None:
            image[self._updated.attribute] = now_ms if not self._updated.iso else store_ms(now_ms, iso=True, ttl=False)
        return self._key(props, image, context), image

    def update(self, key: Key, current: Image, props: Mapping[str, Any], context: Context, now_ms: int) -> Image:
        """The item after a change of some properties; None removes. What `current` holds beyond the schema stays."""
        image = dict(current)
        image[self.type_field] = self.name
        plan = self._update_plan
        keyed = False
        for name, value in props.items():
            entry = plan.get(name)
            if entry is None:
                if name in (HASH, SORT) and value not in (None, key[name == SORT]):
                    self._refuse("key", f"{name} of an item cannot change")
                continue
            attribute, write, merge, field = entry
            if value is None:
                if field.required:
                    field.refuse("required", "is required: it cannot be removed")
                if field.nulls:
                    image[attribute] = None
                else:
                    image.pop(attribute, None)
            else:
                image[attribute] = write(value) if merge is None else merge(value, current.get(attribute))
            if name in self._key_names:
                keyed = True
        for is_device, _, attribute, _, _ in self._context_plan:
            if attribute not in image and (text := context.device_id if is_device else context.account_id):
                image[attribute] = text
        if keyed:
            self._same_key(current, image)
        for field, render, names in self._template_plan:
            if field.name not in props and not names.isdisjoint(props):
                self._put_template(field, render(image), image)
        if self._updated is not None:
            image[self._updated.attribute] = now_ms if not self._updated.iso else store_ms(now_ms, iso=True, ttl=False)
        return image

    def _same_key(self, current: Image, image: Image) -> None:
        """Rendered from both images, so that an item whose key was given by hand can change too."""
        for template in (self._definition.hash_template, self._definition.sort_template):
            if template is not None and template.render(image) != template.render(current):
                names = ", ".join(dict.fromkeys(variable.name for variable in template.variables))
                self._refuse("key", f"{names} of an item cannot change: the key {template.text!r} holds it")

    @staticmethod
    def _put_template(field: Field, text: str | None, image: Image) -> None:
        if text is not None:
            image[field.attribute] = field_text(field, text)
        elif field.required:
            field.refuse("required", f"is required, and {field.template} lacks a variable")
        else:
            image.pop(field.attribute, None)

    # --- reading

    def read(self, key: Key, image: Image) -> dict[str, Any]:
        """The properties for an application: typed, hidden ones left out, nothing shared with the image."""
        props: dict[str, Any] = {}
        visible = self._definition.visible_keys
        if visible[0]:
            props[HASH] = key[0]
        if visible[1]:
            props[SORT] = key[1]
        for name, attribute, back in self._read_plan:
            if attribute in image:
                value = image[attribute]
                props[name] = value if back is None or value is None else back(value)
        return props

    def check(self, key: Key, image: Image) -> None:
        """Whether an image from outside is what this model's `create` and `update` could have made under this key.
        Attributes that the schema does not know are allowed. Raises ModelError."""
        if image.get(self.type_field) != self.name:
            self._refuse("model", f"{self.type_field} is {shown(image.get(self.type_field))}")
        for attribute, kind, rest, verify, field in self._check_plan:
            value = image.get(attribute)
            if value.__class__ is kind:
                if rest is not None:
                    rest(value)
            elif value is not None:
                verify(value)
            elif field.required:
                field.refuse("required", "is required")
            elif attribute in image and not field.nulls:
                field.refuse("type", "is null")
        if not self._known.issuperset(image):
            for name in image:
                if name in (HASH, SORT) or name.startswith(PRIVATE_ATTRIBUTES):
                    self._refuse("key", f"the attribute {name!r} does not belong in an image")
        definition = self._definition
        scope = image if not self._key_ids else {**image, **self._ids_of(key)}
        if definition.hash_template is not None and definition.hash_template.render(scope) != key[0]:
            self._disagrees(HASH, key[0])
        if definition.sort_template is not None and definition.sort_template.render(scope) != key[1]:
            self._disagrees(SORT, key[1])

    def _disagrees(self, name: str, text: str) -> None:
        if self.sync != "none":  # elsewhere a caller may have given the key by hand
            self._refuse("key", f"{name} {shown(text)} does not agree with the item")

    def _ids_of(self, key: Key) -> dict[str, str]:
        """The ids that only the key holds (a model need not have fields for them)."""
        found: dict[str, str] = {}
        for template, text in zip((self._definition.hash_template, self._definition.sort_template), key, strict=True):
            match = re.match(pattern(template.prefix), text) if template else None
            if match:
                found.update(match.groupdict())
        return {name: found[name] for name in self._key_ids if name in found}

    # --- stamps

    def updated_ms(self, image: Image) -> int:
        """When the item was last written, by its own stamp; 0 when it has none."""
        attribute = self._updated_attribute
        if attribute is None:
            return 0
        return date_ms(image.get(attribute)) or 0

    def stamp(self, image: Image, updated_ms: int) -> Image:
        """The image with another stamp; the same image when the model keeps none."""
        if self._updated is None:
            return image
        return {**image, self._updated.attribute: store_ms(updated_ms, iso=self._updated.iso, ttl=False)}

    @property
    def definition(self) -> Definition:
        """For the schema's own use: templates as parts."""
        return self._definition

    @property
    def has_updated(self) -> bool:
        return self._updated is not None


def field_text(field: Field, text: str) -> str:
    """What a template gave, checked as the field wants it."""
    if field.pattern is not None and field.pattern.search(text) is None:
        field.refuse("validate", f"{shown(text)} does not match {field.validate}")
    if field.enum and text not in field.enum:
        field.refuse("enum", f"expected one of {', '.join(map(str, field.enum))}; found {shown(text)}")
    return text
