"""The session as a machine: what may happen in each state, when it speaks, and what it refuses to hear."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec
import pytest
from device_rig import FEED, Device, memory_of
from hypothesis import given
from hypothesis import strategies as st
from relay_rig import NOW_MS, config, setting

from agent.changes import Change
from agent.config import AgentConfig
from agent.events import (
    BOOT,
    COMPARE,
    CONNECTED,
    DISCONNECTED,
    LOCAL_CHANGE,
    ONLINE,
    STOP,
    TIMER,
    Boot,
    Compare,
    Connected,
    Disconnect,
    Disconnected,
    Event,
    LocalChange,
    Received,
    State,
    Stop,
    Timer,
)
from agent.protocol.messages import (
    MESSAGE_BYTES_MAX,
    Ack,
    FeedState,
    HeadMark,
    Hello,
    Reset,
    Row,
    Rows,
    Snapshot,
    SnapshotItem,
    ToDevice,
    Up,
    encode,
    encode_image,
    is_compact,
)
from agent.session import NEVER, Session
from agent.transitions import TRANSITIONS, IllegalTransitionError

EVENTS: Final = (Boot, Connected, Disconnected, Received, LocalChange, Timer, Compare, Stop)
MINUTE_MS: Final = 60_000


def joining(settings: AgentConfig | None = None, **types: Any) -> tuple[Device, Hello]:
    """Connected for the first time; its hello."""
    device = Device(config=settings, **types).boot()
    device.connect()
    (hello,) = device.sent()
    assert isinstance(hello, Hello)
    return device, hello


def answer(device: Device, hello: Hello, up: int | None = None, upid: str | None = None) -> Ack:
    identity = device.store.identity
    if up is None:
        up, upid = identity.acked_u, identity.acked_id
    return Ack(epoch=hello.epoch, up=up, upid=upid, now=device.set_ms, n=hello.n)


def taken(device: Device, sent: Up) -> Ack:
    """The relay's acknowledgement of a whole batch."""
    return Ack(epoch=sent.epoch, up=sent.ops[-1].u, upid=sent.ops[-1].id, now=device.set_ms)


def idle(settings: AgentConfig | None = None, **types: Any) -> Device:
    """Adopted, the sweep done, a cursor in each feed, the hello answered."""
    device, hello = joining(settings, **types)
    for feed in ("device", "account"):
        device.store.set_cursor(feed, FEED, 5, device.session.replica.fingerprints[feed])
    device.hear(answer(device, hello))
    (sweep,) = device.sent()
    assert isinstance(sweep, Up)
    device.hear(taken(device, sweep))
    assert device.session.state is State.IDLE
    assert device.store.outbox() == []
    device.changes.clear()
    device.probes.clear()
    return device


def sending() -> tuple[Device, Up]:
    device = idle()
    device.database.create("Status", {"rev": 1})
    (up,) = device.sent()
    assert isinstance(up, Up)
    return device, up


def rows(*some: Row, a: int = 5, last: int = 0, feed: str = "device", epoch: str = FEED) -> Rows:
    end = a + max(1, len(some))
    return Rows(feed=feed, epoch=epoch, a=a, b=end, last=max(last, end), rows=list(some))  # type: ignore[arg-type]


def row(written: tuple[tuple[str, str], dict[str, Any]]) -> Row:
    return Row(written[0], msgspec.Raw(encode_image(written[1])))


def hellos(device: Device) -> list[Hello]:
    return [message for message in device.sent() if isinstance(message, Hello)]


def in_state(state: State) -> Device:
    if state in (State.IDLE, State.SENDING):
        return idle() if state is State.IDLE else sending()[0]
    if state is State.JOINING:
        return joining()[0]
    device = Device().boot()
    if state is State.OFF:
        device.feed(STOP)
    while state is State.CONNECTING and not device.connecting:
        device.advance(1_000)
    assert device.session.state is state
    return device


def feed_all(device: Device, *events: Event) -> None:
    for event in events:
        device.feed(event)


def example(kind: type[Event]) -> Event:
    return Received(b"{}") if kind is Received else kind()


# The table


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", EVENTS)
def test_every_event_in_every_state_leads_where_the_table_says_or_is_refused(state: State, kind: type[Event]) -> None:
    device = in_state(state)
    assert device.session.state is state
    entry = TRANSITIONS[state].get(kind)
    if entry is None:
        before = device.dump()
        with pytest.raises(IllegalTransitionError, match=f"{kind.__name__} in state {state.value}"):
            device.feed(example(kind))
        assert device.dump() == before
        assert device.session.state is state
    else:
        device.feed(example(kind))
        assert device.session.state in entry[1]


