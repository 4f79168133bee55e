"""Digests: their algebra, and that device and cloud make the same one of the same items, however each holds them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_rig import SCHEMA, Rig, config, fault, notice, setting, status, stored

from agent.protocol import digest
from agent.protocol.digest import Tallies, delta, fingerprint, is_sum, item_hash, shown
from agent.protocol.messages import Key, encode_image
from agent.protocol.onetable import values
from agent.protocol.onetable.attributes import from_item, to_item
from agent.protocol.schema import Context, Schema
from cloud.head import public_image
from cloud.table import Put, Query

HOME = Context("home-1", "main")
SYNCED = ("Command", "Config", "Fault", "Notice", "Setting", "Status")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(values.number),
    st.floats(-1e30, 1e30, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-100).map(values.number),
    st.decimals(-10, 10, places=30).filter(lambda x: len(x.as_tuple().digits) <= 38).map(values.number),
)
leaves = st.one_of(
    texts,
    st.booleans(),
    st.none(),
    numbers,
    st.binary(max_size=6).map(values.binary),
    st.sets(texts, min_size=1, max_size=3).map(values.text_set),
    st.sets(st.integers(-(2**70), 2**70), min_size=1, max_size=3).map(values.number_set),
    st.sets(st.binary(max_size=4), min_size=1, max_size=3).map(values.binary_set),
)
images = st.dictionaries(
    st.text("abcdef$NB", min_size=1, max_size=3),
    st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.text("abc$N", min_size=1, max_size=3), inner, max_size=3).map(values.escaped),
        ),
        max_leaves=6,
    ),
    max_size=5,
)
KEY: Key = ("device#home-1", "status#")


def shuffled(value: Any, order: random.Random) -> Any:
    """The same value with the members of all objects in another order."""
    if isinstance(value, dict):
        names = list(value)
        order.shuffle(names)
        return {name: shuffled(value[name], order) for name in names}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@given(image=images, order=st.randoms(use_true_random=False))
def test_the_table_makes_the_same_digest_of_what_a_device_has_sent(image: dict[str, Any], order: random.Random) -> None:
    """Through the attribute map, as numbers and sets of the service, in another order of attributes, and with the
    relay's own attributes."""
    as_written = encode_image(image)
    mine = {**image, "_op": ["home-1", "e", 1, "b"], "_orphan": True}
    attributes = shuffled(to_item(KEY, mine), order)
    key, item = from_item(attributes)
    assert item_hash(key, encode_image(public_image({"pk": key[0], "sk": key[1], **item}))) == item_hash(
        KEY, as_written
    )


@given(image=images, other=images)
def test_another_image_or_key_has_another_hash(image: dict[str, Any], other: dict[str, Any]) -> None:
    one = item_hash(KEY, encode_image(image))
    assert one != item_hash(("device#home-1", "status#x"), encode_image(image))
    assert one != item_hash((KEY[0] + KEY[1], ""), encode_image(image))
    if to_item(KEY, image) != to_item(KEY, other):
        assert one != item_hash(KEY, encode_image(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [(b'{"a":1.0}', b'{"a":1}'), (b'{"a":-0.0}', b'{"a":0}'), (b'{"a":1e3, "b":2}', b'{"b":2,"a":1000}')],
)
def test_a_number_counts_by_its_value(one: bytes, other: bytes) -> None:
    assert item_hash(KEY, one) == item_hash(KEY, other)


@pytest.mark.parametrize("image", [b"", b"{", b"[1]", b'"text"', b"\xff\x00", b'{"a":' + b"[" * 5_000])
def test_what_is_no_image_counts_by_its_bytes(image: bytes) -> None:
    assert item_hash(KEY, image) == item_hash(KEY, image) != item_hash(KEY, image + b" ")


items = st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(0, 5), max_size=8)


def tally(entries: list[tuple[str, int]], cut_s: int = 0, apart: tuple[Key, ...] = ()) -> Tallies:
    made = Tallies(SCHEMA, HOME, SYNCED, cut_s, apart)
    for name, rev in entries:
        key, image = fault(rev, name)
        model = made.model_of(key, frozenset(SYNCED))
        if model is not None:
            made.add(model, key, encode_image(image))
    return made


