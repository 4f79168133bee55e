"""Binds the variables of templates to the fields that they name, and says which cannot be.

A template of a nested field sees its neighbours in the same object, one of a top field all top fields. Called by
agent.protocol.onetable.field_reader and model_reader.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from agent.protocol.keys import HASH, SORT
from agent.protocol.onetable.fields import BUFFERS, Field
from agent.protocol.onetable.inspector import Inspector, did_you_mean
from agent.protocol.onetable.json5 import Node
from agent.protocol.onetable.template import IDS, Part, Template, Variable

_NO_TEXT = ("array", "set", *BUFFERS)


class Binder:
    """The templates among the fields of one object. `owner`: the model, or the model and path of a nested object."""

    __slots__ = ("_key", "_known", "_nodes", "_owner", "_parts_of", "_see", "_stamps", "_top")

    def __init__(
        self,
        see: Inspector,
        owner: str,
        key: str,
        nodes: Mapping[str, Node],
        known: Mapping[str, Field],
        parts_of: Mapping[str, tuple[Part, ...]],
        *,
        top: bool = False,
        stamps: Collection[str] = (),
    ) -> None:
        self._see = see
        self._owner = owner
        self._key = key
        self._nodes = nodes
        self._known = known
        self._parts_of = parts_of
        self._top = top
        self._stamps = stamps

    def with_template(self, field: Field) -> Field:
        template = self.template(field.name)
        return field if template is None else replace(field, template=template)

    def template(self, name: str) -> Template | None:
        """The template of a field, other templates put in where it uses them; None when it has none, or a wrong one."""
        parts = self._expand(name, name, ())
        return None if parts is None else Template(self._nodes[name].value["value"].value, parts)

    def scope(self, name: str, parts: tuple[Part, ...]) -> Template | None:
        """The scope of a unique field."""
        node = self._nodes[name].value["scope"]
        key = f"{self._key}.{name}.scope"
        bound: list[Part] = []
        for part in parts:
            if isinstance(part, Variable):
                if part.name in IDS and part.name not in self._known:
                    hint = "give the model a field for it"
                    self._see.note(node, key, f"'${{{part.name}}}' is no field of {self._owner}", hint)
                    return None
                variable = self._bound(part, node, key, name)
                if variable is None:
                    return None
                bound.append(variable)
            else:
                bound.append(part)
        return Template(node.value, tuple(bound))

    def _expand(self, name: str, root: str, inside: tuple[str, ...]) -> tuple[Part, ...] | None:
        if name not in self._parts_of:
            return None
        node = self._nodes[root].value["value"]
        key = f"{self._key}.{root}.value"
        out: list[Part] = []
        for part in self._parts_of[name]:
            if isinstance(part, str):
                out.append(part)
                continue
            if part.name in self._parts_of and not part.path and not part.pad_size:
                if part.name in (*inside, name):
                    self._see.note(node, key, f"'${{{part.name}}}' goes round in a circle")
                    return None
                deeper = self._expand(part.name, root, (*inside, name))
                if deeper is None:
                    return None
                out.extend(deeper)
                continue
            bound = self._bound(part, node, key, root)
            if bound is None:
                return None
            out.append(bound)
        return tuple(out)

    def _bound(self, part: Variable, node: Node, key: str, root: str) -> Variable | None:
        field = self._known.get(part.name)
        stamped = part.name in self._stamps
        if stamped and self._top and root in (HASH, SORT):
            field = None  # a key must be known before the write, and stay
        if field is None:
            if self._top and part.name in IDS and not part.path:
                return part  # from the context alone: a model need not have a field for it
            if self._top and (stamped or part.name in (HASH, SORT)):
                self._see.note(node, key, f"'${{{part.name}}}' cannot be used in a template")
            else:
                useless = (HASH, SORT, *self._stamps) if root in (HASH, SORT) else (HASH, SORT)
                names = [name for name in dict.fromkeys((*self._known, *IDS)) if name not in useless]
                hint = did_you_mean(part.name, names)
                self._see.note(node, key, f"'${{{part.name}}}' is no field of {self._owner}", hint)
            return None
        if (field.type == "object") != bool(part.path) or field.type in _NO_TEXT:
            need = "needs a path into it" if field.type == "object" else f"cannot be used: its type is {field.type!r}"
            self._see.note(node, key, f"'${{{'.'.join((part.name, *part.path))}}}' {need}")
            return None
        attributes: list[str] = []
        here: Field | None = field
        for step in part.path:
            sub = next((f for f in here.fields or () if f.name == step), None) if here else None
            if here is not None and here.fields is not None and sub is None:
                hint = did_you_mean(step, [f.name for f in here.fields])
                self._see.note(node, key, f"{here.path!r} has no field {step!r}", hint)
                return None
            attributes.append(sub.attribute if sub else step)
            here = sub
        variable = replace(part, attribute=field.attribute, path=tuple(attributes))
        return variable if here is None else self._dated(variable, here, self._known.get(root))

    @staticmethod
    def _dated(variable: Variable, field: Field, root: Field | None) -> Variable:
        """A date in a template has the form that the template's own field would store."""
        iso = root is not None and root.iso
        if field.type != "date" or (field.iso == iso and not field.ttl):
            return variable
        return replace(variable, date="iso" if iso else "ms", ttl=field.ttl)