def test_the_table_names_every_state_and_methods_that_there_are() -> None:
    assert TRANSITIONS.keys() == set(State)
    for entries in TRANSITIONS.values():
        for kind, (method, states) in entries.items():
            assert kind in EVENTS and callable(getattr(Session, method)) and states


def test_every_state_that_the_table_allows_to_follow_does_follow() -> None:
    """Driven through joining, idle and sending by what comes in; each pair of states is reached."""
    seen: set[tuple[State, type[Event], State]] = set()

    class Watched(Session):
        def _step(self, event: Event) -> None:
            before = self.state
            super()._step(event)
            seen.add((before, type(event), self.state))

    device = idle(session_type=Watched)
    device.database.create("Status", {"rev": 1})
    (up,) = device.sent()
    assert isinstance(up, Up)
    feed_all(device, LOCAL_CHANGE, COMPARE)
    device.advance(20 * MINUTE_MS)
    feed_all(device, DISCONNECTED, LOCAL_CHANGE, COMPARE, TIMER)
    while not device.connecting:
        device.advance(MINUTE_MS)
    feed_all(device, TIMER, LOCAL_CHANGE, COMPARE, DISCONNECTED)
    device.connecting = False
    device.connect()
    device.hear(taken(device, up))
    feed_all(device, TIMER, COMPARE)
    device.hear(Ack(epoch=device.store.identity.epoch, up=2, upid="other", now=NOW_MS))
    feed_all(device, LOCAL_CHANGE, COMPARE, TIMER, STOP, LOCAL_CHANGE, COMPARE, TIMER, BOOT, STOP)
    reached = {(before, kind) for before, kind, _ in seen}
    assert {kind for _, kind in reached} == set(EVENTS)
    ending = (Stop, Disconnected)  # the same everywhere
    assert reached >= {(state, kind) for state in State for kind in TRANSITIONS[state] if kind not in ending}
    afterwards = {(before, after) for before, _, after in seen}
    assert afterwards >= {
        (State.OFF, State.WAITING),
        (State.WAITING, State.CONNECTING),
        (State.CONNECTING, State.JOINING),
        (State.CONNECTING, State.SENDING),
        (State.JOINING, State.SENDING),
        (State.SENDING, State.IDLE),
        (State.IDLE, State.SENDING),
        (State.SENDING, State.WAITING),
        (State.IDLE, State.JOINING),
    }


def test_a_stop_closes_the_connection_and_leaves_no_timer() -> None:
    device = idle()
    effects = device.session.receive(STOP, device.monotonic_ms())
    assert [type(effect) for effect in effects] == [Disconnect]
    assert device.session.timer_at_ms == NEVER


def test_a_callback_that_writes_is_heard_when_the_message_is_done() -> None:
    device = idle()
    database = device.database

    def report(_: Change) -> None:
        database.create("Status", {"rev": 1})

    database.on("Config", "*", report)
    device.hear(rows(row(config(1)), last=9))
    up, hello = sorted(device.sent(), key=lambda message: type(message).__name__, reverse=True)
    assert isinstance(up, Up) and isinstance(hello, Hello)
    assert device.session.state is State.SENDING
    device.advance(2 * MINUTE_MS)
    assert any(isinstance(message, Up) for message in device.sent())


def test_a_write_that_the_session_hears_of_late_is_sent() -> None:
    """A driver with threads hands the news over when it can: something else may come first."""
    device = idle()
    device.database.on_outbox = lambda: None
    device.database.create("Status", {"rev": 1})
    identity = device.store.identity
    device.hear(Ack(epoch=identity.epoch, up=identity.acked_u, upid=identity.acked_id, now=device.set_ms))
    device.feed(LOCAL_CHANGE)
    assert [type(message) for message in device.sent()] == [Up]
    device.advance(2 * MINUTE_MS)
    assert len([message for message in device.sent() if isinstance(message, Up)]) >= 1


# Boot


def test_an_epoch_that_was_not_adopted_is_minted_anew_at_every_boot() -> None:
    device = Device().boot()
    first = device.store.identity
    device.off()
    device.boot()
    second = device.store.identity
    assert first.epoch != second.epoch and not second.adopted
    assert {row.epoch for row in device.store.outbox()} == {second.epoch}
    assert device.session.mints == 0


