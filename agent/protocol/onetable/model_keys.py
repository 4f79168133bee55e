"""The keys of one model's items: made from properties and context, looked for, compared.

Never does I/O, never changes an image. The base of agent.protocol.onetable.model.Model, which adds the fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from agent.protocol.errors import ModelError
from agent.protocol.keys import HASH, HASH_BYTES_MAX, SORT, SORT_BYTES_MAX
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.definition import Definition
from agent.protocol.onetable.fields import shown
from agent.protocol.onetable.template import IDS, id_of, pattern
from agent.protocol.onetable.writing import writer
from agent.protocol.process import Context, Sync


class Keyed:
    """What a model knows of its keys. Errors are ModelErrors with the code `key`, and those of the fields in a key."""

    __slots__ = ("_definition", "_key_ids", "_key_names", "_key_plan", "name", "sync")

    def __init__(self, definition: Definition) -> None:
        self.name = definition.name
        self.sync: Sync = definition.process.sync
        self._definition = definition
        templates = (definition.hash_template, definition.sort_template)
        variables = [variable for template in templates if template for variable in template.variables]
        names = tuple(dict.fromkeys(variable.name for variable in variables))
        modelled = {field.name: field for field in definition.fields}
        self._key_names = frozenset(names)
        self._key_ids = tuple(name for name in names if name not in modelled)
        self._key_plan = tuple(
            (name, modelled[name].attribute, writer(modelled[name], True), name in IDS)
            for name in names
            if name in modelled
        )

    @property
    def key_names(self) -> frozenset[str]:
        """The names of the fields that the key is made of."""
        return self._key_names

    def key(self, props: Mapping[str, Any], context: Context) -> Key:
        """The key that `props` and the context give. Raises ModelError "key" when a variable is missing."""
        return self._key(props, self._scope(props, context), context)

    def _scope(self, props: Mapping[str, Any], context: Context) -> Image:
        """The variables of the key that are fields, as they are stored. Ids are the context's, where it has them."""
        scope: Image = {}
        for name, attribute, write, is_id in self._key_plan:
            value = (id_of(name, context) or props.get(name)) if is_id else props.get(name)
            if value is not None:
                scope[attribute] = write(value)
        return scope

    def search(self, props: Mapping[str, Any], context: Context) -> tuple[str, str]:
        """Where the items are that have these properties: the hash key, and how their sort keys begin (the template up
        to its first variable that is not given). Raises ModelError "key" when the hash key cannot be told."""
        scope = {name: text for name in self._key_ids if (text := id_of(name, context))}
        scope.update(self._scope(props, context))
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

    def _key(self, props: Mapping[str, Any], scope: Image, context: Context) -> Key:
        if self._key_ids:
            scope = {**scope, **{name: text for name in self._key_ids if (text := id_of(name, context))}}
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

    def _same_key(self, key: Key, current: Image, image: Image) -> None:
        """Rendered from both images, so that an item whose key was given by hand can change too. What its key says
        anyway may be put into an item that another program has written without it."""
        for template, part in zip((self._definition.hash_template, self._definition.sort_template), key, strict=True):
            if template is not None and template.render(image) not in (part, template.render(current)):
                names = ", ".join(dict.fromkeys(variable.name for variable in template.variables))
                self._refuse("key", f"{names} of an item cannot change: the key {template.text!r} holds it")

    def _ids_of(self, key: Key) -> dict[str, str]:
        """The ids that only the key holds (a model need not have fields for them)."""
        found: dict[str, str] = {}
        for template, text in zip((self._definition.hash_template, self._definition.sort_template), key, strict=True):
            match = re.match(pattern(template.prefix), text) if template else None
            if match:
                found.update(match.groupdict())
        return {name: found[name] for name in self._key_ids if name in found}
