"""Value templates of a OneTable schema, `device#${deviceId}`: parsed once, then rendered from a stored image.

Never reads a schema's file and never decides what a model may do. Called by agent.protocol.onetable.loader (parse,
overlap), agent.protocol.onetable.model (render) and agent.protocol.schema (patterns of keys).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from agent.protocol.onetable.dates import date_ms, iso_text
from agent.protocol.onetable.values import NUMBER
from agent.protocol.process import Context

DEVICE: Final = "deviceId"
ACCOUNT: Final = "accountId"
IDS: Final = (DEVICE, ACCOUNT)
PAD_MAX: Final = 128
ID_PATTERN: Final = "[A-Za-z0-9:_.-]{1,128}"  # what topics.valid_id allows
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_ID_CHAR = re.compile(r"[A-Za-z0-9:_.-]")


class TemplateError(ValueError):
    """A template that cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Variable:
    """`${name.path:pad_size:pad}`. `attribute`: under which name the image holds `name`.

    `date`: how a date is to be written, `ms` or `iso`, where it is stored otherwise; `ttl`: it is stored in seconds."""

    name: str
    attribute: str
    path: tuple[str, ...] = ()
    pad_size: int = 0
    pad: str = ""
    date: str = ""
    ttl: bool = False

    @property
    def is_id(self) -> bool:
        """A plain deviceId or accountId."""
        return self.name in IDS and not self.path and not self.pad_size


def id_of(name: str, context: Context) -> str:
    """The context's id of this name; "" where it has none, and for any other name."""
    if name == DEVICE:
        return context.device_id
    return context.account_id if name == ACCOUNT else ""


Part = str | Variable
Render = Callable[[Mapping[str, Any]], str | None]


def parse(text: str) -> tuple[Part, ...]:
    """Literals and variables, in order; no empty literal. Raises TemplateError."""
    parts: list[Part] = []
    end = 0
    for match in _VARIABLE.finditer(text):
        if match.start() > end:
            parts.append(_literal(text[end : match.start()]))
        parts.append(_variable(match[1]))
        end = match.end()
    if end < len(text):
        parts.append(_literal(text[end:]))
    return tuple(parts)


def _literal(text: str) -> str:
    if "${" in text:
        raise TemplateError("a '${' without its '}'")
    return text


def _variable(text: str) -> Variable:
    name, *padding = text.split(":")
    first, *path = name.split(".")
    if not first or not all(path):
        raise TemplateError(f"no name in '${{{text}}}'")
    if not padding:
        return Variable(first, first, tuple(path))
    if len(padding) == 1:
        padding.append("0")  # the JavaScript library's own
    if len(padding) != 2 or not padding[0].isdecimal() or not padding[1]:
        raise TemplateError(f"padding in '${{{text}}}' is not ':size' or ':size:character'")
    if len(padding[0]) > 4 or not 1 <= int(padding[0]) <= PAD_MAX:
        raise TemplateError(f"padding in '${{{text}}}' must be from 1 to {PAD_MAX} long")
    return Variable(first, first, tuple(path), int(padding[0]), padding[1])


class Template:
    """A parsed template whose variables are bound to attributes. `render(image)` is None when a variable is missing."""

    __slots__ = ("parts", "render", "text", "variables")

    def __init__(self, text: str, parts: tuple[Part, ...]) -> None:
        self.text = text
        self.parts = _joined(parts)
        self.variables = tuple(part for part in self.parts if isinstance(part, Variable))
        self.render: Render = _renderer(self.parts)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def begin(self, image: Mapping[str, Any]) -> str:
        """What is rendered up to the first variable that is missing."""
        texts: list[str] = []
        for part in self.parts:
            text = part if isinstance(part, str) else _variable_text(part, image)
            if text is None:
                break
            texts.append(text)
        return "".join(texts)

    @property
    def prefix(self) -> tuple[Part, ...]:
        """The leading literals and plain ids: what is fixed for one device."""
        fixed: list[Part] = []
        for part in self.parts:
            if isinstance(part, Variable) and not part.is_id:
                break
            fixed.append(part)
        return tuple(fixed)

    @property
    def is_fixed(self) -> bool:
        """Nothing varies but the ids."""
        return all(isinstance(part, str) or part.is_id for part in self.parts)


