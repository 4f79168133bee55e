"""The sequence diagram and the plot of moments: what is in them, in which order, and that no name breaks them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Final

from reports.moment import picture as moments
from reports.sequence import BROKER, ROWS_MAX, TABLE, Arrow, Note, Story, Violation, chosen, picture

SVG: Final = "{http://www.w3.org/2000/svg}"
WRITES: Final = "application: create setting#item-1"
ITEM: Final = "device#home-0001/setting#item-1"
VIOLATION: Final = Violation(9_000_000, "no-gap", "expected row 4, found row 5", (ITEM,), ("home-0001",))


def story() -> Story:
    return Story(
        devices=["home-0001", "home-0002"],
        notes=[
            Note(t_us=1_000_000, lane="home-0001", text=WRITES, keys=[ITEM], tone="write"),
            Note(t_us=1_500_000, lane="home-0002", text="application: create other", keys=["device#home-0002/other"]),
            Note(t_us=8_000_000, lane="home-0001", text="power off", tone="fault"),
            Note(t_us=9_500_000, lane="home-0001", text="after the violation"),
        ],
        arrows=[
            Arrow(sent_us=2_000_000, start="home-0001", to="worker-1", label="up 1", keys=[ITEM], device="home-0001",
                  came_us=2_030_000),
            Arrow(sent_us=2_010_000, start="worker-1", to=TABLE, label="write setting#item-1", keys=[ITEM],
                  came_us=2_020_000),
            Arrow(sent_us=3_000_000, start="worker-1", to="home-0001", label="ack up to 1", device="home-0001",
                  lost="lost: fault"),
            Arrow(sent_us=4_000_000, start="home-0002", to="worker-1", label="hello", device="home-0002",
                  came_us=4_010_000),
        ],
    )  # fmt: skip


def texts(svg: str) -> list[str]:
    return ["".join(one.itertext()) for one in ET.fromstring(svg).iter(f"{SVG}text")]


def test_only_what_has_to_do_with_the_item_and_comes_before_the_violation_is_chosen() -> None:
    part = chosen(story(), VIOLATION)
    assert part.devices == ["home-0001"]
    assert [note.text for note in part.notes] == ["application: create setting#item-1", "power off"]
    assert [arrow.label for arrow in part.arrows] == ["up 1", "write setting#item-1", "ack up to 1"]
    every = chosen(story(), Violation(9_000_000, "quiet", ""))
    assert len(every.arrows) == 4 and every.devices == ["home-0001", "home-0002"]


def test_of_a_long_story_the_last_rows_are_chosen() -> None:
    notes = [Note(t_us=n, lane="home-0001", text=f"note {n}") for n in range(3 * ROWS_MAX)]
    part = chosen(Story(devices=["home-0001"], notes=notes, arrows=[]), VIOLATION)
    assert len(part.notes) == ROWS_MAX and part.notes[-1].text == f"note {3 * ROWS_MAX - 1}"


def test_time_runs_down_the_page_and_a_lost_message_is_marked_where_it_was_sent() -> None:
    svg = picture(chosen(story(), VIOLATION), VIOLATION, "busy: no-gap")
    root = ET.fromstring(svg)
    lanes = [one.text for one in root.iter(f"{SVG}text") if one.get("class") == "name"]
    assert lanes == ["home-0001", BROKER, "worker-1", TABLE]
    places = {"".join(one.itertext()): float(one.get("y", "0")) for one in root.iter(f"{SVG}text")}
    order = [
        "application: create setting#item-1",
        "up 1",
        "write setting#item-1",
        "ack up to 1  ✕ lost: fault",
        "power off",
    ]
    assert sorted(order, key=places.__getitem__) == order
    assert max(places, key=places.__getitem__) == "expected row 4, found row 5"
    assert len([one for one in root.iter() if one.get("class") == "lost"]) == 2, "a line that ends in a cross"
    assert any(text.startswith("⋮") for text in texts(svg)), "a pause is told"


def test_names_do_not_break_the_picture_and_what_is_cut_can_be_read_in_whole() -> None:
    bad = '<script>alert("x")</script>&\u202e'
    one = Story(devices=[bad], notes=[Note(t_us=1, lane=bad, text=bad * 9)], arrows=[])
    for svg in (picture(one, Violation(2, bad, bad, (), ()), bad, bad), moments([(0, 0.5)], 0, 10, bad, bad)):
        root = ET.fromstring(svg)
        assert not list(root.iter(f"{SVG}script")) and "\u202e" not in svg
    assert any("…" in text for text in texts(picture(one, VIOLATION, "t")))
    assert "<title>" in picture(one, VIOLATION, "t")


def test_the_pictures_have_colours_for_light_and_dark() -> None:
    for svg in (picture(story(), VIOLATION, "t"), moments([(0, 0.1), (5, 0.9)], 5, 10, "t")):
        light, dark = (set(re.findall(r"(--\w+):", part)) for part in svg.split("@media", 1))
        assert light == dark and len(light) > 8
        used = set(re.findall(r"var\((--\w+)\)", svg))
        assert used <= light


def test_the_moment_that_decides_is_named_in_the_plot() -> None:
    assert "unavoidable from 0:05.000" in texts(moments([(0, 0.1), (5_000_000, 0.95)], 5_000_000, 10_000_000, "t"))
    assert not any("unavoidable" in text for text in texts(moments([(0, 0.1)], None, 10, "t")))
