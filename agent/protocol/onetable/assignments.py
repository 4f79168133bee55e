"""Which attributes and members a write assigns: the clauses of an update, without reading the item where that will do.

Never decides about keys, conditions or transactions: agent.protocol.onetable.expressions does, the only caller. Errors
are ModelErrors: those of the fields, and `before` where only the stored item tells what to write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn

from agent.protocol.errors import ModelError
from agent.protocol.messages import Image, Key
from agent.protocol.onetable import values
from agent.protocol.onetable.dates import store_ms
from agent.protocol.onetable.fields import Field
from agent.protocol.onetable.layout import Layout
from agent.protocol.onetable.model import Model
from agent.protocol.onetable.template import IDS, Variable, id_of
from agent.protocol.onetable.update_expression import Path, UpdateExpression
from agent.protocol.onetable.writing import Convert, template_text, writer
from agent.protocol.process import Context


class Unknown:
    """The stored item was not read."""


UNKNOWN: Final = Unknown()
Before = Image | None | Unknown  # None: it was read, and is not there


def needs_before(model: str, why: str) -> NoReturn:
    raise ModelError("before", f"{model}: {why}: read the item first, and give it as 'before'", model=model)


class Assignments:
    """Of one model. `given` are properties; `made`, `before` and `after` images; places as layout has them."""

    __slots__ = ("_fields", "_layout", "_model", "_packs", "_writers")

    def __init__(self, model: Model, layout: Layout) -> None:
        self._model = model
        self._layout = layout
        self._fields = {field.name: field for field in model.definition.fields}
        self._writers = dict(_writers_of(self._fields.values()))
        self._packs: dict[str, list[Field]] = {}
        for field in self._fields.values():
            if field.packed:
                self._packs.setdefault(field.packed[0], []).append(field)

    def update(
        self,
        expression: UpdateExpression,
        key: Key,
        props: Mapping[str, Any],
        context: Context,
        now_ms: int,
        before: Before,
        after: Before,
    ) -> None:
        """`after`: what `before` becomes; both unknown where the item was not read."""
        type_field = self._model.type_field
        if not isinstance(before, Unknown) and before is not None and before.get(type_field) != self._model.name:
            expression.set((type_field,), self._model.name)
        for name, value in props.items():
            field = self._fields.get(name)
            if field is not None:
                self._put_field(expression, field, value, before, after)
        self._put_packs(expression, props, before, after)
        self._put_context(expression, props, context, before)
        self._put_templates(expression, key, props, context, now_ms, after)
        self._put_updated(expression, now_ms)

    def upsert(
        self, expression: UpdateExpression, props: Mapping[str, Any], context: Context, now_ms: int, made: Image
    ) -> None:
        """`made`: the item as it would be created, open."""
        model = self._model
        expression.set((model.type_field,), model.name)
        for field in self._fields.values():
            self._upsert_field(expression, field, props, context, made)
        created = model.definition.created
        if created is not None:
            expression.set_if_absent((created.attribute,), made[created.attribute])
        self._put_updated(expression, now_ms)

    # --- one field

    def stored(self, field: Field, value: Any) -> Any:
        """A value of a field, or of one within a partial object, in stored form."""
        return self._writers[field.path](value)

    def _put_field(self, expression: UpdateExpression, field: Field, value: Any, before: Before, after: Before) -> None:
        if field.encode is not None or field.packed is not None:
            return
        path: Path = (field.attribute,)
        if value is None:
            self._put_none(expression, field, path)
        elif _by_leaves(field) and isinstance(value, Mapping):
            present = UNKNOWN if isinstance(before, Unknown) else (before or {}).get(field.attribute)
            self._put_leaves(expression, field, path, value, present)
        else:
            stored = self.stored(field, value) if isinstance(after, Unknown) else (after or {})[field.attribute]
            expression.set(path, stored)

    @staticmethod
    def _put_none(expression: UpdateExpression, field: Field, path: Path) -> None:
        if field.required:
            field.refuse("required", "is required: it cannot be removed")
        if field.nulls:
            expression.set(path, None)
        else:
            expression.remove(path)

    def _put_leaves(
        self, expression: UpdateExpression, field: Field, path: Path, given: Mapping[str, Any], present: Any
    ) -> None:
        """A partial object, leaf by leaf; whole where the stored item is known to have no object there."""
        known = not isinstance(present, Unknown)
        members = values.members_of(present) if known else None
        if known and members is None:
            expression.set(path, self.stored(field, given))
            return
        subs = field.fields or ()
        if not known and not any(sub.name in given for sub in subs):
            expression.set_if_absent(path, {})
        scope: Image = dict(members or {})
        for sub in subs:
            if sub.name not in given:
                continue
            value = given[sub.name]
            below = (*path, sub.attribute)
            if value is None:
                self._put_none(expression, sub, below)
                scope.pop(sub.attribute, None)
            elif _by_leaves(sub) and isinstance(value, Mapping):
                self._put_leaves(expression, sub, below, value, scope.get(sub.attribute) if known else UNKNOWN)
            else:
                scope[sub.attribute] = self.stored(sub, value)
                expression.set(below, scope[sub.attribute])
        for sub in subs:
            if sub.template is None or sub.name in given:
                continue
            names = [variable.name for variable in sub.template.variables]
            if any(name in given for name in names):
                if not known and not all(name in given for name in names):
                    needs_before(self._model.name, f"{sub.path} is {sub.template.text!r}, of which a part is given")
                _put_text(expression, sub, (*path, sub.attribute), sub.template.render(scope))

    def _put_packs(self, expression: UpdateExpression, props: Mapping[str, Any], before: Before, after: Before) -> None:
        """Fields packed into one attribute: member by member where it is there, whole where it may not be."""
        for attribute, fields in self._packs.items():
            given = [field for field in fields if field.name in props]
            if not given:
                continue
            known = not isinstance(before, Unknown)
            stored = None if isinstance(before, Unknown) or before is None else before.get(attribute)
            present = values.members_of(stored) is not None
            value = None if isinstance(after, Unknown) or after is None else after.get(attribute)
            if not isinstance(after, Unknown) and not (present and value):
                if value is None:
                    expression.remove((attribute,))
                else:
                    expression.set((attribute,), value)
            elif not known and len(given) == len(fields) and all(props[field.name] is not None for field in fields):
                whole = {_member(field): self.stored(field, props[field.name]) for field in fields}
                expression.set((attribute,), values.escaped(whole))
            else:
                for field in given:
                    path = (attribute, _member(field))
                    if props[field.name] is None:
                        self._put_none(expression, field, path)
                    else:
                        expression.set(path, self.stored(field, props[field.name]))

    def _put_context(
        self, expression: UpdateExpression, props: Mapping[str, Any], context: Context, before: Before
    ) -> None:
        """The ids of who acts, but over nothing that is known to be there: a unique value may have one as its scope."""
        for name in IDS:
            field = self._fields.get(name)
            value = id_of(name, context)
            if field is None or not value or field.encode is not None or field.packed is not None:
                continue
            if isinstance(before, Unknown) or (name not in props and field.attribute not in (before or {})):
                expression.set((field.attribute,), self.stored(field, value))

    def _put_updated(self, expression: UpdateExpression, now_ms: int) -> None:
        updated = self._model.definition.updated
        if updated is not None:
            expression.set((updated.attribute,), store_ms(now_ms, iso=updated.iso, ttl=False))

    # --- templates

    def _put_templates(
        self,
        expression: UpdateExpression,
        key: Key,
        props: Mapping[str, Any],
        context: Context,
        now_ms: int,
        after: Before,
    ) -> None:
        updated = self._model.definition.updated
        stamp = updated.name if updated is not None else ""
        changed = {*props, stamp}
        scope: Image | None = None
        for field in self._fields.values():
            if field.template is None or field.name in props:
                continue
            variables = field.template.variables
            if changed.isdisjoint([variable.name for variable in variables]):
                continue
            if isinstance(after, Unknown):
                scope = scope or self._scope(key, props, context, now_ms)
                for variable in variables:
                    if not self._is_told(variable, props, scope):
                        why = f"{field.name} is {field.template.text!r}, and {variable.name} is not given"
                        needs_before(self._model.name, why)
            else:
                scope = scope or self._layout.open(key, after or {})
            _put_text(expression, field, (field.attribute,), self._model.render(field, scope))

    def _in_context(self, name: str, context: Context) -> bool:
        return name in self._fields and bool(id_of(name, context))

    def _scope(self, key: Key, props: Mapping[str, Any], context: Context, now_ms: int) -> Image:
        """What is known of the item without reading it."""
        scope = self._layout.open(key, {})
        for name, field in self._fields.items():
            value = id_of(name, context) or props.get(name)
            if value is not None:
                scope[field.attribute] = self._leaves(field, value)
        updated = self._model.definition.updated
        if updated is not None:
            scope[updated.attribute] = store_ms(now_ms, iso=updated.iso, ttl=False)
        return scope

    def _leaves(self, field: Field, value: Any) -> Any:
        """In stored form: of a partial object what is given of it, of any other field the whole value."""
        if not _by_leaves(field) or not isinstance(value, Mapping):
            return self.stored(field, value)
        given = [sub for sub in field.fields or () if value.get(sub.name) is not None]
        return {sub.attribute: self._leaves(sub, value[sub.name]) for sub in given}

    def _is_told(self, variable: Variable, props: Mapping[str, Any], scope: Image) -> bool:
        """Whether a variable can be told without the stored item, also when that is: it has no value."""
        if variable.name in props and props[variable.name] is None:
            return True
        value = scope.get(variable.attribute)
        if not variable.path or not _by_leaves(self._fields[variable.name]):
            return value is not None
        for name in variable.path:
            value = value.get(name) if isinstance(value, dict) else None
        return value is not None

    # --- upsert

    def _upsert_field(
        self,
        expression: UpdateExpression,
        field: Field,
        props: Mapping[str, Any],
        context: Context,
        made: Image,
    ) -> None:
        given = props.get(field.name) is not None or self._in_context(field.name, context)
        if field.encode is not None:
            return
        if field.packed is not None:
            self._upsert_packed(expression, field, props, made)
        elif given and _by_leaves(field):
            needs_before(self._model.name, f"{field.name} is partial")
        elif given:
            expression.set((field.attribute,), made[field.attribute])
        elif field.name in props:
            self._put_none(expression, field, (field.attribute,))
        elif field.template is not None:
            self._upsert_template(expression, field, props, context, made)
        elif field.attribute in made:
            if field.name in self._model.key_names:
                expression.set((field.attribute,), made[field.attribute])  # generated for this very key
            else:
                expression.set_if_absent((field.attribute,), made[field.attribute])

    def _upsert_packed(self, expression: UpdateExpression, field: Field, props: Mapping[str, Any], made: Image) -> None:
        assert field.packed is not None
        attribute = field.packed[0]
        fields = self._packs[attribute]
        if field is not fields[0]:
            return  # the first one writes them all
        given = [props.get(other.name) is not None for other in fields]
        whole = {_member(other): made[other.attribute] for other in fields if other.attribute in made}
        if all(given):
            expression.set((attribute,), values.escaped(whole))
        elif any(other.name in props for other in fields):
            needs_before(
                self._model.name,
                f"{attribute} packs {', '.join(other.name for other in fields)}, and not all are given",
            )
        elif whole:
            expression.set_if_absent((attribute,), values.escaped(whole))

    def _upsert_template(
        self, expression: UpdateExpression, field: Field, props: Mapping[str, Any], context: Context, made: Image
    ) -> None:
        assert field.template is not None
        definition = self._model.definition
        stamps = {definition.updated.name} if definition.updated is not None else set()
        names = dict.fromkeys(variable.name for variable in field.template.variables)
        told = [
            name for name in names if props.get(name) is not None or name in stamps or self._in_context(name, context)
        ]
        encoded = [name for name in names if name in self._fields and self._fields[name].encode is not None]
        sure = {*told, *encoded, *(name for name in names if name in self._model.key_names)}
        if len(sure) == len(names):
            _put_text(expression, field, (field.attribute,), made.get(field.attribute))
        elif any(name in props for name in names) and field.attribute not in made and _removed(names, props):
            expression.remove((field.attribute,))
        elif told and any(name not in self._model.key_names for name in told):
            missing = next(name for name in names if name not in sure)
            needs_before(self._model.name, f"{field.name} is {field.template.text!r}, and {missing} is not given")
        elif field.attribute in made:
            expression.set_if_absent((field.attribute,), made[field.attribute])


def _by_leaves(field: Field) -> bool:
    return field.partial and field.fields is not None


def _writers_of(fields: Iterable[Field]) -> Iterator[tuple[str, Convert]]:
    """Path of a field -> its writer, for these fields and those within partial objects: made once, not per write."""
    for field in fields:
        yield field.path, writer(field, False)
        if _by_leaves(field):
            yield from _writers_of(field.fields or ())


def _member(field: Field) -> str:
    assert field.packed is not None
    return field.packed[1]


def _put_text(expression: UpdateExpression, field: Field, path: Path, text: str | None) -> None:
    checked = template_text(field, text)
    if checked is not None:
        expression.set(path, checked)
    else:
        expression.remove(path)


def _removed(names: Mapping[str, None], props: Mapping[str, Any]) -> bool:
    return any(name in props and props[name] is None for name in names)
