"""A hostile device: whatever it sends, nobody else notices, nothing breaks, and what is refused is counted.

One attacker and one victim of another account share a table and a relay. Called by pytest only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from relay_rig import EPOCH, NOW_MS, SCHEMA, Rig, config, fault, hello, notice, op, setting, status, stored, up

from agent.protocol.messages import BATCH_BYTES_MAX, Ack, FeedState, Rows, encode
from agent.protocol.schema import Schema
from cloud.head import head_key
from cloud.table import Item, Key, Put

ATTACKER: Final = "away-1"
VICTIM: Final = "home-1"
OTHERS: Final = "o" * 32
ISO: Final = Schema.parse(SCHEMA.text.replace("isoDates: false", "isoDates: true"), "iso.json5")


class Attack(Rig):
    """The victim has items, an epoch and rows in its feeds before anything happens."""

    def __init__(self, schema: Schema = SCHEMA) -> None:
        super().__init__(schema=schema)
        self.iso = schema is ISO
        for written in (config(1), setting(1), notice(1, "n")):
            self.execute(Put(stored(written)))
        self.sequence()
        self.send(hello(epoch=OTHERS), VICTIM)
        self.send(hello(), ATTACKER)
        self.published.clear()
        self.counters.clear()
        self.before = self.of_others()

    def of_others(self) -> dict[Key, Item]:
        """Everything in the table that is none of the attacker's, or of its account's."""
        items = self.table.scan(private=True)
        return {(item["pk"], item["sk"]): item for item in items if not item["pk"].endswith((ATTACKER, "#other"))}

    def raw(self, message: Any) -> list[Any]:
        """Sends bytes, or an object as JSON; gives the answers."""
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        return list(self.run(self.relay.on_message(ATTACKER, payload)))

    def unharmed(self) -> None:
        """Nothing of others has changed, nothing was said to them, and both devices are served as ever."""
        self.sequence()
        assert self.of_others() == self.before
        heard = {f"ioto/device/{ATTACKER}/sync", "ioto/account/other/sync"}
        assert {sent.topic for sent in self.published} <= heard
        for device, epoch in ((ATTACKER, self.head(ATTACKER)["epoch"]), (VICTIM, OTHERS)):
            self.now_ms += 60_000  # the attacker's rate is its own affair
            answers = self.send(hello(epoch=epoch, n=7), device)
            assert isinstance(answers[0], Ack) and answers[0].n == 7
        assert self.ack(up(op(1, "create", status(1)), epoch=OTHERS), VICTIM).up == 1


@pytest.fixture(params=[SCHEMA, ISO], ids=["ms", "iso"])
def attack(request: pytest.FixtureRequest) -> Attack:
    return Attack(request.param)


def operation(image: Any = None, **changed: Any) -> dict[str, Any]:
    """One operation on the attacker's own setting, as the wire has it."""
    made = {"u": 1, "kind": "create", "id": "boot", "key": [f"device#{ATTACKER}", "setting#mode"], "updated": NOW_MS}
    return {**made, "image": own_image() if image is None else image, **changed}


def own_image(**more: Any) -> dict[str, Any]:
    return setting(1, device=ATTACKER)[1] | more


def batch(*ops: Any, **changed: Any) -> dict[str, Any]:
    return {"t": "up", "v": 1, "epoch": EPOCH, "first_u": 1, "ops": list(ops), "hn": "hn", **changed}


# Foreign ids, foreign models