def test_an_adopted_epoch_survives_boots_with_a_new_boot_nonce() -> None:
    device = idle()
    epoch, boot_id, nonces = device.store.identity.epoch, device.session.boot_id, dict(device.session.nonces)
    device.off()
    device.boot()
    assert device.store.identity.epoch == epoch
    assert device.session.boot_id != boot_id
    assert not set(nonces.values()) & set(device.session.nonces.values())


def test_a_feed_whose_models_have_changed_is_fetched_anew() -> None:
    device = idle()
    device.store.execute("UPDATE cursor SET models='others' WHERE feed='device'")
    device.off()
    device.boot()
    assert device.store.cursors.keys() == {"account"}
    assert device.probes["feed_models_changed"] == 1


@given(st.integers(0, 200))
def test_the_first_connection_after_a_boot_comes_within_the_jitter(seed: int) -> None:
    device = Device(seed=seed).boot()
    assert 0 <= device.session.timer_at_ms <= AgentConfig().boot_jitter_ms


# Connecting again: full jitter, doubling, anew only after a connection that held


def refused(device: Device) -> int:
    """The connection fails; how long until the next try."""
    device.feed(DISCONNECTED)
    wait_ms = device.session.timer_at_ms - device.monotonic_ms()
    while not device.connecting:
        device.advance(max(0, device.booted_ms + device.session.timer_at_ms - device.set_ms))
    device.connecting = False
    return wait_ms


def test_the_wait_before_connecting_doubles_up_to_its_cap_with_full_jitter() -> None:
    longest: Counter[int] = Counter()
    shortest = Counter({n: 1 << 60 for n in range(12)})
    for seed in range(120):
        device = Device(seed=seed).boot()
        device.advance(30_000)
        device.connecting = False
        for attempt in range(12):
            wait_ms = refused(device)
            longest[attempt] = max(longest[attempt], wait_ms)
            shortest[attempt] = min(shortest[attempt], wait_ms)
    settings = AgentConfig()
    for attempt in range(12):
        ceiling_ms = min(settings.connect_cap_ms, settings.connect_base_ms << attempt)
        assert shortest[attempt] < 0.1 * ceiling_ms, "full jitter begins at nothing"
        assert 0.9 * ceiling_ms < longest[attempt] <= ceiling_ms


def test_a_connection_that_drops_at_once_does_not_begin_the_wait_anew() -> None:
    device = Device().boot()
    device.advance(30_000)
    for _ in range(10):
        device.connecting = False
        device.feed(CONNECTED)
        device.advance(AgentConfig().stable_ms - 1)
        device.feed(DISCONNECTED)
        while not device.connecting:
            device.advance(1_000)
    assert device.session._connect_attempts == 10
    device.connecting = False
    device.feed(CONNECTED)
    device.advance(AgentConfig().stable_ms)
    assert device.session._connect_attempts == 0


# Hello


def test_a_connection_begins_with_a_hello_of_epoch_and_cursors() -> None:
    device = idle()
    device.drop()
    device.connect()
    (hello,) = hellos(device)
    session = device.session
    assert (hello.epoch, hello.replaces, hello.hn) == (device.store.identity.epoch, None, session.hn)
    assert hello.schema == device.schema.version
    assert hello.feeds == {feed: FeedState(session.nonces[feed], FEED, 5) for feed in ("device", "account")}


def test_nothing_goes_up_before_the_epoch_is_adopted() -> None:
    device, hello = joining()
    device.database.create("Status", {"rev": 1})
    device.advance(MINUTE_MS)
    assert {type(message) for message in device.sent()} == {Hello}
    device.hear(answer(device, hello))
    assert [op.kind for message in device.sent() if isinstance(message, Up) for op in message.ops] == ["sweep"]


def test_a_hello_without_an_answer_is_said_again_ever_more_rarely() -> None:
    device, _ = joining()
    settings = AgentConfig()
    before = device.set_ms
    for attempt in range(12):
        wait_ms = device.booted_ms + device.session._hello_at - before
        spread_ms = min(settings.resend_cap_ms, settings.resend_base_ms << attempt)
        assert settings.resend_base_ms <= wait_ms <= settings.resend_base_ms + spread_ms
        while not (said := hellos(device)):
            device.advance(max(1, device.booted_ms + device.session.timer_at_ms - device.set_ms))
        assert len(said) == 1
        before = device.set_ms


