"""Values that JSON has not, as an image holds them: binary, sets, numbers beyond 64 bits and floats.

An image is JSON. Such a value is an object of one member whose name is a tag: `{"$B": base64}`, `{"$N": digits}`,
`{"$SS": [text, ...]}`, `{"$NS": [number, ...]}`, `{"$BS": [base64, ...]}`, the lists in rising order without repeats.
An object of an application that looks like one gets a `$` more (`{"$$B": ...}`): nothing is ambiguous. Each value has
one form only: equal values are equal images. Never looks at a schema. Called by agent.protocol.onetable.writing,
checking, reading and attributes. Raises ValueError.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

DEPTH_MAX: Final = 32  # DynamoDB's limit on nesting
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
FLOAT_MAX: Final = 9.99e125  # DynamoDB's range of magnitude
FLOAT_MIN: Final = 1e-130
DIGITS_MAX: Final = 38  # DynamoDB's precision
_EXPONENT_MIN: Final = -130
_EXPONENT_MAX: Final = 125
BINARY: Final = "$B"
NUMBER: Final = "$N"
TEXTS: Final = "$SS"
NUMBERS: Final = "$NS"
BINARIES: Final = "$BS"
SETS: Final = (TEXTS, NUMBERS, BINARIES)
_TAGS: Final = frozenset((BINARY, NUMBER, *SETS))
_DIGITS: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_LOOKS_TAGGED: Final = re.compile(r"\$+(?:B|N|SS|NS|BS)")

Tagged = dict[str, Any]
Number = int | float | Tagged


def tag_of(value: Any) -> str | None:
    """The tag of a tagged value, None for every other."""
    if value.__class__ is dict and len(value) == 1:
        for name in value:
            if name in _TAGS:
                return str(name)
    return None


def looks_tagged(name: str) -> bool:
    """Whether an object with this name alone must be escaped."""
    return _LOOKS_TAGGED.fullmatch(name) is not None


def escaped(members: dict[str, Any]) -> dict[str, Any]:
    """An object as an image holds it: the same one but for a name that looks like a tag."""
    if len(members) == 1:
        for name, value in members.items():
            if name[:1] == "$" and looks_tagged(name):
                return {f"${name}": value}
    return members


def members_of(value: Any) -> dict[str, Any] | None:
    """The members of an object in an image, by their true names; None for every other value. Never a copy to change."""
    if value.__class__ is not dict:
        return None
    if len(value) == 1:
        for name, member in value.items():
            if name[:1] == "$" and looks_tagged(name):
                return None if name in _TAGS else {name[1:]: member}
    members: dict[str, Any] = value
    return members


# --- into the image


def binary(data: bytes) -> Tagged:
    return {BINARY: base64_text(data)}


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def base64_bytes(text: Any) -> bytes:
    """Strict: the one text that `base64_text` gives."""
    if not isinstance(text, str):
        raise ValueError("expected base64 text")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("no base64 text") from None
    if base64_text(data) != text:
        raise ValueError("no base64 text")
    return data


def number(value: int | float | Decimal) -> Number:
    """A number in its one form: a whole number of 64 bits as int, a float where it says the same, else its digits."""
    if isinstance(value, bool):
        raise ValueError(f"expected a number, found {value!r}")
    if isinstance(value, int) and INT_MIN <= value <= INT_MAX:
        return int(value)
    if isinstance(value, float):
        if value.is_integer() and INT_MIN <= value <= INT_MAX:
            return int(value)
        if math.isfinite(value) and FLOAT_MIN <= abs(value) <= FLOAT_MAX:
            return float(value)
        raise ValueError(f"{value!r} is out of the range of numbers")
    if isinstance(value, int):
        if value.bit_length() > 420:  # 10**126 has 419: not worth making digits of
            raise ValueError("a whole number out of the range of numbers")
        return _from_decimal(Decimal(value))
    return _from_decimal(value)


def _from_decimal(value: Decimal) -> Number:
    if not value.is_finite():
        raise ValueError(f"{value} is out of the range of numbers")
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    end = len(digits)
    while end and digits[end - 1] == 0:
        end -= 1
    if not end:
        return 0
    begin = next(at for at, digit in enumerate(digits) if digit)
    exponent += len(digits) - end
    exact = Decimal((sign, digits[begin:end], exponent))
    if end - begin > DIGITS_MAX:
        raise ValueError(f"a number of {end - begin} digits, at most {DIGITS_MAX}")
    if not _EXPONENT_MIN <= exact.adjusted() <= _EXPONENT_MAX:
        raise ValueError(f"{exact} is out of the range of numbers")
    if exponent >= 0 and exact.adjusted() <= 18 and INT_MIN <= int(exact) <= INT_MAX:
        return int(exact)
    near = float(exact)
    if Decimal(repr(near)) == exact and FLOAT_MIN <= abs(near) <= FLOAT_MAX:
        return near
    return {NUMBER: format(exact, "f") if exponent >= 0 and exact.adjusted() < DIGITS_MAX else str(exact)}


def decimal_of(value: Any) -> Decimal:
    """The exact value of a number in an image, by the digits that it is written with."""
    if tag_of(value) == NUMBER:
        return Decimal(value[NUMBER])
    return Decimal(value) if isinstance(value, int) else Decimal(repr(value))


def parsed(text: Any) -> Number:
    """A number from its digits, as the table gives them."""
    if not isinstance(text, str) or _DIGITS.fullmatch(text) is None:
        raise ValueError("expected the digits of a number")
    if len(text) > 500:
        raise ValueError("a number of too many digits")
    return _from_decimal(Decimal(text))


def text_set(items: Iterable[str]) -> Tagged:
    return {TEXTS: sorted(frozenset(items))}


def number_set(items: Iterable[int | float | Decimal]) -> Tagged:
    return {NUMBERS: _rising([number(item) for item in items])}


def _rising(numbers: list[Number]) -> list[Number]:
    return [value for _, value in sorted({decimal_of(item): item for item in numbers}.items())]


def binary_set(items: Iterable[bytes]) -> Tagged:
    return {BINARIES: [base64_text(item) for item in sorted(frozenset(bytes(item) for item in items))]}


def set_of(items: Iterable[Any]) -> Tagged:
    """A set of texts, of numbers or of bytes. Raises ValueError for an empty and for a mixed one."""
    given = list(items)
    if not given:
        raise ValueError("an empty set: the table has none")
    if all(isinstance(item, str) for item in given):
        return text_set(str.__str__(item) for item in given)
    if all(isinstance(item, int | float | Decimal) and not isinstance(item, bool) for item in given):
        return number_set(given)
    if all(isinstance(item, bytes | bytearray | memoryview) for item in given):
        return binary_set(given)
    raise ValueError("a set holds texts alone, numbers alone, or bytes alone")


# --- out of the image


def plain(value: Any) -> Any:
    """A value for an application, sharing nothing with the image: bytes, sets and Decimals where there are tags."""
    if value.__class__ is dict:
        if len(value) == 1:
            tag = tag_of(value)
            if tag is not None:
                return _untagged(tag, value[tag])
            value = members_of(value)
        return {name: plain(item) for name, item in value.items()}
    if value.__class__ is list:
        return [plain(item) for item in value]
    return value


def _untagged(tag: str, content: Any) -> Any:
    """As it is where it is no proper value: only a hostile or broken peer makes such a thing."""
    try:
        if tag == BINARY:
            return base64_bytes(content)
        if tag == NUMBER:
            return Decimal(content)
        if tag == BINARIES:
            return {base64_bytes(item) for item in content}
        return {plain(item) for item in content}
    except (ValueError, TypeError, ArithmeticError):
        return {tag: content}


# --- in the image


def check_value(value: Any, depth: int = 1) -> None:
    """Whether a value from outside is one that an image can hold, in its one form. Raises ValueError."""
    kind = value.__class__
    if kind is str or kind is bool or value is None:
        return
    if kind is int or kind is float:
        if number(value).__class__ is dict:
            raise ValueError("a whole number of more than 64 bits without its tag")
        return
    if depth > DEPTH_MAX:
        raise ValueError(f"nested more than {DEPTH_MAX} deep")
    if kind is list:
        for item in value:
            check_value(item, depth + 1)
        return
    if kind is not dict:
        raise ValueError(f"{kind.__name__} is no value of an image")
    tag = tag_of(value)
    if tag is not None:
        check_tagged(tag, value[tag])
        return
    for item in value.values():
        check_value(item, depth + 1)


def check_tagged(tag: str, content: Any) -> None:
    """Whether the content of a tagged value is proper. Raises ValueError."""
    if tag == BINARY:
        base64_bytes(content)
    elif tag == NUMBER:
        if parsed(content) != {NUMBER: content}:
            raise ValueError("a number that is not in its shortest form")
    elif not isinstance(content, list) or not content:
        raise ValueError("expected a list with the elements of a set")
    elif not _is_set(tag, content):
        raise ValueError("the elements of a set do not rise, or are not of one kind")


def _is_set(tag: str, content: list[Any]) -> bool:
    if tag == BINARIES:
        return [base64_bytes(item) for item in content] == sorted({base64_bytes(item) for item in content})
    if tag == TEXTS:
        return all(isinstance(item, str) for item in content) and content == sorted(frozenset(content))
    for item in content:
        if tag_of(item) == NUMBER:
            check_tagged(NUMBER, item[NUMBER])
        elif item.__class__ not in (int, float) or number(item).__class__ is not item.__class__:
            return False
    return bool(content == _rising(content))