FOREIGN: Final = [
    (status(9, device=VICTIM), "foreign"),
    (setting(9, device=VICTIM), "foreign"),
    (fault(9, "x", device="home-2"), "foreign"),
    (config(9, device=VICTIM), "direction"),
    (config(9, device=ATTACKER), "direction"),
    (notice(9, "n"), "direction"),
    (notice(9, "n", account="other"), "direction"),
    ((head_key(VICTIM), status(9)[1]), "unknown-model"),
    ((("_fleet#log#device#home-1", "1#1"), status(9)[1]), "unknown-model"),
    ((("_unique#a", "_unique#"), status(9)[1]), "unknown-model"),
    ((("", ""), status(9)[1]), "unknown-model"),
    (((f"device#{ATTACKER}", "status#x"), status(9)[1]), "unknown-model"),
    (((f"device#{ATTACKER}#", "status#"), status(9)[1]), "unknown-model"),
    (((f"device#{ATTACKER}", "status#"), status(9, device=VICTIM)[1]), "key"),
    (((f"device#{ATTACKER}", "setting#mode"), setting(9, "other", device=ATTACKER)[1]), "key"),
    (((f"device#{ATTACKER}", "status#"), fault(9, "x", device=ATTACKER)[1]), "model"),
]


@pytest.mark.parametrize(("written", "code"), FOREIGN)
@pytest.mark.parametrize("kind", ["create", "update", "delete"])
def test_what_is_not_its_own_is_rejected_one_by_one(kind: Any, written: Any, code: str) -> None:
    attack = Attack()
    ack = attack.ack(up(op(1, kind, written), op(2, "create", status(1, device=ATTACKER))), ATTACKER)
    own = written[0][0] == f"device#{ATTACKER}" and code in ("key", "model")
    if kind == "delete" and own:  # a delete has no image to be wrong
        assert ack.verdicts.get(1) in (None, "lost")
    else:
        assert ack.verdicts == {1: code}
        assert attack.counters[f"rejected_{code}"] == 1
    assert attack.item((f"device#{ATTACKER}", "status#")) is not None  # the good one behind it was taken
    attack.unharmed()


def test_an_account_named_in_a_payload_is_none_of_its() -> None:
    attack = Attack()
    key, image = status(1, device=ATTACKER)
    ack = attack.ack(up(op(1, "create", (key, {**image, "accountId": "main"}))), ATTACKER)
    assert ack.verdicts == {}  # an attribute that the schema does not know; it opens nothing
    answers = attack.raw({**json.loads(encode(hello(feeds={"account": FeedState(nonce="n")}))), "account": "main"})
    assert all(not getattr(answer, "items", ()) for answer in answers)  # a snapshot of its own, empty account
    attack.unharmed()


@pytest.mark.parametrize("name", ["_op", "_orphan", "_fleet", "_fleetish", "pk", "sk"])
def test_the_relays_own_marks_cannot_be_forged(attack: Attack, name: str) -> None:
    made = dict(own_image(), **{name: [VICTIM, OTHERS, 1, "boot"]})
    if attack.iso:
        made.update(created="2026-01-01T00:00:00.000Z", updated="2026-01-01T00:00:00.000Z")
    (ack,) = attack.raw(batch(operation(made)))
    assert ack.verdicts == {1: "key"}
    attack.unharmed()


# Foreign epochs


@pytest.mark.parametrize("replaces", [None, OTHERS, "guess", ""])
def test_an_epoch_that_is_not_its_own_changes_nothing(attack: Attack, replaces: str | None) -> None:
    attack.raw(json.loads(encode(hello(epoch=OTHERS, replaces=replaces))))
    attack.raw(batch(operation(), epoch=OTHERS))
    assert attack.counters["reset_sent"] == 2
    assert attack.head(ATTACKER)["epoch"] == EPOCH
    attack.unharmed()


def test_taking_epoch_after_epoch_costs_nobody_else(attack: Attack) -> None:
    before = EPOCH
    for number in range(50):
        epoch = f"{number:032d}"
        attack.now_ms += 13 * 60_000  # a pace at which it stays out of quarantine
        attack.raw(json.loads(encode(hello(epoch=epoch, replaces=before))))
        before = epoch
    assert attack.counters["epoch_adopted"] == 50
    attack.unharmed()


# Size and shape