@given(here=items, there=items, both=items, order=st.randoms(use_true_random=False))
def test_a_difference_tells_of_the_differing_items_alone(
    here: dict[str, int], there: dict[str, int], both: dict[str, int], order: random.Random
) -> None:
    """Whatever else is on both sides, in whatever order: what makes a difference recognised when it is found again."""

    def difference(extra: dict[str, int]) -> int:
        sums = []
        for some in (here, there):
            side = [(f"x-{name}", rev) for name, rev in some.items()]
            side += [(f"z-{name}", rev) for name, rev in extra.items()]
            order.shuffle(side)
            sums.append(tally(side).sums["Fault"])
        return delta(sums[1], shown(sums[0]))

    assert difference({}) == difference(both)
    assert (difference(both) == 0) == (here == there)


def test_a_digest_is_no_count_and_no_exclusive_or() -> None:
    """One item that changed keeps the count; and what is there twice must not vanish."""
    same_count = tally([("a", 1), ("b", 2)]), tally([("a", 1), ("b", 3)])
    assert same_count[0].counts == same_count[1].counts and same_count[0].sums != same_count[1].sums
    once, twice = tally([("a", 1)]), tally([("a", 1), ("a", 1)])
    assert twice.sums["Fault"] == 2 * once.sums["Fault"] % 2**64 != 0


def test_sums_are_sent_as_sixteen_digits() -> None:
    assert shown(2**64 + 10) == shown(10) == "000000000000000a"
    assert is_sum("0123456789abcdef") and not any(map(is_sum, ("", "0", "0123456789ABCDEF", "0123456789abcdef0")))
    assert delta(3, shown(5)) == 2**64 - 2


# What counts


def test_every_synced_item_of_the_device_counts_once_and_nothing_else() -> None:
    rig = Rig()
    mine = [status(1), fault(2, "a"), fault(3, "b"), setting(4), config(5), notice(6, "n")]
    others = [status(7, device="home-2"), notice(8, "n", "other")]
    neither = (("device#home-1", "diagnostic#x"), {"_type": "Diagnostic", "rev": 1})
    for written in (*mine, *others, neither):
        rig.execute(Put(stored(written)))
    made = Tallies(SCHEMA, HOME, SYNCED, 0, ())
    for pk, prefix, models in made.ranges():
        for item in rig.execute(Query(pk, prefix)).items:
            model = made.model_of((item["pk"], item["sk"]), models)
            if model is not None:
                made.add(model, (item["pk"], item["sk"]), encode_image(public_image(item)))
    assert made.counts == {"Command": 0, "Config": 1, "Fault": 2, "Notice": 1, "Setting": 1, "Status": 1}


def test_items_that_are_set_apart_or_end_before_the_cut_do_not_count() -> None:
    assert tally([("a", 1), ("b", 2)], apart=(("device#home-1", "fault#b"),)).sums == tally([("a", 1)]).sums
    schema = Schema.load("scenarios/schemas/lifetimes.json5")
    made = Tallies(schema, HOME, ("Reading",), 1_000, ())
    for name, end_s in (("gone", 999), ("at-the-cut", 1_000), ("lives", 1_001), ("for-ever", None), ("odd", "1")):
        key = ("device#home-1", f"reading#{name}")
        made.add(schema.models["Reading"], key, encode_image({"rev": 1, "ttl": end_s}))
    assert made.counts == {"Reading": 3}


def test_a_model_that_is_not_asked_for_is_not_read() -> None:
    assert [models for _, _, models in Tallies(SCHEMA, HOME, ("Notice",), 0, ()).ranges()] == [frozenset(("Notice",))]


def test_the_fingerprint_follows_keys_directions_and_lives_and_nothing_else() -> None:
    changes = {
        "same": ("", ""),
        "field": ("level: {type: 'number'},", "level: {type: 'number'}, more: {type: 'string'},"),
        "way": ("Command: {enable: 'both', sync: 'down'}", "Command: {enable: 'both', sync: 'both'}"),
        "key": ("value: 'command#${id}'", "value: 'order#${id}'"),
        "life": ("name: {type: 'string'},", "name: {type: 'string'}, ttl: {type: 'date', ttl: true},"),
    }
    prints = {name: fingerprint(Schema.parse(SCHEMA.text.replace(*how), "s.json5")) for name, how in changes.items()}
    assert prints["same"] == prints["field"] == fingerprint(SCHEMA)
    assert len(set(prints.values())) == 4 and len(prints["same"]) == digest.SUM_DIGITS
