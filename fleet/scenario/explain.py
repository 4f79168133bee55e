"""Turns pydantic's errors into problems that a person can act on: the place in the file, what was expected, a guess.

Used by fleet.scenario.load only; knows the scenario's models, to guess at misspelt keys.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from fleet.scenario.document import Document, Path_
from fleet.scenario.faults import KINDS
from fleet.scenario.model import Scenario

_KINDS_OF_VALUE: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
}


def guess(word: str, known: Iterable[str]) -> str:
    """`did you mean ...?`, or nothing."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(names), n=1, cutoff=0.6)
    return f"did you mean {names[close[0]]}?" if close else ""


def one_of(known: Iterable[str]) -> str:
    return "one of " + ", ".join(known)


def explain(document: Document, error: ErrorDetails) -> None:
    """Adds one problem to the document."""
    path, missing = _path(document.value, error["loc"])
    kind, context = error["type"], error.get("ctx", {})
    found = error["input"]
    if kind == "extra_forbidden":
        known = _keys(path[:-1], document.value)
        word = str(path[-1]) if path else ""
        document.complain(path, "unknown key", guess(word, known) or f"known: {', '.join(known)}", key=True)
    elif kind == "missing":
        if _is_misspelt(path, str(missing), document.value):
            return  # the unknown key says so
        document.complain(path, f"key {missing} is missing", _describe(path, str(missing), document.value))
    elif kind == "union_tag_not_found":
        document.complain(path, "key kind is missing", one_of(KINDS))
    elif kind == "union_tag_invalid":
        word = str(found.get("kind")) if isinstance(found, dict) else ""
        document.complain((*path, "kind"), f"unknown kind of fault {word!r}", guess(word, KINDS) or one_of(KINDS))
    elif kind == "literal_error":
        values = str(context.get("expected", ""))
        words = values.replace("'", "").replace(" or ", ", ").split(", ")
        document.complain(path, f"expected {values}, found {_show(found)}", guess(str(found), words))
    elif kind in _KINDS_OF_VALUE:
        document.complain(path, f"expected {_KINDS_OF_VALUE[kind]}, found {_show(found)}")
    elif kind in ("greater_than_equal", "less_than_equal"):
        word = "least" if kind == "greater_than_equal" else "most"
        limit = context.get("ge" if word == "least" else "le")
        document.complain(path, f"must be at {word} {limit}, found {_show(found)}")
    elif kind == "string_pattern_mismatch":
        hint = "letters a to z, digits and -, a letter first"
        document.complain(path, f"{_show(found)} cannot be a name", hint)
    elif kind == "too_short" and found:
        return  # elements that are wrong do not count; each has its own problem
    elif kind in ("too_short", "value_error") and not context.get("error"):
        document.complain(path, "must not be empty")
    elif kind == "value_error":
        message, _, hint = str(context["error"]).partition("; ")
        document.complain(path, message, hint)
    else:
        document.complain(path, error["msg"])


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _path(value: Any, loc: tuple[int | str, ...]) -> tuple[Path_, str | None]:
    """pydantic's location without the names of union members; and the last part, if it is a key that is not there."""
    path: list[str | int] = []
    missing = None
    for part in loc:
        listed = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if listed or (isinstance(value, dict) and part in value):
            value = value[part]
            path.append(part)
        else:
            missing = str(part)
    return tuple(path), missing


def _model_at(path: Path_, value: Any) -> type[BaseModel] | None:
    """The model that describes the mapping at `path`."""
    model: Any = Scenario
    for part in path:
        value = value[part]
        if isinstance(part, int):
            continue  # the element's type was taken from the list's already
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
        fields = {(field.alias or name): field for name, field in model.model_fields.items()}
        if part not in fields:
            return None
        model = _inner(fields[str(part)].annotation)
        if part == "faults":
            model = KINDS
    if model is KINDS:
        kind = value.get("kind") if isinstance(value, dict) else None
        return KINDS.get(kind) if isinstance(kind, str) else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _inner(annotation: Any) -> Any:
    """The model inside `X`, `X | None`, `tuple[X, ...]`, `Annotated[X, ...]`."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated or origin is tuple:
            annotation = get_args(annotation)[0]
        elif origin in (types.UnionType, Union):
            members = [one for one in get_args(annotation) if one is not type(None)]
            if len(members) != 1:
                return None
            annotation = members[0]
        else:
            return annotation


def _keys(path: Path_, value: Any) -> list[str]:
    if _model_at(path, value) is None:
        return []
    return list(_fields(path, value))


def _fields(path: Path_, value: Any) -> dict[str, str]:
    model = _model_at(path, value)
    if model is None:
        return {}
    return {field.alias or name: field.description or "" for name, field in model.model_fields.items()}


def _is_misspelt(path: Path_, key: str, value: Any) -> bool:
    """Whether the mapping at `path` has an unknown key of which `key` would be the guess."""
    known = _keys(path, value)
    for part in path:
        value = value[part]
    given = [str(name) for name in value if str(name) not in known] if isinstance(value, dict) else []
    return any(guess(name, known) == f"did you mean {key}?" for name in given)


def _describe(path: Path_, key: str, value: Any) -> str:
    text = _fields(path, value).get(key, "").split(". ")[0].rstrip(".:")
    return text[:1].lower() + text[1:]