@given(st.integers(0, 200))
def test_an_answered_hello_comes_again_after_its_period_give_or_take_a_fifth(seed: int) -> None:
    device = idle(seed=seed)
    settings = AgentConfig()
    wait_ms = device.session._hello_at - device.monotonic_ms()
    assert 0.8 * settings.hello_period_ms - 1 <= wait_ms <= 1.2 * settings.hello_period_ms


def test_while_a_feed_has_no_cursor_its_snapshot_is_asked_for_again_soon() -> None:
    device, hello = joining()
    device.hear(answer(device, hello))
    device.sent()
    device.advance(6 * AgentConfig().resend_base_ms)
    assert hellos(device)


def asked_with_tails(device: Device, hello: Hello, seq: int, epoch: str = FEED) -> None:
    """The answer to a hello, of a device that stands at row 5 of both feeds."""
    tails: dict[Any, tuple[str, int]] = {"device": (epoch, seq), "account": (FEED, 5), "all": (FEED, 9)}
    device.hear(msgspec.structs.replace(answer(device, hello), tails=tails))


def connected_again() -> tuple[Device, Hello]:
    device = idle()
    device.drop()
    device.connect()
    (hello,) = hellos(device)
    return device, hello


@pytest.mark.parametrize(("seq", "epoch"), [(6, FEED), (1, FEED + "1")])
def test_what_an_answered_hello_asked_for_is_asked_for_again_ever_more_rarely_until_it_has_come(
    seq: int, epoch: str
) -> None:
    """The ack came, and what followed it was lost."""
    device, hello = connected_again()
    settings = AgentConfig()
    for attempt in range(1, 8):
        asked_with_tails(device, hello, seq, epoch)
        assert device.session.is_behind and not device.session.is_calm
        wait_ms = device.session._hello_at - device.monotonic_ms()
        spread_ms = min(settings.resend_cap_ms, settings.resend_base_ms << attempt)
        assert settings.resend_base_ms <= wait_ms <= settings.resend_base_ms + spread_ms
        device.advance(wait_ms)
        (hello,) = hellos(device)
        assert device.probes["catchup_asked_again"] == attempt
    asked_with_tails(device, hello, seq, epoch)
    if epoch == FEED:
        device.hear(rows(row(config(1))))
    else:
        device.hear(part(device, 0, 1, epoch=epoch, seq=seq))
        device.advance(settings.hello_spacing_ms)
        (hello,) = hellos(device)
        asked_with_tails(device, hello, seq, epoch)
    assert not device.session.is_behind
    assert device.session._hello_attempts == 0
    assert device.session._hello_at - device.monotonic_ms() >= 0.8 * settings.hello_period_ms - 1


@pytest.mark.parametrize(("seq", "epoch"), [(5, FEED), (3, FEED), (99, FEED[:-1])])
def test_a_device_that_has_all_that_the_answer_tells_of_asks_again_after_the_period(seq: int, epoch: str) -> None:
    """A tail that it is beyond was told of before a push."""
    device, hello = connected_again()
    asked_with_tails(device, hello, seq, epoch)
    assert not device.session.is_behind
    assert device.session._hello_at - device.monotonic_ms() >= 0.8 * AgentConfig().hello_period_ms - 1


def test_what_is_to_be_asked_after_a_snapshot_is_asked_though_a_push_comes_first() -> None:
    device, hello = connected_again()
    asked_with_tails(device, hello, 1, FEED + "1")
    device.hear(part(device, 0, 1, epoch=FEED + "1", seq=1), rows(row(config(1)), a=1, epoch=FEED + "1"))
    assert not device.session.is_behind
    device.advance(AgentConfig().hello_spacing_ms)
    assert len(hellos(device)) == 1


def test_a_snapshot_whose_parts_still_come_is_not_asked_for_again() -> None:
    device, hello = connected_again()
    asked_with_tails(device, hello, 1, FEED + "1")
    for number in range(9):
        device.hear(part(device, number, 10, setting(number, f"s{number}"), epoch=FEED + "1", seq=1))
        device.advance(AgentConfig().resend_base_ms - 1)
        assert hellos(device) == []
    device.advance(10 * AgentConfig().resend_base_ms)
    assert len(hellos(device)) >= 1


