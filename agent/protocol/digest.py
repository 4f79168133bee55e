"""Digests: one number for all items of a model, by which device and cloud see whether they hold the same ones.

A digest is the sum, modulo 2^64, of a hash of every item's key and image. A sum, so that order does not matter and the
difference of two digests tells of the differing items alone, whatever else changes on both sides. Both ends count with
this module: the device over its pages, the relay over its queries. An image is hashed in one form: attributes in order
of their names, numbers as agent.protocol.onetable.values writes them; the table keeps no order of attributes, and the
device keeps images as they came. docs/protocol.md says when digests are compared. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec

from agent.protocol.lives import end_of_life_s
from agent.protocol.messages import Key
from agent.protocol.onetable import values
from agent.protocol.onetable.model import Model
from agent.protocol.schema import Context, Schema

SUM_DIGITS: Final = 16
_MODULUS: Final = 1 << 64
_ITEM: Final = b"fleet item 1"  # so that no other hash of the same bytes is alike; the number: of the form
_RAW: Final = b"fleet raw 1"
_SUM: Final = re.compile(f"[0-9a-f]{{{SUM_DIGITS}}}")


def _number(text: str) -> Any:
    try:
        return values.number(float(text))
    except ValueError:  # no table holds it
        return text


_decode: Final = msgspec.json.Decoder(dict[str, Any], float_hook=_number).decode
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


def item_hash(key: Key, image: bytes) -> int:
    """64 bits of an item. `image`: encoded, in any order of its attributes. What is no image counts by its bytes: only
    a damaged file has such a thing."""
    try:
        return _hash(key, _encode(_decode(image)), _ITEM)
    except (ValueError, TypeError, OverflowError, RecursionError):  # msgspec's errors are ValueErrors
        return _hash(key, image, _RAW)


def _hash(key: Key, image: bytes, form: bytes) -> int:
    pk, sk = (part.encode("utf-8", "surrogatepass") for part in key)
    data = b"%d:%d:%b%b%b" % (len(pk), len(sk), pk, sk, image)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=form).digest(), "big")


def shown(value: int) -> str:
    """A sum, or a difference of two, as it is sent: JSON's readers do not all hold 64 bits."""
    return f"{value % _MODULUS:0{SUM_DIGITS}x}"


def is_sum(text: str) -> bool:
    return _SUM.fullmatch(text) is not None


def delta(theirs: int, ours: str) -> int:
    """The table's sum less the one that a device has sent; 0: they are equal."""
    return (theirs - int(ours, 16)) % _MODULUS


def fingerprint(schema: Schema) -> str:
    """16 hexadecimal digits of what says which items there are to be counted: the keys of all models, their directions
    and lives. With another one on the other side, nothing can be compared; fields do not matter."""
    lines = [
        f"{m.name} {m.hash_template!r} {m.sort_template!r} {m.sync} {m.feed} {m.ttl_attribute!r}"
        for m in schema.models.values()
    ]
    return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=8).hexdigest()


class Tallies:
    """The digests of one device's models, as they are counted. `sums` and `counts`: by model, of all that count.

    Left out: items whose lives end before `cut_s` (seconds since 1970), which one side may have dropped and the other
    not yet; those of the keys `apart`, which are known to differ."""

    __slots__ = ("_apart", "_context", "_cut_s", "_schema", "counts", "sums")

    def __init__(
        self, schema: Schema, context: Context, models: Iterable[str], cut_s: int, apart: Collection[Key]
    ) -> None:
        self._schema = schema
        self._context = context
        self._cut_s = cut_s
        self._apart = frozenset(apart)
        self.sums: dict[str, int] = dict.fromkeys(models, 0)
        self.counts: dict[str, int] = dict.fromkeys(self.sums, 0)

    def ranges(self) -> list[tuple[str, str, frozenset[str]]]:
        """(hash key, sort prefix, models) to be read: each model is in one, and is counted there alone. A range may
        hold other models' items too."""
        found = self._schema.synced_ranges(self._context)
        wanted = ((pk, prefix, frozenset(names) & self.sums.keys()) for (pk, prefix), names in found.items())
        return [entry for entry in wanted if entry[2]]

    def model_of(self, key: Key, models: frozenset[str]) -> Model | None:
        """The model that an item found in a range counts for; None: it does not."""
        place = self._schema.locate(key)
        if place is None or place.model.name not in models or key in self._apart:
            return None
        if place.device_id not in (None, self._context.device_id):
            return None
        return place.model if place.account_id in (None, self._context.account_id) else None

    def add(self, model: Model, key: Key, image: bytes) -> None:
        """Counts one item."""
        if model.ttl_attribute is not None and self._is_over(model, image):
            return
        self.sums[model.name] = (self.sums[model.name] + item_hash(key, image)) % _MODULUS
        self.counts[model.name] += 1

    def _is_over(self, model: Model, image: bytes) -> bool:
        try:
            end_s = end_of_life_s(model, _decode(image))
        except (ValueError, RecursionError):
            return False
        return end_s is not None and end_s <= self._cut_s
