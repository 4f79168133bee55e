"""One model of a schema: makes, changes, checks and reads items. On the path of every message.

Never does I/O, never reads a clock, never changes an image in place: what it returns shares what did not change.
Called by the agent's database and session, by the relay, by workloads and the oracle. Made by
agent.protocol.onetable.loader. All per-field work is planned when the model is made: tuples of functions, no look-ups
by name while writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from agent.protocol.errors import ModelError
from agent.protocol.keys import HASH, PRIVATE_ATTRIBUTES, SORT
from agent.protocol.messages import FeedName, Image, Key
from agent.protocol.onetable import values
from agent.protocol.onetable.checking import verifier
from agent.protocol.onetable.dates import date_ms, store_ms
from agent.protocol.onetable.definition import Definition
from agent.protocol.onetable.fields import Field, shown
from agent.protocol.onetable.indexes import Index, IndexKey, Scalar
from agent.protocol.onetable.layout import Layout
from agent.protocol.onetable.model_keys import Keyed
from agent.protocol.onetable.reading import as_they_are, reader
from agent.protocol.onetable.template import DEVICE, IDS, Render, Template, id_of
from agent.protocol.onetable.unique import unique_keys
from agent.protocol.onetable.writing import NewId, key_text, merger, put_template, writer
from agent.protocol.process import Conflict, Context, Enable, Orphans


class Model(Keyed):
    """Immutable. Errors for applications are ModelErrors; their codes: encode, enum, index, key, model, required,
    scope, type, validate."""

    __slots__ = (
        "_check_plan",
        "_context_plan",
        "_create_plan",
        "_created",
        "_frozen",
        "_generating_plan",
        "_known",
        "_layout",
        "_read_plan",
        "_stamped_plan",
        "_template_plan",
        "_templates",
        "_update_plan",
        "_updated",
        "_updated_attribute",
        "_uses_stamps",
        "conflict",
        "enable",
        "feed",
        "fields",
        "hash_template",
        "in_cloud",
        "indexes",
        "mem",
        "on_device",
        "orphans",
        "period_ms",
        "receives",
        "sends",
        "sort_template",
        "ttl_attribute",
        "type_field",
        "unique_fields",
    )

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition)
        process = definition.process
        self.enable: Enable = process.enable
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
        self.indexes: Mapping[str, Index] = MappingProxyType({index.name: index for index in definition.indexes})
        self.unique_fields = tuple(field for field in everything if field.unique)
        layout = Layout(everything)
        self._layout = layout if layout else None  # None: every field is an attribute of its own
        self._created = definition.created
        self._updated = definition.updated
        self._updated_attribute = definition.updated.attribute if definition.updated else None
        self._templates: dict[str, Template | None] = {
            HASH: definition.hash_template,
            SORT: definition.sort_template,
            **{field.attribute: field.template for field in definition.fields},
        }
        self._plan_fields(definition.fields, everything)
        self._frozen = True

    def _plan_fields(self, fields: tuple[Field, ...], everything: tuple[Field, ...]) -> None:
        self._context_plan = tuple(
            (field.name == DEVICE, field.name, field.attribute, writer(field, True), field)
            for field in fields
            if field.name in IDS
        )
        self._create_plan = tuple(
            (field.name, field.attribute, writer(field, True), field.default, field.generate, field)
            for field in fields
            if field.name not in IDS and not field.generates
        )
        self._generating_plan = tuple((field, writer(field, True)) for field in fields if field.generates)
        self._update_plan = {
            field.name: (field.attribute, writer(field, False), merger(field), field) for field in fields
        }
        updated = self._updated.name if self._updated is not None else None
        self._template_plan = tuple(
            (field, _render(field, field.template), frozenset(variable.name for variable in field.template.variables))
            for field in fields
            if field.template
        )
        stamps = frozenset(stamp.name for stamp in (self._created, self._updated) if stamp is not None)
        self._uses_stamps = any(not names.isdisjoint(stamps) for _, _, names in self._template_plan)
        # Made again whenever the item is stamped.
        self._stamped_plan = tuple((field, render) for field, render, names in self._template_plan if updated in names)
        self._check_plan = tuple((field.attribute, *verifier(field), field) for field in everything)
        self._read_plan = tuple(
            (field.name, field.attribute, as_they_are(field), reader(field)) for field in everything if not field.hidden
        )
        places = self._layout.places if self._layout is not None else ()
        self._known = frozenset((self.type_field, *places, *(field.attribute for field in everything)))

    def __setattr__(self, name: str, value: object) -> None:
        if getattr(self, "_frozen", False):
            raise AttributeError(f"a model cannot be changed: {name}")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Model({self.name!r})"

    # --- writing

    def create(self, props: Mapping[str, Any], context: Context, now_ms: int, new_id: NewId) -> tuple[Key, Image]:
        """A new item: context, defaults, generated ids, templates, stamps. `new_id` gets "ulid", "uuid", "uid" or
        "uid(N)". A property that is None is left out, and nothing is put in its place. Properties that the schema does
        not know are dropped, as OneTable does."""
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
            elif default is not None and name not in props:
                image[attribute] = default
            elif generate is not None and name not in props:
                image[attribute] = new_id(generate)
            elif field.required:
                if field.template is None or name in props:
                    field.refuse("required", "is required")
            elif field.nulls and name in props:
                image[attribute] = None
        if self._generating_plan:
            self._create_generating(props, image, new_id)
        scope = image if not self._uses_stamps else {**image, **self._stamps(now_ms)}
        for field, render, _ in self._template_plan:
            if field.attribute not in image and field.name not in props:
                put_template(field, render(scope), image)
        if self._created is not None:
            image[self._created.attribute] = store_ms(now_ms, iso=self._created.iso, ttl=False)
        if self._updated is not None:
            image[self._updated.attribute] = now_ms if not self._updated.iso else store_ms(now_ms, iso=True, ttl=False)
        key = self._key(props, image, context)
        if self._layout is not None:
            self._layout.check_encoded(key, image)
            return key, self._layout.close(image)
        return key, image

    def _create_generating(self, props: Mapping[str, Any], image: Image, new_id: NewId) -> None:
        """Objects and arrays that ask for generated ids within."""
        for field, write in self._generating_plan:
            value = props.get(field.name)
            if value is not None:
                image[field.attribute] = write(value, new_id)
            elif field.default is not None and field.name not in props:
                image[field.attribute] = field.default
            elif field.required:
                if field.name in props:
                    field.refuse("required", "is required")
                image[field.attribute] = write([] if field.type == "array" else {}, new_id)
            elif field.nulls and field.name in props:
                image[field.attribute] = None

    def _stamps(self, now_ms: int) -> Image:
        stamps = [stamp for stamp in (self._created, self._updated) if stamp is not None]
        return {stamp.attribute: store_ms(now_ms, iso=stamp.iso, ttl=False) for stamp in stamps}

    def update(self, key: Key, current: Image, props: Mapping[str, Any], context: Context, now_ms: int) -> Image:
        """The item after a change of some properties; None removes. What `current` holds beyond the schema stays."""
        if self._layout is not None:
            current = self._layout.open(key, current)
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
        if keyed:
            self._same_key(key, current, image)
        for is_device, _, attribute, _, _ in self._context_plan:
            if text := context.device_id if is_device else context.account_id:
                image[attribute] = text  # whatever the caller gave
        for field, render, names in self._template_plan:
            if field.name not in props and not names.isdisjoint(props):
                put_template(field, render(image), image)
        if self._updated is not None:
            if self._stamped_plan:
                image = self._stamped(image, now_ms, props)
            image[self._updated.attribute] = now_ms if not self._updated.iso else store_ms(now_ms, iso=True, ttl=False)
        if self._layout is not None:
            self._layout.check_encoded(key, image)
            return self._layout.close(image)
        return image

    def _stamped(self, image: Image, updated_ms: int, given: Mapping[str, Any]) -> Image:
        """With the templates that hold the updated stamp made again, but for those that were given by hand."""
        assert self._updated is not None
        stamped = {**image, self._updated.attribute: store_ms(updated_ms, iso=self._updated.iso, ttl=False)}
        for field, render in self._stamped_plan:
            if field.name not in given and image.get(field.attribute) == render(image):
                put_template(field, render(stamped), stamped)
        return stamped

    # --- reading

    def read(self, key: Key, image: Image) -> dict[str, Any]:
        """The properties for an application: typed, hidden ones left out, nothing shared with the image."""
        if self._layout is not None:
            image = self._layout.open(key, image)
        props: dict[str, Any] = {}
        visible = self._definition.visible_keys
        if visible[0]:
            props[HASH] = key[0]
        if visible[1]:
            props[SORT] = key[1]
        for name, attribute, classes, back in self._read_plan:
            if attribute in image:
                value = image[attribute]
                props[name] = value if value.__class__ in classes else back(value)
        return props

    def check(self, key: Key, image: Image) -> None:
        """Whether an image from outside is what this model's `create` and `update` could have made under this key.
        Attributes that the schema does not know are allowed. Raises ModelError."""
        if image.get(self.type_field) != self.name:
            self._refuse("model", f"{self.type_field} is {shown(image.get(self.type_field))}")
        if self._layout is not None:
            image = self._layout.open(key, image)
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
            self._check_unknown(image)
        self._check_key(key, image)

    def check_key(self, key: Key, image: Image) -> None:
        """Whether the image's key is the one that its templates give. Raises ModelError `key`."""
        self._check_key(key, self._opened(key, image))

    def _opened(self, key: Key, image: Image) -> Image:
        """With every field in its place; not a copy where there is nothing to be opened."""
        return image if self._layout is None else self._layout.open(key, image)

    def _check_key(self, key: Key, image: Image) -> None:
        definition = self._definition
        scope = image if not self._key_ids else {**image, **self._ids_of(key)}
        if definition.hash_template is not None and definition.hash_template.render(scope) != key[0]:
            self._disagrees(HASH, key[0])
        if definition.sort_template is not None and definition.sort_template.render(scope) != key[1]:
            self._disagrees(SORT, key[1])

    def _check_unknown(self, image: Image) -> None:
        """What the schema does not know may be there, if it is something that the table can hold."""
        for name, value in image.items():
            if name in self._known:
                continue
            if name in (HASH, SORT) or name.startswith(PRIVATE_ATTRIBUTES):
                self._refuse("key", f"the attribute {name!r} does not belong in an image")
            if value is not None and self._layout is not None and self._layout.packs(name):
                self._refuse("type", f"the attribute {name!r} holds packed fields: expected an object")
            try:
                values.check_value(value)
            except ValueError as error:
                self._refuse("type", f"the attribute {name!r}: {error}")

    def misfits(self, key: Key, image: Image) -> dict[str, ModelError]:
        """Field -> what is wrong with its stored value: what an older or newer schema left there. Never raises. Such a
        value is read as it is, and stays until it is written."""
        found: dict[str, ModelError] = {}
        opened = self._opened(key, image)
        for attribute, _, _, verify, field in self._check_plan:
            value = opened.get(attribute)
            try:
                if value is not None:
                    verify(value)
                elif field.required:
                    field.refuse("required", "is required")
            except ModelError as error:
                found[field.name] = error
        return found

    def _disagrees(self, name: str, text: str) -> None:
        if self.sync != "none":  # elsewhere a caller may have given the key by hand
            self._refuse("key", f"{name} {shown(text)} does not agree with the item")

    # --- unique values, indexes

    def unique_keys(self, key: Key, image: Image) -> tuple[Key, ...]:
        """The keys of the items that stand for this item's unique values. Raises ModelError `scope`, `key`."""
        if not self.unique_fields:
            return ()
        return unique_keys(self.unique_fields, self._opened(key, image))

    @property
    def own_indexes(self) -> tuple[Index, ...]:
        """Those of the schema's indexes that items of this model can be in: it has fields for their keys."""
        attributes = {HASH, SORT, *(field.attribute for field in self.fields.values())}
        return tuple(
            index
            for index in self.indexes.values()
            if index.hash in attributes and (index.sort is None or index.sort in attributes)
        )

    def index_keys(self, key: Key, image: Image) -> dict[str, IndexKey]:
        """Index -> where the item stands in it; only those that it is in."""
        found = {name: index.key(key, image) for name, index in self.indexes.items()}
        return {name: place for name, place in found.items() if place is not None}

    def index_search(self, index: str, props: Mapping[str, Any], context: Context) -> tuple[Scalar, Scalar | None]:
        """Where in an index the items are that have these properties: the hash key, and how their sort keys begin (a
        text: the template up to its first variable that is not given), or what they are (a number); None: all.
        Raises ModelError `index` when there is no such index, `key` when the hash key cannot be told."""
        found = self.indexes.get(index)
        if found is None:
            self._refuse("index", f"no index {index!r} in the schema")
        scope: Image = {name: text for name in IDS if (text := id_of(name, context))}
        for name, value in props.items():
            if name in self._update_plan and value is not None:
                attribute, write, _, _ = self._update_plan[name]
                scope[attribute] = write(value)
        for is_device, _, attribute, _, _ in self._context_plan:
            if text := context.device_id if is_device else context.account_id:
                scope[attribute] = text
        scope.update({name: props[name] for name in (HASH, SORT) if props.get(name) is not None})
        place = found.search(self._templates, scope)
        if place is None:
            self._refuse("key", f"needs a value for {found.hash!r}, the hash key of the index {index!r}")
        return place

    def render(self, field: Field, image: Image) -> str | None:
        """What a field's template gives, of an open image; None when it lacks a variable."""
        return _render(field, field.template)(image) if field.template is not None else None

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
        if self._stamped_plan:
            return self._stamped(image, updated_ms, {})
        return {**image, self._updated.attribute: store_ms(updated_ms, iso=self._updated.iso, ttl=False)}

    @property
    def definition(self) -> Definition:
        """For the schema's own use: templates as parts."""
        return self._definition


def _render(field: Field, template: Template) -> Render:
    """In the key of an index an empty text is no value: the item is not in the index then."""
    if not field.key_bytes_max:
        return template.render

    def sparse(image: Mapping[str, Any]) -> str | None:
        text = template.render(image)
        return key_text(field, text) if text else None

    return sparse