@pytest.mark.parametrize("answered", [True, False])
def test_on_a_slow_link_the_next_hello_waits_for_twice_as_long_as_the_last_part_took(answered: bool) -> None:
    """Each hello would put another whole answer behind the one that is coming."""
    device, hello = connected_again()
    if answered:
        asked_with_tails(device, hello, 1, FEED + "1")
    took_ms, stale = 10 * AgentConfig().resend_base_ms, {"nonce": "of an earlier answer"}
    for number in range(9):
        other = stale if number % 2 else {}
        device.hear(part(device, number, 10, setting(number, f"s{number}"), epoch=FEED + "1", seq=1, **other))
        device.sent()  # while the first one was on its way, nobody knew how slow the link is
        device.advance(took_ms)
    assert hellos(device) == []
    device.advance(took_ms - 1)
    assert hellos(device) == []
    device.advance(AgentConfig().resend_cap_ms)
    assert len(hellos(device)) >= 1


def test_the_answer_to_an_earlier_hello_or_one_of_before_the_boot_is_no_answer() -> None:
    device, hello = joining()
    for n in (hello.n - 1, hello.n + 1, 0, 1):
        device.hear(msgspec.structs.replace(answer(device, hello), n=n))
        assert device.session._hello_open
    device.hear(answer(device, hello))
    assert not device.session._hello_open


def test_two_boots_number_their_hellos_from_different_places() -> None:
    device, hello = joining()
    device.off()
    device.boot()
    device.connect()
    (later,) = hellos(device)
    assert abs(later.n - hello.n) > 100


# Sending


def test_one_batch_is_in_flight_and_what_comes_meanwhile_waits() -> None:
    device, up = sending()
    for number in range(5):
        device.database.create("Fault", {"id": str(number), "rev": number})
    assert device.sent() == []
    device.hear(taken(device, up))
    (following,) = device.sent()
    assert isinstance(following, Up)
    assert (following.first_u, following.prev_id, len(following.ops)) == (up.ops[-1].u + 1, up.ops[-1].id, 5)


def test_a_batch_is_sent_again_unchanged_until_it_is_acknowledged() -> None:
    device, up = sending()
    device.database.update("Status", {"rev": 2})
    again: list[Any] = []
    for _ in range(40):
        device.advance(MINUTE_MS)
        again += [message for message in device.sent() if isinstance(message, Up)]
    assert len(again) >= 5
    assert all(encode(message) == encode(up) for message in again)
    assert device.probes["retransmit"] == len(again)


def test_a_batch_in_flight_survives_a_boot_with_its_ids() -> None:
    device, up = sending()
    device.off()
    device.boot()
    device.connect()
    (hello,) = device.sent()
    assert isinstance(hello, Hello)
    device.hear(answer(device, hello))
    (again,) = device.sent()
    assert isinstance(again, Up)
    assert again.ops == up.ops and again.first_u == up.first_u


def test_what_a_batch_has_left_goes_at_once_when_a_part_of_it_is_taken() -> None:
    device = idle()
    device.drop()
    for number in range(4):
        device.database.create("Fault", {"id": str(number), "rev": number})
    device.connect()
    (hello,) = hellos(device)
    device.hear(answer(device, hello))
    (up,) = device.sent()
    assert isinstance(up, Up)
    device.hear(msgspec.structs.replace(taken(device, up), up=up.ops[1].u, upid=up.ops[1].id))
    (rest,) = device.sent()
    assert isinstance(rest, Up)
    assert rest.ops == up.ops[2:] and rest.prev_id == up.ops[1].id


def test_the_largest_items_under_the_longest_keys_still_fit_on_the_wire() -> None:
    for compact in (False, True):
        device = idle(AgentConfig(compact=compact))
        device.drop()
        for number in range(12):
            name = chr(1) * 900 + f"{number:02}"
            device.database.create("Setting", {"name": name, "rev": number, "text": "x" * 9_000})
        device.database.create("Setting", {"name": "full", "rev": 1, "text": "x" * 98_000})
        device.connect()
        (hello,) = hellos(device)
        device.hear(answer(device, hello))
        batches = 0
        while device.store.in_flight:
            (payload,) = device.out
            assert len(payload) <= MESSAGE_BYTES_MAX
            (up,) = device.sent()
            assert isinstance(up, Up)
            device.hear(taken(device, up))
            batches += 1
        assert batches >= 3


def test_what_grows_too_large_as_messagepack_goes_as_json() -> None:
    device = idle(AgentConfig(compact=True))
    key, image = setting(1, "a")
    image["fractions"] = [0.5] * 20_000
    device.store.add_operation(*key, "create", encode_image(image), NOW_MS)
    device.feed(LOCAL_CHANGE)
    (payload,) = device.out
    assert len(payload) <= MESSAGE_BYTES_MAX and not is_compact(payload)


