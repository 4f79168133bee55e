"""The first bad event of a failed run, and what the trace tells of its device and its item around it.

Reads trace lines (one JSON object each, as `fleet.trace` writes them) once, in flat memory. Called when a failed run
has been run again with its trace; what is found is kept in the run directory, so that a report needs no trace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from reports.result import StoryEvent, Violation
from reports.text import printable

ABOUT_ITEM_MAX: Final = 60  # events up to the bad one
OF_DEVICE_MAX: Final = 30
OF_LIFE_MAX: Final = 40  # when it was on and connected, what it said and was given first: what it missed
AFTER_MAX: Final = 10
DETAIL_MAX: Final = 1500  # characters of one event
_STRING_MAX: Final = 80
_MESSAGES: Final = ("to-cloud", "deliver")
_LIFE: Final = ("boot", "connect", "disconnect", "stop", "power-off", "fault")
_FIRST: Final = ('{"t":"hello"', '{"t":"snapshot"')  # messages with which a device begins
_OF_THE_TABLE: Final = ("commit", "cloud-write", "damage")


class _Line(msgspec.Struct):
    t_us: int
    kind: str
    entity: str
    detail: str = ""


def is_of_life(event: StoryEvent) -> bool:
    """Whether it tells when a device came and went, or with what it began."""
    return event.kind in _LIFE or event.detail.startswith(_FIRST)


def first_bad(violations: Sequence[Violation]) -> Violation | None:
    """The earliest; of several at one time the one of the check that comes first."""
    return min(violations, key=lambda violation: violation.t_s, default=None)


def story_of(violations: Sequence[Violation], trace_lines: Iterable[bytes]) -> list[StoryEvent]:
    """Around the first violation: the last events of its item in the table and on its device, the last times when the
    device came and went, its last others, and the first ones after, all in their order. Empty when it names neither."""
    bad = first_bad(violations)
    if bad is None or not (bad.device or bad.item):
        return []
    at_us = round(bad.t_s * 1e6)
    item = bad.item.partition("/")[2] or bad.item
    needles = [_needle(text) for text in (bad.device, item) if text]
    decode = msgspec.json.Decoder(_Line).decode
    about: deque[tuple[int, StoryEvent]] = deque(maxlen=ABOUT_ITEM_MAX)
    life: deque[tuple[int, StoryEvent]] = deque(maxlen=OF_LIFE_MAX)
    own: deque[tuple[int, StoryEvent]] = deque(maxlen=OF_DEVICE_MAX)
    after: list[tuple[int, StoryEvent]] = []
    for number, line in enumerate(trace_lines):
        if not any(needle in line for needle in needles):
            continue
        event = decode(line)
        is_own = bool(bad.device) and _is_of(event, bad.device)
        is_about = bool(item) and _tells_of(event, bad.item, item)
        if not is_own and not (is_about and (event.kind in _OF_THE_TABLE or not bad.device)):
            continue
        entry = (number, event_of(event.t_us, event.kind, event.entity, event.detail))
        if event.t_us > at_us:
            after.append(entry)
            if len(after) >= AFTER_MAX:
                break
        elif is_about:
            about.append(entry)
        else:
            (life if is_of_life(entry[1]) else own).append(entry)
    return [event for _, event in sorted([*about, *life, *own, *after], key=lambda entry: entry[0])]


def _needle(text: str) -> bytes:
    """As it stands in a line of the trace, which escapes quotes."""
    return msgspec.json.encode(text)[1:-1]


def _is_of(event: _Line, device: str) -> bool:
    entity = event.entity
    if entity in (device, f"cloud/{device}", f"device#{device}") or f"/{device}/" in entity:
        return True
    return event.kind == "fault" and event.detail == device


def _tells_of(event: _Line, item: str, sort_key: str) -> bool:
    """Of an item, not only of its device: named by an application, a commit, or a message. A key without an identifier
    of its own (`status#`) is one of many: then the hash key must agree where the event has one."""
    if event.kind == "commit" and not item.startswith(event.entity):
        return False
    return sort_key in event.detail


def event_of(t_us: int, kind: str, entity: str, detail: str) -> StoryEvent:
    """With a message in JSON, whatever its encoding was, without what applications put into their items."""
    if kind in _MESSAGES:
        detail = _readable(detail) or detail
    return StoryEvent(t_us=t_us, kind=kind, entity=entity, detail=printable(detail, DETAIL_MAX))


def _readable(detail: str) -> str | None:
    """None when it is no message."""
    try:
        if detail.startswith("{"):
            message = msgspec.json.decode(detail.encode("utf-8", "replace"))
        else:
            message = msgspec.msgpack.decode(_packed(detail))
        return msgspec.json.encode(_shortened(message)).decode()
    except (ValueError, TypeError, RecursionError):  # decoding errors are ValueErrors
        return None


def _shortened(value: object) -> object:
    """Of an image only its number; long texts cut."""
    if isinstance(value, dict):
        image = value.get("image")
        rest = {key: _shortened(part) for key, part in value.items() if key != "image"}
        return {**rest, "image": {"rev": image.get("rev")}} if isinstance(image, dict) else rest
    if isinstance(value, list):
        return [_shortened(part) for part in value]
    return value[:_STRING_MAX] + "…" if isinstance(value, str) and len(value) > _STRING_MAX else value


def _packed(detail: str) -> bytes:
    """The bytes of a message in MessagePack, which the trace writes as UTF-8 where they are that, else as escapes."""
    data = bytearray()
    position = 0
    while position < len(detail):
        code = detail[position + 2 : position + 4]
        if detail.startswith("\\x", position) and _is_hex(code):
            data.append(int(code, 16))
            position += 4
        else:
            data += detail[position].encode("utf-8", "replace")
            position += 1
    return bytes(data)


def _is_hex(code: str) -> bool:
    return len(code) == 2 and all(letter in "0123456789abcdef" for letter in code)