def _joined(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Neighbouring literals made one (a template used inside another leaves some)."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)


def text_of(value: Any) -> str | None:
    """A stored scalar as JavaScript's String() writes it; None for a missing value, an object, an array or a set."""
    if value.__class__ is str:
        text: str = value
        return text
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number_text(value)
    if value.__class__ is dict and len(value) == 1:
        digits = value.get(NUMBER)
        return digits if isinstance(digits, str) else None
    return None


def _number_text(value: float) -> str:
    """ECMAScript's Number::toString: no exponent from 1e-6 up to 1e21."""
    digits = repr(value)
    if 1e-6 <= abs(value) < 1e21:
        text = format(Decimal(digits), "f")
        return text[:-2] if text.endswith(".0") else text
    mantissa, _, exponent = digits.partition("e")
    if not exponent:
        return "0"
    mantissa = mantissa.removesuffix(".0")
    return f"{mantissa}e{exponent[0] if exponent[0] == '-' else '+'}{exponent.lstrip('+-').lstrip('0')}"


def _variable_text(part: Variable, image: Mapping[str, Any]) -> str | None:
    value = image.get(part.attribute)
    for name in part.path:
        value = value.get(name) if isinstance(value, dict) else None
    if part.date:
        value = _date(value, part)
    text = text_of(value)
    if text is not None and part.pad_size:
        while len(text) < part.pad_size:
            text = part.pad + text
    return text


def _date(value: Any, part: Variable) -> Any:
    """A stored date in the form that the template wants; what is no date, as it is."""
    value_ms = value * 1000 if part.ttl and value.__class__ is int else date_ms(value)
    if value_ms is None or part.date == "ms":
        return value if value_ms is None else value_ms
    try:
        return iso_text(value_ms)
    except OverflowError:
        return value


def _renderer(parts: tuple[Part, ...]) -> Render:
    variables = [part for part in parts if isinstance(part, Variable)]
    if not variables:
        constant = "".join(part for part in parts if isinstance(part, str))
        return lambda image: constant
    if len(variables) == 1 and not (variables[0].path or variables[0].pad_size or variables[0].date):
        return _one_variable(parts, variables[0])

    def several(image: Mapping[str, Any]) -> str | None:
        texts: list[str] = []
        for part in parts:
            text = part if isinstance(part, str) else _variable_text(part, image)
            if text is None:
                return None
            texts.append(text)
        return "".join(texts)

    return several


def _one_variable(parts: tuple[Part, ...], variable: Variable) -> Render:
    """The usual form, a literal and a variable: worth its own path, it is rendered for every message."""
    at = parts.index(variable)
    head = "".join(part for part in parts[:at] if isinstance(part, str))
    tail = "".join(part for part in parts[at + 1 :] if isinstance(part, str))
    attribute = variable.attribute

    def one(image: Mapping[str, Any]) -> str | None:
        value = image.get(attribute)
        if value.__class__ is not str:
            value = text_of(value)
            if value is None:
                return None
        return f"{head}{value}{tail}"

    return one


def resolve(parts: tuple[Part, ...], ids: Mapping[str, str]) -> str:
    """The text of literals and plain ids."""
    return "".join(part if isinstance(part, str) else ids[part.name] for part in parts)


def pattern(parts: tuple[Part, ...]) -> str:
    """A regular expression of the texts that these parts give; ids are captured by name. Only the first other
    variable is looked at, with all that follows it: more would make matching a hostile key slow."""
    seen: set[str] = set()
    out: list[str] = []
    for part in parts:
        if isinstance(part, str):
            out.append(re.escape(part))
        elif not part.is_id:
            out.append("(?s:.*)")
            break
        elif part.name in seen:
            out.append(f"(?P={part.name})")
        else:
            seen.add(part.name)
            out.append(f"(?P<{part.name}>{ID_PATTERN})")
    return "".join(out)


def unseparated(parts: tuple[Part, ...], *, at_end: bool) -> str | None:
    """The first plain id that cannot be told from what follows it: no literal there that an id cannot contain.

    With `at_end` also an id that ends the text (a begins-with would find other ids that only begin alike)."""
    for index, part in enumerate(parts):
        if isinstance(part, str) or not part.is_id:
            continue
        rest = parts[index + 1 :]
        if not rest:
            if at_end:
                return part.name
            continue
        following = rest[0]
        if isinstance(following, str) and not _ID_CHAR.match(following):
            continue
        if at_end or any(isinstance(other, Variable) for other in rest):
            return part.name
    return None


# A pattern for `overlap`: characters, and marks that stand for one or for any number of characters of a class.
_ID_ONE: Final = object()
_ID_MANY: Final = object()
_ANY_MANY: Final = object()


def _symbols(parts: tuple[Part, ...]) -> list[object]:
    symbols: list[object] = []
    for part in parts:
        if isinstance(part, str):
            symbols.extend(part)
        elif part.is_id:
            symbols.extend((_ID_ONE, _ID_MANY))
        else:
            symbols.append(_ANY_MANY)
    return symbols


def _meet(a: object, b: object) -> bool:
    """Whether one character can satisfy both symbols."""
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    if _ANY_MANY in (a, b):
        return True
    other = a if isinstance(a, str) else b
    return not isinstance(other, str) or _ID_CHAR.match(other) is not None


def overlap(a: tuple[Part, ...], b: tuple[Part, ...], *, open_ended: bool = False) -> bool:
    """Whether some text fits both patterns; with `open_ended`, whether some text begins with texts of both."""
    left, right = _symbols(a), _symbols(b)
    if open_ended:
        left.append(_ANY_MANY)
        right.append(_ANY_MANY)
    seen = {(0, 0)}
    todo = [(0, 0)]
    while todo:
        i, j = todo.pop()
        if i == len(left) and j == len(right):
            return True
        ahead: list[tuple[int, int]] = []
        many_left = i < len(left) and left[i] in (_ID_MANY, _ANY_MANY)
        many_right = j < len(right) and right[j] in (_ID_MANY, _ANY_MANY)
        # A mark for many may stand for nothing more, or take a character that the other side's symbol can give.
        if many_left:
            ahead.append((i + 1, j))
        if many_right:
            ahead.append((i, j + 1))
        if i < len(left) and j < len(right) and _meet(left[i], right[j]):
            ahead.append((i + (not many_left), j + (not many_right)))
        for state in ahead:
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return False