# Feeds


def test_a_gap_waits_for_a_straggler_and_asks_only_then() -> None:
    device = idle()
    device.hear(rows(row(config(2)), a=6))
    assert device.store.cursors["device"] == (FEED, 5)
    device.advance(AgentConfig().gap_wait_ms - 1)
    assert device.sent() == []
    device.advance(1)
    assert len(hellos(device)) == 1


def test_a_straggler_fills_the_gap_and_nothing_is_asked() -> None:
    device = idle()
    device.hear(rows(row(config(3)), a=7), rows(row(config(2)), a=6), rows(row(config(1)), a=5))
    assert device.store.cursors["device"] == (FEED, 8)
    assert [image["rev"] for image in device.visible().values()] == [3]
    device.advance(10 * AgentConfig().gap_wait_ms)
    assert device.sent() == []


def test_a_gap_that_a_hello_did_not_fill_is_asked_for_again() -> None:
    """The rows that answered were lost; the hello that was open when the gap's time came does not end the matter."""
    device = idle()
    device.drop()
    device.connect()
    (hello,) = hellos(device)
    device.hear(rows(row(config(2)), a=6))
    device.advance(1_999)
    device.session._hello_at = NEVER  # its own repetition is another matter
    device.advance(1)
    assert hellos(device) == []
    device.hear(answer(device, hello))
    device.advance(2 * AgentConfig().gap_wait_ms)
    assert len(hellos(device)) == 1


def test_rows_that_know_of_more_are_followed_by_a_question_at_once() -> None:
    device = idle()
    device.hear(rows(row(config(1)), last=30))
    (hello,) = hellos(device)
    assert hello.feeds["device"].seq == 6
    device.hear(rows(row(config(2)), a=6, last=30))
    assert len(hellos(device)) == 1


def test_hellos_keep_their_distance_whatever_comes() -> None:
    device = idle()
    device.advance(5_000)
    count = 0
    for _ in range(20):
        device.hear(rows(row(config(1)), epoch="other"))
        said = hellos(device)
        count += len(said)
        for hello in said:
            device.hear(answer(device, hello))
    assert count == 1
    device.advance(AgentConfig().hello_spacing_ms)
    assert len(hellos(device)) == 1


def part(device: Device, number: int, of: int, *items: tuple[Any, Any], **other: Any) -> Snapshot:
    listed = [SnapshotItem(key, msgspec.Raw(encode_image(image))) for key, image in items]
    values: dict[str, Any] = {
        "feed": "device",
        "nonce": device.session.nonces["device"],
        "epoch": FEED,
        "seq": 9,
        "part": number,
        "parts": of,
        "items": listed,
        "scan": "s1",
    }
    return Snapshot(**(values | other))


def test_parts_of_a_snapshot_may_come_in_any_order_and_twice() -> None:
    device = idle()
    three, one, two = (part(device, i, 3, setting(i + 1, "abc"[i])) for i in (2, 0, 1))
    device.hear(three, one, one)
    assert device.visible() == {}
    device.hear(two)
    assert [image["rev"] for image in device.visible().values()] == [1, 2, 3]
    assert device.store.cursors["device"] == (FEED, 9)


@pytest.mark.parametrize(
    "other", [{"scan": "s2"}, {"seq": 10}, {"epoch": FEED[:-1] + "1"}, {"parts": 3}, {"head": HeadMark("e", 1, "x")}]
)
def test_parts_of_two_snapshots_are_not_mixed(other: dict[str, Any]) -> None:
    device = idle()
    device.hear(part(device, 0, 2, setting(1, "a")), part(device, 1, 2, setting(2, "b"), **other))
    assert device.visible() == {}
    device.hear(part(device, 0, 2, setting(3, "c")), part(device, 1, 2, setting(4, "d")))
    assert [image["rev"] for image in device.visible().values()] == [3, 4]


def test_a_snapshot_s_nonce_holds_for_one_snapshot() -> None:
    device = idle()
    first = part(device, 0, 1, setting(1, "a"))
    device.hear(first)
    before = device.dump()
    device.hear(first, msgspec.structs.replace(first, seq=20, items=[]))
    assert device.dump() == before
    assert device.probes["stale_snapshot"] == 2