TOO_MUCH: Final[dict[str, tuple[Any, str]]] = {
    "over the payload's limit": (b"{" + b" " * (128 * 1024), "oversize"),
    "99 operations": (batch(*(operation(u=u) for u in range(1, 100))), "malformed"),
    "no operation": (batch(), "malformed"),
    "first_u 0": (batch(operation(u=0), first_u=0), "malformed"),
    "first_u beyond": (batch(operation(u=1 << 53), first_u=1 << 53), "malformed"),
    "u with a gap": (batch(operation(), operation(u=3)), "malformed"),
    "u backwards": (batch(operation(u=1), operation(u=1)), "malformed"),
    "an id too long": (batch(operation(id="x" * 129)), "malformed"),
    "an empty id": (batch(operation(id="")), "malformed"),
    "an epoch too long": (batch(operation(), epoch="x" * 129), "malformed"),
    "an empty epoch": (batch(operation(), epoch=""), "malformed"),
    "a nonce too long": ({**json.loads(encode(hello())), "feeds": {"device": {"nonce": "x" * 129}}}, "malformed"),
    "an unknown feed": ({**json.loads(encode(hello())), "feeds": {"everybody": {"nonce": "x"}}}, "malformed"),
    "deep JSON": (b'{"t":"up","v":1,"x":' + b"[" * 60_000 + b"]" * 60_000 + b"}", "malformed"),
    "deep JSON, never closed": (b"{" * 100_000, "malformed"),
    "deep MessagePack": (b"\x91" * 100_000, "malformed"),
    "MessagePack's promise of 4 billion": (b"\xdd\xff\xff\xff\xff", "malformed"),
    "MessagePack's text of 4 billion": (b"\xdb\xff\xff\xff\xff", "malformed"),
    "MessagePack with lists for keys": (msgspec.msgpack.encode({(1, 2): 3}), "malformed"),
    "invalid UTF-8": (b'{"t":"hello","v":1,"epoch":"\xff\xfe"}', "malformed"),
    "half a surrogate pair": (json.dumps({**json.loads(encode(hello())), "epoch": "\ud800"}).encode(), "malformed"),
    "a number too long": (b'{"t":"hello","v":1,"n":' + b"9" * 5_000 + b"}", "malformed"),
    "a number beyond floats": (b'{"t":"hello","v":1,"n":1e999}', "malformed"),
    "nothing": (b"", "malformed"),
    "another version": (batch(operation(), v=2), "version"),
    "another kind": (batch(operation(), t="ack"), "malformed"),
    "an unheard kind": (batch(operation(), t="drop table"), "unknown"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_message_of_another_shape_is_refused_whole(attack: Attack, name: str) -> None:
    message, code = TOO_MUCH[name]
    assert attack.raw(message) == []
    assert attack.counters == {f"message_refused_{code}": 1}
    assert attack.head(ATTACKER)["up"] == 0
    attack.unharmed()


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


IMAGES: Final[dict[str, tuple[Any, str]]] = {
    "a list": ([], "malformed"),
    "a text": ("x", "malformed"),
    "nested too deep": (own_image(x=deep(100)), "type"),
    "a number of 400 digits": (own_image(rev=int("9" * 400)), "type"),
    "another type": (own_image(rev="1"), "type"),
    "a set that is none": (own_image(x={"$SS": [1]}), "type"),
    "bytes that are none": (own_image(x={"$B": "***"}), "type"),
    "no device": ({name: value for name, value in own_image().items() if name != "deviceId"}, "required"),
    "a model's name that is none": (own_image(_type=["Setting"]), "model"),
    "a stamp that is none": (own_image(updated={"a": 1}), "type"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_no_application_could_have_made_is_rejected(name: str) -> None:
    attack = Attack()
    image, code = IMAGES[name]
    (ack,) = attack.raw(batch(operation(image)))
    assert ack.verdicts == {1: code}
    assert attack.counters[f"rejected_{code}"] == 1
    attack.unharmed()


def test_an_item_over_the_limit_is_rejected_by_its_size() -> None:
    attack = Attack()
    (ack,) = attack.raw(batch(operation(own_image(text="x" * 97 * 1024))))
    assert ack.verdicts == {1: "size"}
    attack.unharmed()


def test_a_full_message_of_small_operations_is_one_transaction(attack: Attack) -> None:
    ops = [op(u, "create", fault(1, f"{u:03d}" + "x" * 400, device=ATTACKER)) for u in range(1, 99)]
    message = up(*ops)
    assert len(encode(message)) < BATCH_BYTES_MAX
    attack.send(message, ATTACKER)
    assert attack.head(ATTACKER)["up"] == 98
    attack.unharmed()


# Stamps


EXTREMES: Final = [0, -1, 10**30, -(10**30), 1 << 63, 1 << 64, -(1 << 63), 253_402_300_800_000, -62_135_596_800_001]


@pytest.mark.parametrize("updated_ms", EXTREMES)
@pytest.mark.parametrize("kind", ["create", "update", "delete"])
def test_no_stamp_breaks_the_relay_or_wins_for_ever(attack: Attack, kind: str, updated_ms: int) -> None:
    made = own_image()
    if attack.iso:
        made.update(created="2026-01-01T00:00:00.000Z", updated="2026-01-01T00:00:00.000Z")
    changed = operation(made, kind=kind, updated=updated_ms)
    if kind == "delete":
        del changed["image"]
    (ack,) = attack.raw(batch(changed))
    assert ack.up == 1
    item = attack.item((f"device#{ATTACKER}", "setting#mode"))
    if kind == "create":
        assert item is not None
        model = attack.relay.schema.models["Setting"]
        assert model.updated_ms(dict(item)) <= attack.now_ms + attack.relay.config.future_ms
        assert attack.counters["stamp_cut"] == (not -62_135_596_800_000 <= updated_ms <= NOW_MS)
    attack.unharmed()


def test_a_stamp_of_the_future_is_cut_and_the_clouds_next_write_wins() -> None:
    attack = Attack()
    (ack,) = attack.raw(batch(operation(updated=NOW_MS + 10**12)))
    assert ack.verdicts == {} and attack.counters["stamp_cut"] == 1
    written = setting(2, device=ATTACKER, updated_ms=NOW_MS + 1_000)
    attack.execute(Put(stored(written)))
    attack.now_ms += 500
    (ack,) = attack.raw(batch(operation(u=2, updated=NOW_MS + 600, kind="update"), first_u=2, prev_id="boot"))
    assert ack.verdicts == {2: "lost"}


@pytest.mark.parametrize("seq", [-1, 1 << 53, 1 << 70, -(1 << 70)])
def test_a_cursor_from_nowhere_gets_a_snapshot_of_its_own_feed(attack: Attack, seq: int) -> None:
    state = {"device": {"nonce": "n", "epoch": "1700000000000" + "0" * 16, "seq": seq}}
    answers = attack.raw({**json.loads(encode(hello())), "feeds": state, "n": 10**30})
    assert [type(answer).__name__ for answer in answers] == ["Ack", "Snapshot"]
    assert answers[0].n == 10**30 and answers[1].items == []
    attack.unharmed()


# Floods


def test_a_flood_of_hellos_is_answered_up_to_the_rate_and_starves_nobody() -> None:
    attack = Attack()
    attack.now_ms += attack.relay.config.hello_window_ms
    most = attack.relay.config.hello_per_window
    answered = sum(bool(attack.raw(json.loads(encode(hello())))) for _ in range(most + 500))
    assert answered == most + 1, "the last answer asks it to wait"
    assert attack.counters["message_refused_rate"] == 500
    (ack,) = attack.send(hello(epoch=OTHERS, n=3), VICTIM)  # in the same window
    assert isinstance(ack, Ack)
    assert attack.published.pop().topic == f"ioto/device/{VICTIM}/sync"
    attack.unharmed()


def test_the_same_batch_a_thousand_times_is_taken_once_and_writes_nothing_more() -> None:
    attack = Attack()
    attack.raw(batch(operation()))
    attack.records()
    for _ in range(1_000):
        (ack,) = attack.raw(batch(operation()))
        assert ack.up == 1
    assert attack.records() == []
    assert attack.counters["duplicate_batch"] == 1_000
    attack.unharmed()


def test_verdicts_that_are_never_fetched_stay_within_two_batches() -> None:
    attack = Attack()
    u = 1
    for _ in range(40):
        bad = [operation("x", u=number) for number in range(u, u + 98)]
        (ack,) = attack.raw(batch(*bad, first_u=u, **({} if u == 1 else {"prev_id": "boot"})))
        assert ack.up == u + 97
        u += 98
    assert len(attack.head(ATTACKER)["verdicts"]) <= 2 * 98
    attack.unharmed()


# Anything


_numbers: Final = st.one_of(st.integers(-3, 3), st.sampled_from(EXTREMES), st.integers(-(1 << 70), 1 << 70))
_texts: Final = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.sampled_from([EPOCH, OTHERS, "boot", "", f"device#{ATTACKER}", f"device#{VICTIM}", "setting#mode", "status#"]),
)
_any: Final = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, _texts, st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_texts, inner, max_size=3)),
    max_leaves=5,
)
_images: Final = st.one_of(_any, st.dictionaries(st.sampled_from([*own_image(), "_op", "x", "pk"]), _any).map(
    lambda changed: own_image() | changed
))  # fmt: skip
_keys: Final = st.one_of(
    st.tuples(_texts, _texts).map(list),
    st.sampled_from([[f"device#{ATTACKER}", "setting#mode"], [f"device#{VICTIM}", "setting#mode"], ["", ""]]),
)
_ops: Final = st.fixed_dictionaries(
    {"kind": st.sampled_from(["create", "update", "delete", "sweep"]), "id": _texts, "key": _keys, "updated": _numbers},
    optional={"image": _images},
)
_feeds: Final = st.dictionaries(
    st.sampled_from(["device", "account", "all"]),
    st.fixed_dictionaries({"nonce": _texts, "seq": _numbers}, optional={"epoch": _texts}),
)
_messages: Final = st.one_of(
    st.builds(
        lambda ops, first_u, more: batch(
            *({**o, "u": first_u + i} for i, o in enumerate(ops)), first_u=first_u, **more
        ),
        st.lists(_ops, min_size=1, max_size=4),
        st.one_of(st.just(1), _numbers),
        st.fixed_dictionaries({}, optional={"epoch": _texts, "prev_id": _texts, "hn": _texts}),
    ),
    st.builds(
        lambda feeds, more: {**json.loads(encode(hello())), "feeds": feeds, **more},
        _feeds,
        st.fixed_dictionaries({}, optional={"epoch": _texts, "replaces": _texts, "n": _numbers, "schema": _texts}),
    ),
)


@given(st.lists(_messages, max_size=6), st.booleans())
@example([batch(operation(updated=-(10**18)))], True)
@example([batch({**operation(), "kind": "sweep"})], False)
def test_whatever_it_sends_the_relay_stands_and_others_are_unharmed(
    messages: list[Mapping[str, Any]], iso: bool
) -> None:
    attack = Attack(ISO if iso else SCHEMA)
    for message in messages:
        for answer in attack.raw(message):
            assert not (isinstance(answer, Rows) and answer.feed == "device" and VICTIM in str(answer.rows))
    attack.unharmed()


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 40))
def test_a_message_with_bytes_changed_is_no_worse(noise: bytes, at: int, cut: int) -> None:
    attack = Attack()
    for compact in (False, True):
        good = encode(up(op(1, "create", setting(1, device=ATTACKER))), compact=compact)
        attack.raw(good[:at] + noise + good[at + cut :])
    attack.unharmed()
