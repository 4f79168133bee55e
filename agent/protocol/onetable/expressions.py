"""What an application writes, as requests to DynamoDB: conditions, update expressions, transactions for unique values.

Data only: who sends it needs no more than the service's client. Called by applications in the cloud that write through
the schema; devices write images, and the relay puts those. An update changes what it is given and nothing else, and an
object marked `partial` leaf by leaf. What cannot be told from the properties alone (a template of which one variable is
given, a unique value that changes) needs the stored item as `before`; without it the write is refused, never done by
half. Errors are ModelErrors: those of the model, and `before`, `operation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.protocol.errors import ModelError
from agent.protocol.keys import HASH, SORT
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.assignments import UNKNOWN, Assignments, Before, Unknown, needs_before
from agent.protocol.onetable.attributes import AttributeMap, key_attributes, to_item
from agent.protocol.onetable.fields import Field
from agent.protocol.onetable.layout import Layout
from agent.protocol.onetable.model import Model
from agent.protocol.onetable.unique import UNIQUE_TYPE, unique_key
from agent.protocol.onetable.update_expression import UpdateExpression
from agent.protocol.onetable.writing import NewId
from agent.protocol.process import Context

ABSENT: Final = "attribute_not_exists(#pk) and attribute_not_exists(#sk)"
PRESENT: Final = "attribute_exists(#pk) and attribute_exists(#sk)"
_KEY_NAMES: Final = {"#pk": HASH, "#sk": SORT}
Action = dict[str, dict[str, Any]]  # one of Put, Update, Delete -> its parameters
_OPERATION: Final = {"Put": "put_item", "Update": "update_item", "Delete": "delete_item"}


@dataclass(frozen=True, slots=True)
class Write:
    """One write of an application. `actions`: in the form of TransactWriteItems, the item's own last."""

    key: Key
    actions: tuple[Action, ...]

    def request(self) -> tuple[str, dict[str, Any]]:
        """(method of the service's client, its arguments): a single request, or a transaction when there are several
        actions."""
        if len(self.actions) > 1:
            return "transact_write_items", {"TransactItems": list(self.actions)}
        ((kind, parameters),) = self.actions[0].items()
        return _OPERATION[kind], parameters


