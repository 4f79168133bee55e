"""A table that executes what agent.protocol.onetable.expressions makes, on attribute maps, as the service's documents
say.

It refuses what the service refuses: names and values that nothing uses, two clauses on overlapping paths, a path into
what is no map. Knows no schema and shares no code with what it tests. Called by tests of expressions.
"""

from __future__ import annotations

import copy
import re
from decimal import Decimal
from typing import Any

Key = tuple[str, str]
_CLAUSE = re.compile(r"\b(SET|REMOVE|ADD|DELETE) ")


class Refused(Exception):
    """A condition did not hold: nothing was written."""


class ExpressionTable:
    """Items by key, each an attribute map with its keys."""

    def __init__(self) -> None:
        self.items: dict[Key, dict[str, Any]] = {}

    def run(self, actions: tuple[dict[str, Any], ...]) -> None:
        """All of a transaction, or nothing."""
        keys = [_key(next(iter(action.values()))) for action in actions]
        assert len(set(keys)) == len(keys), "two actions on one item"
        after = copy.deepcopy(self.items)
        for action, key in zip(actions, keys, strict=True):
            ((kind, parameters),) = action.items()
            _check_use(parameters)
            condition = parameters.get("ConditionExpression")
            if condition and not all(
                _holds(part, parameters, self.items.get(key, {})) for part in condition.split(" and ")
            ):
                raise Refused(condition)
            if kind == "Put":
                after[key] = copy.deepcopy(parameters["Item"])
            elif kind == "Delete":
                after.pop(key, None)
            else:
                after[key] = _updated({**after.get(key, {}), **parameters["Key"]}, parameters)
        self.items = after


def _key(parameters: dict[str, Any]) -> Key:
    holder = parameters.get("Key") or parameters["Item"]
    return holder["pk"]["S"], holder["sk"]["S"]


def _check_use(parameters: dict[str, Any]) -> None:
    text = f"{parameters.get('UpdateExpression', '')} {parameters.get('ConditionExpression', '')}"
    used = set(re.findall(r"[#:]\w+", text))
    given = {*parameters.get("ExpressionAttributeNames", {}), *parameters.get("ExpressionAttributeValues", {})}
    assert used == given, f"used and given differ: {sorted(used ^ given)}"


def _path(text: str, parameters: dict[str, Any]) -> list[str]:
    return [parameters["ExpressionAttributeNames"][name] for name in text.split(".")]


def _value(item: dict[str, Any], path: list[str]) -> Any:
    found: Any = {"M": item}
    for name in path:
        found = found.get("M", {}).get(name) if found else None
    return found


def _holds(condition: str, parameters: dict[str, Any], item: dict[str, Any]) -> bool:
    match = re.fullmatch(r"attribute_(not_)?exists\((.+)\)", condition.strip())
    if match:
        return (_value(item, _path(match[2], parameters)) is None) == bool(match[1])
    left, right = condition.split(" = ")
    return bool(_value(item, _path(left.strip(), parameters)) == parameters["ExpressionAttributeValues"][right.strip()])


def _updated(item: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    before, after = item, copy.deepcopy(item)
    parts = _CLAUSE.split(parameters.get("UpdateExpression", ""))[1:]
    clauses = [
        (kind, clause)
        for kind, text in zip(parts[::2], parts[1::2], strict=True)
        for clause in re.split(r",(?![^(]*\))", text)
    ]
    paths = [_path(clause.split()[0], parameters) for _, clause in clauses]
    for one in paths:
        for other in paths:
            assert one is other or one != other[: len(one)], f"paths overlap: {one} and {other}"
    for (kind, clause), path in zip(clauses, paths, strict=True):
        holder = after if len(path) == 1 else (_value(after, path[:-1]) or {}).get("M")
        assert holder is not None, f"no map at {path[:-1]}"
        words = clause.strip().split(None, 1)
        if kind == "REMOVE":
            holder.pop(path[-1], None)
        elif kind == "SET":
            holder[path[-1]] = _evaluated(words[1].removeprefix("= "), parameters, before)
        else:
            value = parameters["ExpressionAttributeValues"][words[1]]
            assert len(path) == 1
            _combine(holder, path[-1], kind, value)
    return after


def _evaluated(text: str, parameters: dict[str, Any], item: dict[str, Any]) -> Any:
    text = text.strip()
    if text.startswith("list_append("):
        inner = re.fullmatch(r"list_append\((if_not_exists\(.+?\)), (:\w+)\)", text)
        assert inner, text
        return {
            "L": _evaluated(inner[1], parameters, item)["L"] + parameters["ExpressionAttributeValues"][inner[2]]["L"]
        }
    match = re.fullmatch(r"if_not_exists\((.+), (:\w+)\)", text)
    if match:
        present = _value(item, _path(match[1], parameters))
        return present if present is not None else parameters["ExpressionAttributeValues"][match[2]]
    return copy.deepcopy(parameters["ExpressionAttributeValues"][text])


def _combine(holder: dict[str, Any], name: str, kind: str, value: dict[str, Any]) -> None:
    ((tag, elements),) = value.items()
    old = holder.get(name)
    if tag == "N":
        assert kind == "ADD"
        holder[name] = {"N": str(Decimal(old["N"] if old else "0") + Decimal(elements))}
        return
    present = old[tag] if old else []
    left = sorted({*present, *elements} if kind == "ADD" else set(present) - set(elements))
    if left:
        holder[name] = {tag: left}
    else:
        holder.pop(name, None)
