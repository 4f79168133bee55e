"""One update expression under construction: clauses, and the names and values that they stand for.

Knows DynamoDB's grammar and no schema. Called by agent.protocol.onetable.expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent.protocol.errors import ModelError
from agent.protocol.onetable.attributes import Attribute, to_attribute

Path = tuple[str, ...]  # attribute, members
_CLAUSES: Final = ("SET", "REMOVE", "ADD", "DELETE")


class UpdateExpression:
    """Each path is changed once: a later clause for the same path replaces the earlier one."""

    __slots__ = ("_clauses", "_count", "_names", "_values")

    def __init__(self) -> None:
        self._clauses: dict[Path, tuple[str, str, tuple[str, ...]]] = {}  # kind, text, placeholders of values
        self._count = 0
        self._names: dict[str, str] = {}  # attribute -> placeholder
        self._values: dict[str, Attribute] = {}  # placeholder -> value

    def set(self, path: Path, value: Any) -> None:
        self._put(path, "SET", "{0} = {1}", value)

    def set_if_absent(self, path: Path, value: Any) -> None:
        self._put(path, "SET", "{0} = if_not_exists({0}, {1})", value)

    def append(self, path: Path, values: list[Any]) -> None:
        """To the end of a list, which need not be there."""
        self._put(path, "SET", "{0} = list_append(if_not_exists({0}, {1}), {2})", [], values)

    def remove(self, path: Path) -> None:
        self._put(path, "REMOVE", "{0}")

    def add(self, path: Path, value: Any) -> None:
        self._put(path, "ADD", "{0} {1}", value)

    def delete(self, path: Path, value: Any) -> None:
        self._put(path, "DELETE", "{0} {1}", value)

    def _put(self, path: Path, kind: str, form: str, *given: Any) -> None:
        replaced = self._clauses.pop(path, None)
        for placeholder in replaced[2] if replaced is not None else ():
            del self._values[placeholder]  # the service refuses a value that nothing uses
        placeholders = tuple(self._value(path, value) for value in given)
        self._clauses[path] = kind, form.format(self._place(path), *placeholders), placeholders

    def equals(self, path: Path, value: Any) -> str:
        """A condition: the stored value is this one, or (None) there is none."""
        place = self._place(path)
        return f"attribute_not_exists({place})" if value is None else f"{place} = {self._value(path, value)}"

    def text(self) -> str:
        """The clauses by kind, in the order in which they came."""
        parts = []
        for kind in _CLAUSES:
            clauses = [text for of_kind, text, _ in self._clauses.values() if of_kind == kind]
            if clauses:
                parts.append(f"{kind} {', '.join(clauses)}")
        return " ".join(parts)

    def name_and_value(self, parameters: dict[str, Any], more_names: Mapping[str, str] | None = None) -> None:
        """Adds to a request what its expressions stand for."""
        names = {**(more_names or {}), **{placeholder: name for name, placeholder in self._names.items()}}
        if names:
            parameters["ExpressionAttributeNames"] = names
        if self._values:
            parameters["ExpressionAttributeValues"] = dict(self._values)

    def _place(self, path: Path) -> str:
        return ".".join(self._names.setdefault(name, f"#n{len(self._names)}") for name in path)

    def _value(self, path: Path, value: Any) -> str:
        placeholder = f":v{self._count}"
        self._count += 1
        try:
            self._values[placeholder] = to_attribute(value)
        except ValueError as error:
            raise ModelError("type", f"attribute {'.'.join(path)!r}: {error}", field=path[0]) from None
        return placeholder
