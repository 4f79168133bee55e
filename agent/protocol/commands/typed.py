"""Between what a person types or pipes and what the database takes: fields by their types, and back as JSON.

Never touches a file. What JSON has no type for is text where the field's type tells what it is (dates, bytes as base64,
sets as arrays), and tagged as in agent.protocol.onetable.values elsewhere. Called by the commands that take or print
items.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from agent.protocol.commands.failure import CommandError
from agent.protocol.keys import HASH, SORT
from agent.protocol.onetable import values
from agent.protocol.onetable.dates import from_ms, iso_text, to_ms
from agent.protocol.onetable.fields import BUFFERS, Field, shown
from agent.protocol.onetable.inspector import did_you_mean
from agent.protocol.onetable.model import Model
from agent.protocol.onetable.template import ACCOUNT, DEVICE, IDS
from agent.protocol.process import Context
from agent.protocol.topics import valid_id

STDIN: Final = "-"
_ASSIGNMENT: Final = re.compile(r"([^=:\s]+)(:?)=(.*)", re.S)


# --- in


def properties(
    model: Model, words: Sequence[str], context: Context, read_stdin: Callable[[], bytes], *, writing: bool
) -> dict[str, Any]:
    """The properties that the words of a command line give. Raises CommandError and ModelError."""
    given: dict[str, Any] = {}
    kept = stamps(model) if writing else ()
    piped: dict[str, Any] = {}
    key_names = [name for name in key_fields(model) if not _is_assigned(name, words)]
    for word in words:
        if word == STDIN:
            piped |= from_object(model, _piped(model, read_stdin()), context, writing=writing)
            continue
        match = _ASSIGNMENT.fullmatch(word)
        if match is not None:
            name, is_json, text = match.groups()
            field = _field(model, name, context)
            value = from_json(field, _json(text, word)) if is_json else from_text(field, text)
        elif key_names:
            field = _field(model, key_names.pop(0), context)
            name, value = field.name, from_text(field, word)
        else:
            keys = ", ".join(key_fields(model))
            raise CommandError(f"{word!r}: expected FIELD=VALUE", f"the key of {model.name} has: {keys or 'no field'}")
        if name in given:
            raise CommandError(f"{word!r}: {name} is given twice")
        if name in kept:
            raise CommandError(f"{model.name}.{name}: the database itself keeps this stamp", "leave it out")
        _check_id(model, name, value, context)
        given[name] = value
    return {**piped, **given}


def from_object(model: Model, given: Mapping[str, Any], context: Context, *, writing: bool) -> dict[str, Any]:
    """The properties that a JSON object gives. For writing, an item that was read goes in again as it is: without its
    stamps. Raises CommandError and ModelError."""
    kept = stamps(model) if writing else ()
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in kept:
            found[name] = from_json(_field(model, name, context), value)
            _check_id(model, name, found[name], context)
    return found


def checked_id(text: str | None, what: str) -> str:
    """The id of a device or an account, as --device, --account or the environment gives it; "" for none."""
    if text and not valid_id(text):
        raise CommandError(f"{text!r} is no {what}'s id", "1 to 128 letters, digits and :_.- , and not 'all'")
    return text or ""


def key_fields(model: Model) -> list[str]:
    """The fields that make the key, in its order, without the ids of device and account."""
    names: list[str] = []
    for part, template in ((HASH, model.definition.hash_template), (SORT, model.definition.sort_template)):
        if template is None:
            names.append(part)
        else:
            names += [v.name for v in template.variables if not v.path and v.name in model.fields]
    return [name for name in dict.fromkeys(names) if name not in IDS]


def _is_assigned(name: str, words: Sequence[str]) -> bool:
    return any(word.startswith((f"{name}=", f"{name}:=")) for word in words)


def stamps(model: Model) -> tuple[str, ...]:
    """The fields that the database itself keeps."""
    return tuple(field.name for field in (model.definition.created, model.definition.updated) if field is not None)


def _field(model: Model, name: str, context: Context) -> Field:
    if name in model.fields:
        return model.fields[name]
    if name in (HASH, SORT) or (name in IDS and name in model.key_names):
        return Field(model.name, name, name, name, "string")
    known = [field.name for field in model.fields.values()]
    raise CommandError(f"{model.name} has no field {name!r}", did_you_mean(name, known))


def _check_id(model: Model, name: str, value: Any, context: Context) -> None:
    known = context.device_id if name == DEVICE else context.account_id if name == ACCOUNT else ""
    if known and value != known:
        option = "--device" if name == DEVICE else "--account"
        raise CommandError(f"{model.name}.{name}: {shown(value)}, but this is {known!r}", f"leave it out, or {option}")


def _piped(model: Model, data: bytes) -> dict[str, Any]:
    try:
        value = _json(data.decode("utf-8-sig"), "standard input")
    except UnicodeDecodeError:
        raise CommandError("standard input: no UTF-8", "expected one JSON object with fields") from None
    if not isinstance(value, dict):
        raise CommandError("standard input: expected one JSON object with fields", f"of {model.name}")
    return value


def _json(text: str, where: str) -> Any:
    try:
        return parsed_json(text)
    except ValueError as error:
        shown_place = where if len(where) <= 60 else f"{where[:57]}..."
        raise CommandError(
            f"{shown_place}: no JSON: {error}", "text stands in double quotes: 'name:=\"text\"'"
        ) from None


def parsed_json(text: str, number: Callable[[str], Any] = Decimal) -> Any:
    """JSON, with all digits of its numbers unless `number` makes something else of those that are not whole. Raises
    ValueError, with a text for people, when it is none."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no number that can be stored")

    try:
        return json.loads(text, parse_float=number, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def from_text(field: Field, text: str) -> Any:
    """The value that `FIELD=TEXT` gives. Raises ModelError `type`, or CommandError."""
    if field.type == "string":
        return text
    if field.type == "number":
        try:
            return values.plain(values.parsed(text))
        except ValueError:
            field.refuse("type", f"expected a number, found {shown(text)}")
    if field.type == "boolean":
        if text not in ("true", "false"):
            field.refuse("type", f"expected true or false, found {shown(text)}")
        return text == "true"
    if field.type == "date":
        return _date(field, int(text) if re.fullmatch(r"-?\d{1,17}", text, re.ASCII) else text)
    if field.type in BUFFERS:
        return from_json(field, text)
    try:
        return from_json(field, parsed_json(text))
    except ValueError:
        example = {"set": '["a", "b"]', "array": "[1, 2]"}.get(field.type, '{"a": 1}')
        field.refuse("type", f"expected JSON, as {field.name}='{example}'; found {shown(text)}")


def from_json(field: Field | None, value: Any) -> Any:
    """A JSON value as the application's type that the field has; without a field, tags tell. Raises ModelError `type`
    where it cannot be one; the rest is the model's to check."""
    if field is None:
        return values.plain(value)
    if value is None:
        return None
    if field.type == "date":
        return _date(field, value)
    if field.type in BUFFERS and isinstance(value, str):
        try:
            return values.base64_bytes(value)
        except ValueError:
            field.refuse("type", f"expected bytes as base64 text, found {shown(value)}")
    if field.type == "array" and field.items is not None and isinstance(value, list):
        return [from_json(field.items, item) for item in value]
    if field.type == "object" and field.fields is not None and isinstance(value, dict):
        known = {sub.name: sub for sub in field.fields}
        for name in value:
            if name not in known:
                hint = did_you_mean(name, tuple(known))
                raise CommandError(f"{field.model}.{field.path} has no field {name!r}", hint)
        return {name: from_json(known[name], item) for name, item in value.items()}
    found = values.plain(value)
    if field.type == "set" and isinstance(found, list) and _is_uniform(found):
        return set(found)
    return found


def _is_uniform(items: list[Any]) -> bool:
    """Texts alone or numbers alone: what makes a set. The model says what is wrong with another list."""
    texts = all(isinstance(item, str) for item in items)
    return texts or all(isinstance(item, int | float | Decimal) and not isinstance(item, bool) for item in items)


def _date(field: Field, value: Any) -> datetime:
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return from_ms(value)
        if isinstance(value, str):
            date = datetime.fromisoformat(value)
            return date.replace(tzinfo=UTC) if date.tzinfo is None else date
    except (ValueError, OverflowError):
        pass
    field.refuse("type", f"expected a date as 2026-01-02T03:04:05Z or in milliseconds since 1970, found {shown(value)}")


# --- out


def to_json(model: Model, item: Mapping[str, Any]) -> dict[str, Any]:
    """An item's properties as JSON values."""
    return {name: json_value(model.fields.get(name), value) for name, value in item.items()}


def json_value(field: Field | None, value: Any) -> Any:
    if isinstance(value, datetime):
        return iso_text(to_ms(value))
    if field is not None:
        if field.type in BUFFERS and isinstance(value, bytes):
            return values.base64_text(value)
        if field.type == "set" and isinstance(value, set):
            return _set(value)
        if field.items is not None and isinstance(value, list):
            return [json_value(field.items, item) for item in value]
        if field.fields is not None and isinstance(value, dict):
            known = {sub.name: sub for sub in field.fields}
            return {name: json_value(known.get(name), item) for name, item in value.items()}
    return _tagged(value)


def _tagged(value: Any) -> Any:
    if isinstance(value, dict):
        return values.escaped({name: _tagged(item) for name, item in value.items()})
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if isinstance(value, bytes):
        return values.binary(value)
    if isinstance(value, set):
        try:
            return values.set_of(value)
        except ValueError:  # what another application stored as a list
            return _set(value)
    if isinstance(value, Decimal):
        return values.number(value)
    return value


def _set(value: set[Any]) -> Any:
    """An array; of bytes, which would look like texts in it, the tagged form."""
    try:
        ((tag, elements),) = values.set_of(value).items()
    except ValueError:
        return sorted((_tagged(item) for item in value), key=json.dumps)
    return {tag: elements} if tag == values.BINARIES else list(elements)
