"""Helpers that look at a schema's nodes and note what is wrong with them, each mistake with its place and a hint.

Never raises for a mistake: it notes it and goes on, so that a person sees all of them at once.
Called by agent.protocol.onetable.model_reader, agent.protocol.onetable.rules and agent.protocol.onetable.loader.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from agent.protocol.errors import Problem
from agent.protocol.onetable.json5 import Node

T = TypeVar("T")
_KINDS = {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}


def kind_of(value: Any) -> str:
    return _KINDS.get(type(value), "a number")


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A hint: the nearest known name, else all of them when they are few."""
    import difflib  # here: it takes long to import, and is for mistakes only

    folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), folded, 1, 0.6)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    return f"known: {', '.join(known)}" if 0 < len(known) <= 20 else ""


def path_of(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


class Inspector:
    """Collects problems. `key`s are paths such as `models.Fault.code.type`."""

    __slots__ = ("problems",)

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self.problems = list(problems)

    def note(self, node: Node, key: str, message: str, hint: str = "", *, at_name: bool = False) -> None:
        """A mistake in a value, or with `at_name` in the name before it."""
        offset = node.key_offset if at_name else node.offset
        self.problems.append(node.source.problem(offset, key, message, hint))

    def members(self, node: Node, key: str) -> dict[str, Node]:
        """The members of an object; none, and a note, for any other value."""
        if isinstance(node.value, dict):
            return node.value
        self.note(node, key, f"expected an object, found {kind_of(node.value)}")
        return {}

    def known_members(self, node: Node, key: str, known: Collection[str]) -> dict[str, Node]:
        """The members that the format knows; a note for every other."""
        members = self.members(node, key)
        for name, member in members.items():
            if name not in known:
                self.note(member, path_of(key, name), f"unknown key {name!r}", did_you_mean(name, known), at_name=True)
        return {name: member for name, member in members.items() if name in known}

    def text(self, members: dict[str, Node], key: str, name: str, default: str) -> str:
        node = members.get(name)
        if node is None:
            return default
        if isinstance(node.value, str) and node.value:
            return node.value
        found = "an empty text" if node.value == "" else kind_of(node.value)
        self.note(node, path_of(key, name), f"expected a text, found {found}")
        return default

    def flag(self, members: dict[str, Node], key: str, name: str, default: bool) -> bool:
        node = members.get(name)
        if node is None:
            return default
        if isinstance(node.value, bool):
            return node.value
        self.note(node, path_of(key, name), f"expected true or false, found {kind_of(node.value)}")
        return default

    def choice(self, members: dict[str, Node], key: str, name: str, known: Collection[T], default: T) -> T:
        """One of a few values."""
        node = members.get(name)
        if node is None:
            return default
        for value in known:
            if type(value) is type(node.value) and value == node.value:
                return value
        texts = [str(value).lower() if isinstance(value, bool) else str(value) for value in known]
        hint = did_you_mean(node.value, texts) if isinstance(node.value, str) else ""
        expected = f"expected one of {', '.join(texts)}"
        found = repr(node.value)[:60] if isinstance(node.value, str) else kind_of(node.value)
        self.note(node, path_of(key, name), f"{expected}; found {found}", hint if hint.startswith("did") else "")
        return default

    def number(self, members: dict[str, Node], key: str, name: str, default: float) -> float:
        """A finite number that is not negative."""
        node = members.get(name)
        if node is None:
            return default
        value = node.value
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
            return value
        found = kind_of(value) if not isinstance(value, (int, float)) or isinstance(value, bool) else repr(value)[:60]
        self.note(node, path_of(key, name), f"expected a number that is not negative, found {found}")
        return default
