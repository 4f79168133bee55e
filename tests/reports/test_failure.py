"""The story of the first bad event, from the lines of a trace; in words that any text leaves harmless."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.trace import line_of
from reports import failure
from reports.failure import first_bad, story_of
from reports.result import RunResult, StoryEvent, Violation
from reports.story_text import failure_of, moment, words_of
from reports.summary import Summary

Sample = Callable[..., RunResult]
BAD = Violation(check="c", t_s=100.0, device="van-1", item="account#acme/notice#9", expected="rev 2", found="rev 1")


def lines(*events: tuple[float, str, str, bytes | str]) -> list[bytes]:
    return [
        line_of((round(t_s * 1e6), kind, entity, detail)).rstrip("\n").encode() for t_s, kind, entity, detail in events
    ]


def test_the_first_bad_event_is_the_earliest() -> None:
    late, early = (Violation(check=name, t_s=t_s) for name, t_s in (("late", 9.0), ("early", 2.0)))
    assert first_bad([late, early]) is early and first_bad([]) is None


def test_a_story_is_of_the_item_and_of_its_device_alone() -> None:
    rows = b'{"t":"rows","rows":[{"key":["account#acme","notice#9"],"image":{"rev":2,"text":"secret"}}]}'
    found = story_of(
        [BAD],
        lines(
            (1, "boot", "van-1", ""),
            (2, "commit", "account#acme", "notice#9 1"),
            (2, "commit", "account#other", "notice#9 1"),  # another account's item of that name
            (3, "deliver", "van-2", rows),  # another device hears of the item
            (3, "deliver", "van-1", rows),
            (4, "fault", "tunnel", "van-1"),
            (5, "commit", "device#van-11", "status# 5"),
            (6, "write", "van-1", "status# 7"),
            (101, "disconnect", "van-1", "keep-alive"),
        ),
    )
    assert [(event.t_us // 10**6, event.kind) for event in found] == [
        (1, "boot"), (2, "commit"), (3, "deliver"), (4, "fault"), (6, "write"), (101, "disconnect"),
    ]  # fmt: skip
    assert "secret" not in found[2].detail and '"image":{"rev":2}' in found[2].detail


def test_a_story_is_bounded_and_keeps_what_is_nearest() -> None:
    events = [(float(n) / 10, "write", "van-1", f"status# {n}") for n in range(2000)]
    found = story_of([BAD], lines(*events))
    before = [event for event in found if event.t_us <= 100_000_000]
    assert len(before) == failure.OF_DEVICE_MAX and before[-1].detail == "status# 1000"
    assert len(found) - len(before) == failure.AFTER_MAX
    assert story_of([Violation(check="c", t_s=1.0)], lines(*events)) == []


def test_a_message_in_messagepack_is_read() -> None:
    packed = msgspec.msgpack.encode({"t": "ack", "up": 300, "epoch": "é", "now": 1 << 40})
    broken = msgspec.msgpack.encode({"t": "ack", "epoch": "\\x41"})  # reads like one of the trace's own escapes
    read, kept = story_of([BAD], lines((1, "deliver", "van-1", packed), (2, "deliver", "van-1", broken)))
    assert json.loads(read.detail) == {"t": "ack", "up": 300, "epoch": "é", "now": 1 << 40}
    assert "epoch" in kept.detail


def test_a_device_with_quotes_in_its_name_is_found() -> None:
    name = 'van "1" é\\'
    bad = Violation(check="c", t_s=9.0, device=name)
    (event,) = story_of([bad], lines((1, "boot", name, ""), (2, "boot", "van", "")))
    assert event.entity == name


@pytest.mark.parametrize(
    ("kind", "detail", "said"),
    [
        ("write", "status# 7", ("application", "writes", "status# rev 7")),
        ("commit", "status# None", ("table", "commits", "status# removed")),
        ("boot", "", ("device", "boots", "")),
        ("deliver", '{"t":"ack","up":3,"epoch":"x","v":1}', ("cloud → device", "ack", "up 3")),
        (
            "to-cloud",
            '{"t":"hello","feeds":{"device":{"nonce":"a","seq":4},"account":{"nonce":"b"}}}',
            ("device → cloud", "hello", "device at 4, account from the start"),
        ),
        (
            "deliver",
            '{"t":"rows","a":1,"rows":[{"key":["p","s1"],"image":{}},{"key":["p","s2"]}]}',
            ("cloud → device", "rows", "a 1 · 2 rows: s1, s2 removed"),
        ),
        ("deliver", '{"t":"rows","a":', ("cloud → device", "rows", '{"t":"rows","a":')),
        ("unheard-of", "x", ("run", "unheard-of", "x")),
    ],
)
def test_events_in_words(kind: str, detail: str, said: tuple[str, str, str]) -> None:
    assert words_of(StoryEvent(t_us=1, kind=kind, entity="van-1", detail=detail)) == said


@given(st.sampled_from(["write", "commit", "deliver", "to-cloud", "fault", "drop"]), st.text(max_size=80))
def test_any_text_can_be_said(kind: str, text: str) -> None:
    words = words_of(StoryEvent(t_us=1, kind=kind, entity=text, detail=text))
    assert "\x1b" not in "".join(words) and "\n" not in "".join(words)


@given(st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=9), st.lists, max_leaves=9))
def test_any_message_can_be_said(value: object) -> None:
    for name in ("ops", "rows", "feeds", "up", "t"):
        words_of(StoryEvent(t_us=1, kind="deliver", entity="d", detail=json.dumps({"t": "rows", name: value})))


def test_the_bad_event_stands_where_it_happened(sample: Sample) -> None:
    found = failure_of(sample(failing=True))
    assert found is not None and found.bad.check == "no-acked-write-lost" and found.at == "0:25:07.000"
    marks = [line.mark for line in found.lines]
    assert marks == ["", "item", "", "item", "item", "item", "fail", ""] and found.others == []
    assert found.lines[0].gap == "−17 s"
    assert failure_of(RunResult(summary=Summary(scenario="s", seed=1, verdict="fail"))) is None


def test_moments_have_milliseconds() -> None:
    assert [moment(us) for us in (0, 61_001_999, 360_000_000_000)] == ["0:00:00.000", "0:01:01.001", "100:00:00.000"]