def test_a_new_epoch_and_a_boot_make_earlier_snapshots_stale() -> None:
    for renew in ("mint", "boot"):
        device = idle()
        stale = part(device, 0, 1, setting(1, "a"))
        if renew == "boot":
            device.off()
            device.boot()
            device.connect()
        else:
            device.hear(Ack(epoch=device.store.identity.epoch, up=99, upid="x", now=NOW_MS))
        device.hear(stale)
        assert device.visible() == {}


def test_an_applied_snapshot_asks_for_what_came_after_it() -> None:
    device = idle()
    device.advance(5_000)
    device.hear(part(device, 0, 1, setting(1, "a")))
    (hello,) = hellos(device)
    assert hello.feeds["device"].seq == 9


# Identity (rule 16)


def test_a_reset_counts_only_with_the_present_nonce() -> None:
    device = idle()
    before = device.dump()
    device.hear(Reset(hn="other", head_epoch="e"), Reset(hn=device.session.hn, head_epoch=device.store.identity.epoch))
    assert device.dump() == before
    assert device.probes["stale_reset"] == 2
    epoch, hn = device.store.identity.epoch, device.session.hn
    device.hear(Reset(hn=hn, head_epoch="e"))
    assert device.store.identity.epoch != epoch
    assert (device.store.identity.replaces, device.session.hn == hn, device.session.mints) == ("e", False, 1)
    (hello,) = hellos(device)
    assert hello.replaces == "e"


def test_a_reset_before_adoption_keeps_epoch_and_outbox() -> None:
    device, hello = joining()
    epoch, outbox = device.store.identity.epoch, device.store.outbox()
    device.hear(Reset(hn=hello.hn, head_epoch="e"))
    assert (device.store.identity.epoch, device.store.identity.replaces) == (epoch, "e")
    assert device.store.outbox() == outbox
    assert [hello.replaces for hello in hellos(device)] == ["e"]


def test_a_reset_before_adoption_forgets_a_snapshot_whose_ack_was_lost() -> None:
    """HEAD had the epoch, and a copy's since: what that has done comes in a snapshot, not as rows after the old one."""
    device, hello = joining()
    old = part(device, 0, 1, setting(1, "a"))
    device.hear(old)
    assert "device" in device.store.cursors and not device.store.identity.adopted
    device.hear(Reset(hn=hello.hn, head_epoch="e"))
    again = hellos(device)[-1]
    assert again.feeds["device"].epoch is None
    assert again.feeds["device"].nonce != hello.feeds["device"].nonce
    device.hear(old)
    assert "device" not in device.store.cursors


def test_adoption_takes_a_new_nonce_so_that_earlier_resets_are_stale() -> None:
    device, hello = joining()
    device.hear(answer(device, hello))
    epoch = device.store.identity.epoch
    device.hear(Reset(hn=hello.hn, head_epoch="e"))
    assert device.store.identity.epoch == epoch


# What is refused changes nothing


def bent(**changes: Any) -> Any:
    return lambda device: msgspec.structs.replace(
        Ack(epoch=device.store.identity.epoch, up=3, upid=device.session.boot_id, now=NOW_MS), **changes
    )


