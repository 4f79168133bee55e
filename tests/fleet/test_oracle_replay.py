"""A disk that was set back is told once more what came since: old states pass in their turn, and at no other time."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from oracle_history import FEED_EPOCH, History, notice

from agent.protocol.messages import NO_IMAGE, FeedState, Hello, Row, Rows, encode, encode_image
from fleet.oracle import CheckResult
from fleet.oracle.replay import Replay
from fleet.oracle.state import WINDOW_US
from fleet.oracle.stored import public

D: Final = "home-1"
OTHER: Final = "home-2"
N: Final = notice("main")
LATER: Final = notice("main", "later")
LONG_S: Final = WINDOW_US // 1_000_000 + 100

Image = dict[str, Any]


def forgotten(last: str = "delete") -> tuple[History, Image]:
    """Rows 1 and 2 make an item and end its state, row 3 is another item's: all long ago, and everyone has seen them.
    Returns the first state."""
    h = History()
    for device in (D, OTHER):
        h.head(device, 0)
        h.snapshot(device, [], feed="account")
    h.cloud(N)
    old = dict(h.table[N])
    to_all(h)
    h.cloud(N, last)
    to_all(h)
    for _ in range(12):  # of what changes no more, the past is kept
        h.pass_s(LONG_S)
        h.cloud(LATER if last == "delete" else N)
        to_all(h, LATER if last == "delete" else N)
    return h, old


def to_all(h: History, key: Any = N) -> None:
    h.log(key)
    for device in (D, OTHER):
        h.rows(device, key)
        h.see(device, key)


def set_back(h: History, device: str = D) -> None:
    """To the empty place before row 1."""
    h.visible[device] = {}
    h.oracle.device_restored(h.tick(), device, [])
    h.boot(device)


def asks(h: History, seq: int, epoch: str = FEED_EPOCH) -> None:
    message = Hello(epoch="e" * 32, hn="hn", n=1, schema="0.0.1", feeds={"account": FeedState("n1", epoch, seq)})
    h.oracle.wire_up(h.tick(), D, encode(message))


def tells(h: History, a: int, b: int, image: Image | None, *, compact: bool = False) -> None:
    raw = NO_IMAGE if image is None else Raw(encode_image(public(image)))
    message = Rows(feed="account", epoch=FEED_EPOCH, a=a, b=b, last=9, rows=[Row(N, raw)])
    h.oracle.wire_down(h.tick(), D, encode(message, compact=compact))


def judged(h: History) -> dict[str, CheckResult]:
    results = h.results()
    names = ("no-resurrection", "monotone-reads", "nothing-invented", "writes-survive-power-cuts")
    return {name: results[name] for name in names}


def failing(h: History) -> list[str]:
    return [name for name, result in judged(h).items() if result.status == "fail"]


@pytest.mark.parametrize("last", ["delete", "put"])
@pytest.mark.parametrize("compact", [False, True])
def test_a_disk_that_was_set_back_may_show_again_what_it_is_told_again(last: str, compact: bool) -> None:
    h, old = forgotten(last)
    set_back(h)
    asks(h, 0)
    tells(h, 0, 1, old, compact=compact)
    h.see(D, N, old)
    h.boot(D)  # the power may go between the two
    asks(h, 1)
    new = h.table.get(N)
    tells(h, 1, 2 if new is None else h.seqs["account#main"], new, compact=compact)
    h.see(D, N, new)
    assert not failing(h), judged(h)
    assert judged(h)["monotone-reads"].detail.startswith("1 old states")
    h.see(D, N, old)
    expected = "no-resurrection" if last == "delete" else "monotone-reads"
    assert failing(h) == [expected], "once is enough"


@pytest.mark.parametrize("last", ["delete", "put"])
@pytest.mark.parametrize(
    "story",
    [
        "never set back",
        "another device set back",
        "has not asked",
        "in another epoch",
        "stands behind it",
        "stands before a gap",
        "delivered twice",
        "not in the message",
        "another state in the message",
        "another disk since",
        "after a snapshot",
        "beyond what it had before",
    ],
)
def test_nothing_old_shows_again_out_of_its_turn(story: str, last: str) -> None:
    h, old = forgotten(last)
    end = h.seqs["account#main"]
    if story != "never set back":
        set_back(h, OTHER if story == "another device set back" else D)
    at = {"stands behind it": 1, "beyond what it had before": end}.get(story, 0)
    if story != "has not asked":
        asks(h, at, "1" * 29 if story == "in another epoch" else FEED_EPOCH)
    if story == "after a snapshot":
        h.snapshot(D, list(h.table), seq=end, feed="account")
    a = {"stands before a gap": 1, "beyond what it had before": end}.get(story, 0)
    image = {"not in the message": None, "another state in the message": {**old, "rev": old["rev"] + 1000}}
    tells(h, a, a + 1, image.get(story, old))
    if story == "delivered twice":
        tells(h, a, a + 1, old)
    if story == "another disk since":
        set_back(h)
    h.see(D, N, old)
    assert failing(h) in (["no-resurrection"], ["monotone-reads"]), judged(h)


def test_what_was_forgotten_and_shown_again_is_forgotten_again() -> None:
    h, old = forgotten()
    set_back(h)
    asks(h, 0)
    for a, image in ((0, old), (1, None)):
        tells(h, a, a + 1, image)
        h.see(D, N, image)
    h.pass_s(LONG_S)
    h.cloud(LATER)
    assert N not in h.oracle._items


messages = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)).map(lambda p: (p[0], p[0] + p[1])), max_size=12)


@given(start=st.integers(0, 9), until=st.integers(0, 9), delivered=messages)
def test_old_rows_come_in_order_from_where_the_disk_stands(
    start: int, until: int, delivered: list[tuple[int, int]]
) -> None:
    replay = Replay("e", until)
    replay.stands("e", start)
    again = [(a, b) for a, b in delivered if replay.moves("e", a, b)]
    ends = [start, *(b for _, b in again)]
    assert ends == sorted(set(ends)), "each brings it further"
    assert all(a <= at < until for (a, _), at in zip(again, ends, strict=False))