class Requests:
    """The writes of one model into one table. `new_id`: see Model.create. Times in milliseconds since 1970."""

    __slots__ = ("_assignments", "_fields", "_layout", "_model", "_table")

    def __init__(self, model: Model, table: str) -> None:
        self._model = model
        self._table = table
        self._fields = {field.name: field for field in model.definition.fields}
        self._layout = Layout(self._fields.values())
        self._assignments = Assignments(model, self._layout)

    # --- operations

    def create(self, props: Mapping[str, Any], context: Context, now_ms: int, new_id: NewId) -> Write:
        """Fails when there is such an item, or one with the same unique value."""
        key, image = self._model.create(props, context, now_ms, new_id)
        uniques = [self._put_unique(unique) for unique in self._model.unique_keys(key, image)]
        put = self._put(to_item(key, image))
        return Write(key, (*uniques, put))

    def update(
        self,
        props: Mapping[str, Any],
        context: Context,
        now_ms: int,
        *,
        before: Image | Unknown = UNKNOWN,
        add: Mapping[str, Any] | None = None,
        delete: Mapping[str, Any] | None = None,
        push: Mapping[str, Any] | None = None,
    ) -> Write:
        """Fails when there is no such item. A property that is None is removed. `add`: to numbers, or elements to sets;
        `delete`: elements from sets; `push`: elements to the end of arrays."""
        model = self._model
        key = model.key(props, context)
        expression = UpdateExpression()
        after = before if isinstance(before, Unknown) else model.update(key, before, props, context, now_ms)
        self._assignments.update(expression, key, props, context, now_ms, before, after)
        self._arithmetic(expression, props, add or {}, delete or {}, push or {})
        conditions, uniques = self._changed_uniques(expression, key, props, before, after)
        return Write(key, (*uniques, self._update(key, expression, (PRESENT, *conditions))))

    def upsert(
        self, props: Mapping[str, Any], context: Context, now_ms: int, new_id: NewId, *, before: Before = UNKNOWN
    ) -> Write:
        """Makes the item, or changes it as `update` does; what it has already is never replaced by a default."""
        if before is None:
            return self.create(props, context, now_ms, new_id)
        if not isinstance(before, Unknown):
            return self.update(props, context, now_ms, before=before)
        model = self._model
        if model.unique_fields:
            needs_before(model.name, f"{model.unique_fields[0].name} is unique")
        key, image = model.create(props, context, now_ms, new_id)
        expression = UpdateExpression()
        self._assignments.upsert(expression, props, context, now_ms, self._layout.open(key, image))
        return Write(key, (self._update(key, expression, ()),))

    def remove(self, props: Mapping[str, Any], context: Context, *, before: Before = UNKNOWN) -> Write:
        """Succeeds also when there is no such item."""
        model = self._model
        key = model.key(props, context)
        if not model.unique_fields or before is None:
            return Write(key, ({"Delete": {"TableName": self._table, "Key": key_attributes(key)}},))
        if isinstance(before, Unknown):
            needs_before(model.name, f"{model.unique_fields[0].name} is unique")
        expression = UpdateExpression()
        opened = self._layout.open(key, before)
        conditions = [self._unchanged(expression, field, opened) for field in model.unique_fields]
        freed = [self._delete_unique(unique) for unique in self._old_uniques(opened).values()]
        delete: dict[str, Any] = {"TableName": self._table, "Key": key_attributes(key)}
        delete["ConditionExpression"] = " and ".join(conditions)
        expression.name_and_value(delete)
        return Write(key, (*freed, {"Delete": delete}))

    # --- add, delete, push

    def _arithmetic(
        self,
        expression: UpdateExpression,
        props: Mapping[str, Any],
        add: Mapping[str, Any],
        delete: Mapping[str, Any],
        push: Mapping[str, Any],
    ) -> None:
        for kind, wanted, types in (
            ("add", add, ("number", "set")),
            ("delete", delete, ("set",)),
            ("push", push, ("array",)),
        ):
            for name, value in wanted.items():
                field = self._arithmetic_field(kind, name, types, props)
                stored = self._assignments.stored(field, value)
                if kind == "push":
                    expression.append((field.attribute,), stored)
                elif kind == "add":
                    expression.add((field.attribute,), stored)
                else:
                    expression.delete((field.attribute,), stored)

    def _arithmetic_field(self, kind: str, name: str, types: tuple[str, ...], props: Mapping[str, Any]) -> Field:
        field = self._fields.get(name)
        if field is None:
            raise ModelError("operation", f"{self._model.name}: {kind}: no field {name!r}", model=self._model.name)
        if field.type not in types or field.packed or field.encode or field.unique:
            field.refuse("operation", f"cannot {kind}: that goes with plain fields of type {' or '.join(types)}")
        if name in props:
            field.refuse("operation", f"is given, and {kind} changes it too")
        used = [other.name for other in self._fields.values() if other.template and _uses(other, name)]
        if used or name in self._model.key_names:
            field.refuse("operation", f"cannot {kind}: {', '.join(used) or 'the key'} is made of it")
        return field

    # --- unique values

    def _old_uniques(self, opened: Image) -> dict[str, Key]:
        """Field -> the key that its stored value has; an item that lacks its scope has none."""
        found: dict[str, Key] = {}
        for field in self._model.unique_fields:
            try:
                key = unique_key(field, opened)
            except ModelError:
                continue
            if key is not None:
                found[field.name] = key
        return found

    def _changed_uniques(
        self, expression: UpdateExpression, key: Key, props: Mapping[str, Any], before: Before, after: Before
    ) -> tuple[list[str], list[Action]]:
        """Conditions of the item's own update, and the actions that free the old values and take the new ones."""
        # A field of the key is given on every update and cannot change.
        changing = frozenset(props) - self._model.key_names
        touched = [field for field in self._model.unique_fields if not changing.isdisjoint(_unique_names(field))]
        if not touched:
            return [], []
        if isinstance(before, Unknown) or isinstance(after, Unknown):
            needs_before(self._model.name, f"{touched[0].name} is unique")
        opened, changed = self._layout.open(key, before or {}), self._layout.open(key, after or {})
        old = self._old_uniques(opened)
        conditions: list[str] = []
        actions: list[Action] = []
        for field in touched:
            old_key, new_key = old.get(field.name), unique_key(field, changed)
            if old_key == new_key:
                continue
            conditions.append(self._unchanged(expression, field, opened))
            if old_key is not None:
                actions.append(self._delete_unique(old_key))
            if new_key is not None:
                actions.append(self._put_unique(new_key))
        return conditions, actions

    def _unchanged(self, expression: UpdateExpression, field: Field, opened: Image) -> str:
        """That what the key of the unique item was made of is still so: it was read outside the transaction."""
        conditions = [expression.equals(field.packed or (field.attribute,), opened.get(field.attribute))]
        for variable in field.scope.variables if field.scope else ():
            other = self._fields[variable.name]
            if other.encode is None:
                conditions.append(expression.equals(other.packed or (other.attribute,), opened.get(other.attribute)))
        return " and ".join(conditions)

    def _put_unique(self, key: Key) -> Action:
        item = to_item(key, {self._model.type_field: UNIQUE_TYPE})
        return self._put(item)

    def _delete_unique(self, key: Key) -> Action:
        return {"Delete": {"TableName": self._table, "Key": key_attributes(key)}}

    # --- requests

    def _put(self, item: AttributeMap) -> Action:
        names = dict(_KEY_NAMES)
        return {
            "Put": {
                "TableName": self._table,
                "Item": item,
                "ConditionExpression": ABSENT,
                "ExpressionAttributeNames": names,
            }
        }

    def _update(self, key: Key, expression: UpdateExpression, conditions: tuple[str, ...]) -> Action:
        parameters: dict[str, Any] = {"TableName": self._table, "Key": key_attributes(key)}
        text = expression.text()
        if text:
            parameters["UpdateExpression"] = text
        if conditions:
            parameters["ConditionExpression"] = " and ".join(conditions)
        expression.name_and_value(parameters, _KEY_NAMES if conditions else {})
        return {"Update": parameters}


def _uses(field: Field, name: str) -> bool:
    return field.template is not None and any(variable.name == name for variable in field.template.variables)


def _unique_names(field: Field) -> list[str]:
    templates = [template for template in (field.scope, field.template) if template is not None]
    return [field.name, *(variable.name for template in templates for variable in template.variables)]