REFUSED: Final[dict[str, Any]] = {
    "no JSON": lambda device: b"{]",
    "nothing": lambda device: b"",
    "no MessagePack": lambda device: b"\xc1\xff",
    "a list": lambda device: b"[]",
    "deep": lambda device: b'{"t":' + b"[" * 50_000,
    "unknown kind": lambda device: b'{"t":"news","v":1}',
    "later version": bent(v=2),
    "too large": lambda device: b"{" + b" " * MESSAGE_BYTES_MAX,
    "from a device": lambda device: Hello(epoch="e", hn="h", n=1, schema="1", feeds={}),
    "a number below nothing": bent(up=-1),
    "a number beyond all": bent(up=1 << 70),
    "a time beyond all": bent(now=1 << 70),
    "a tail below nothing": bent(tails={"device": (FEED, -1)}),
    "a tail beyond all": bent(tails={"device": (FEED, 1 << 60)}),
    "rows backwards": lambda device: Rows(feed="device", epoch=FEED, a=7, b=6, last=7, rows=[]),
    "rows without end": lambda device: Rows(feed="device", epoch=FEED, a=5, b=1 << 63, last=7, rows=[]),
    "a head beyond all": lambda device: rows(Row(("device#home-1", "config#"), head=HeadMark("e", 1 << 64))),
    "a row without a key": lambda device: rows(Row(("", "config#"))),
    "an unknown feed": lambda device: encode(rows()).replace(b'"device"', b'"weather"'),
    "an unused feed": lambda device: rows(feed="all"),
    "a position beyond all": lambda device: part(device, 0, 1, seq=1 << 64),
    "a part beyond the parts": lambda device: part(device, 2, 2),
    "a part before the parts": lambda device: part(device, -1, 2),
    "parts without end": lambda device: part(device, 0, 1 << 20),
    "another epoch's ack": bent(epoch="other"),
    "another device's reset": lambda device: Reset(hn="other", head_epoch="e"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_counted_and_changes_nothing(name: str) -> None:
    device, _ = sending()
    message: ToDevice | bytes = REFUSED[name](device)
    before, memory, state = device.dump(), memory_of(device.store), device.session.state
    timer, counted = device.session.timer_at_ms, device.probes.total()
    device.hear(message)
    assert device.probes.total() == counted + 1
    assert (device.dump(), memory_of(device.store), device.session.state) == (before, memory, state)
    assert (device.sent(), device.events(), device.session.timer_at_ms) == ([], ["created"], timer)


@given(st.binary(max_size=200))
def test_no_bytes_break_a_session(payload: bytes) -> None:
    device = Device().boot()
    device.connect()
    before = device.dump()
    device.hear(payload)
    assert device.dump() == before


def test_every_message_of_a_long_talk_heard_again_changes_nothing() -> None:
    device = idle()
    session = device.session
    epoch = device.store.identity.epoch
    device.database.create("Setting", {"name": "a", "rev": 1})
    talk: list[ToDevice] = []

    def say(message: ToDevice) -> None:
        talk.append(message)
        device.hear(message)

    say(Ack(epoch=epoch, up=2, upid=session.boot_id, now=device.set_ms, verdicts={}))
    say(rows(row(setting(1, "a")), a=5))
    say(part(device, 0, 1, setting(2, "a"), config(3), seq=8, head=HeadMark(epoch, 2, session.boot_id)))
    say(rows(row(config(4)), a=8))
    device.database.update("Setting", {"name": "a", "rev": 5})
    device.advance(10 * MINUTE_MS)
    before, memory, clock = device.dump(), memory_of(device.store), device.database.clock.now_ms()
    for message in (*talk, *reversed(talk), Reset(hn="before", head_epoch="e")):
        device.hear(message)
    assert (device.dump(), memory_of(device.store), device.database.clock.now_ms()) == (before, memory, clock)


def test_an_old_time_heard_again_does_not_set_the_clock_back() -> None:
    device = idle()
    device.database.create("Status", {"rev": 1})
    (up,) = device.sent()
    assert isinstance(up, Up)
    told = taken(device, up)
    device.hear(told)
    device.advance(24 * 60 * MINUTE_MS)
    for message in (told, msgspec.structs.replace(told, n=7), msgspec.structs.replace(told, now=told.now + 10**9)):
        device.hear(message)
        assert abs(device.database.clock.now_ms() - device.set_ms) < 20_000


def test_the_time_is_learned_from_the_answer_to_a_hello_and_kept() -> None:
    device = Device()
    device.wall_offset_ms = -1_700_000_000_000  # 1970
    device.boot()
    device.connect()
    (hello,) = hellos(device)
    device.hear(msgspec.structs.replace(answer(device, hello), now=device.set_ms))
    assert device.database.clock.now_ms() == device.set_ms
    device.off()
    device.set_ms += 5_000
    assert abs(device.open().clock.now_ms() - device.set_ms) < 10


@pytest.mark.parametrize(("up", "upid"), [(9, "other"), (0, None)], ids=["the database", "the table"])
def test_an_answer_that_shows_what_was_put_back_tells_the_time_as_well(up: int, upid: str | None) -> None:
    """The relay may have a new epoch wait for long, and says no time then."""
    device = idle()
    device.database.create("Status", {"rev": 1})
    (sent,) = device.sent()
    assert isinstance(sent, Up)
    device.hear(taken(device, sent))
    device.off()
    device.wall_offset_ms -= 7_000_000
    device.boot()
    device.connect()
    hello = hellos(device)[-1]
    assert abs(device.database.clock.now_ms() - device.set_ms) > 1_000_000
    epoch = device.store.identity.epoch
    device.hear(answer(device, hello, up, upid))
    assert device.store.identity.epoch != epoch
    assert abs(device.database.clock.now_ms() - device.set_ms) < 10


def test_online_states_are_those_that_receive() -> None:
    assert {state for state, entries in TRANSITIONS.items() if Received in entries} == set(ONLINE)
