"""A sequence diagram as SVG: who sent what to whom, what was lost, what happened meanwhile; time runs down the page.

Made by hand, since no library of plots draws one: a lane for each device, the broker, each relay worker and the table;
one row for each thing that happens, in order of time, however long there is between two. Light and dark by the reader's
own setting. Takes plain values; every name is made harmless here. Called by `fleet shrink`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Final
from xml.sax.saxutils import escape, quoteattr

import msgspec

from reports.text import printable

BROKER: Final = "broker"
TABLE: Final = "table"

ROWS_MAX: Final = 60
DEVICES_MAX: Final = 4
WORKERS_MAX: Final = 4
_ROW: Final = 27  # pixels, as all below
_SLOPE: Final = 13  # of a message that nothing happens during
_LEFT: Final = 96
_LANE: Final = 250
_CHAR: Final = 6.1  # of a letter of 11 pixels, on average
_PAUSE_US: Final = 2_000_000  # a longer one is told
_HEAD: Final = 92

STYLE: Final = """
svg { --page: #ffffff; --ink: #1d2733; --muted: #66717f; --grid: #cfd6de; --sunk: #f1f3f6;
      --a: #2468d8; --c: #12876f; --d: #8a4fd3; --f1: #d0343c; --f2: #9a5b00; }
@media (prefers-color-scheme: dark) {
  svg { --page: #14181d; --ink: #e6ebf1; --muted: #9aa6b4; --grid: #3b4652; --sunk: #20272f;
        --a: #7aa7f7; --c: #5cc4a8; --d: #c19bf0; --f1: #ff7a7f; --f2: #f2bd66; } }
svg { font: 11px system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
text { fill: var(--ink); paint-order: stroke; stroke: var(--page); stroke-width: 3px; stroke-linejoin: round; }
.page { fill: var(--page); } .muted { fill: var(--muted); } .title { font-size: 15px; font-weight: 600; }
.lane { stroke: var(--grid); stroke-width: 1.5; } .off { stroke: var(--f2); stroke-dasharray: 2 5; }
.head { fill: var(--sunk); stroke: var(--grid); } .name { font-weight: 600; text-anchor: middle; }
.time { fill: var(--muted); text-anchor: end; font-variant-numeric: tabular-nums; }
.up { stroke: var(--a); fill: var(--a); } .down { stroke: var(--c); fill: var(--c); }
.ask { stroke: var(--d); fill: var(--d); } .lost { stroke: var(--f1); fill: var(--f1); }
line, path { stroke-width: 1.4; } .bad { fill: var(--f1); } .fault { fill: var(--f2); } .write { font-weight: 600; }
.dot { fill: var(--ink); stroke: none; } .box { fill: var(--sunk); stroke: var(--f1); stroke-width: 1.5; }
"""


class Note(msgspec.Struct, kw_only=True):
    """Something that happens at one place. `lane` "": everywhere; `tone`: "", write, fault; `keys`: of its items."""

    t_us: int
    lane: str
    text: str
    keys: list[str] = []
    tone: str = ""


class Arrow(msgspec.Struct, kw_only=True):
    """A message, or a request. `came_us` None: it never came, `lost` says why. `device`: whose it is."""

    sent_us: int
    start: str
    to: str
    label: str
    keys: list[str] = []
    device: str = ""
    came_us: int | None = None
    lost: str = ""


class Story(msgspec.Struct, kw_only=True):
    """All that was seen in a run."""

    devices: list[str]
    notes: list[Note]
    arrows: list[Arrow]


@dataclass(frozen=True, slots=True)
class Violation:
    """What the picture leads to: of `items` (there may be none), as somebody is told in `text`."""

    t_us: int
    check: str
    text: str
    items: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


@dataclass(slots=True)
class _Row:
    """One thing at its time; of a message also when it comes, where something else happens before."""

    t_us: int
    what: Note | Arrow
    number: int = -1  # of a message
    comes: bool = False


# ---------------------------------------------------------------- what matters


def chosen(story: Story, violation: Violation) -> Story:
    """The last things before the violation that have to do with its items: their writes, the messages that tell of
    them, the acknowledgements between, what happened to the devices and to the workers. None: of its devices."""
    devices = [name for name in story.devices if not violation.devices or name in violation.devices][:DEVICES_MAX]
    items = frozenset(violation.items)
    end_us = violation.t_us
    arrows = [one for one in story.arrows if one.sent_us <= end_us and _matters(one, items, devices)]
    notes = [one for one in story.notes if one.t_us <= end_us and _tells(one, items, devices)]
    first_us = 0
    times = sorted([one.t_us for one in notes] + [one.sent_us for one in arrows])
    if len(times) > ROWS_MAX:
        first_us = times[-ROWS_MAX]
    return Story(
        devices=devices,
        notes=[one for one in notes if one.t_us >= first_us],
        arrows=[one for one in arrows if one.sent_us >= first_us],
    )


def _matters(arrow: Arrow, items: frozenset[str], devices: Sequence[str]) -> bool:
    if arrow.keys:
        return not items or not items.isdisjoint(arrow.keys)
    return not arrow.device or arrow.device in devices


def _tells(note: Note, items: frozenset[str], devices: Sequence[str]) -> bool:
    if note.keys:
        return not items or not items.isdisjoint(note.keys)
    return not note.lane or note.lane in devices or note.lane.startswith("worker") or note.tone == "fault"


# ---------------------------------------------------------------- the picture


def picture(story: Story, violation: Violation, title: str, subtitle: str = "") -> str:
    """The whole story as it is given; `chosen` makes it short enough."""
    workers = sorted({name for one in story.arrows for name in (one.start, one.to) if name.startswith("worker")})
    told = {note.lane for note in story.notes if note.lane.startswith("worker")}
    lanes = [*story.devices, BROKER, *(workers or sorted(told))[:WORKERS_MAX], TABLE]
    rows = _rows(story, violation.t_us)
    drawing = _Drawing(lanes)
    body = list(drawing.rows(rows))
    body += drawing.violation(violation)
    body.sort(key=lambda part: part.startswith("<text"))  # words are over lines
    height = drawing.y + 18
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width} {height}" width="{drawing.width}" '
        f'height="{height}" role="img" aria-label={quoteattr(_clean(title, 200))}>',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{drawing.width}" height="{height}"/>',
        text(16, 26, title, "title"),
        text(16, 45, subtitle, "muted", length=int((drawing.width - 30) / _CHAR)),
        *drawing.lanes(),
        *body,
        "</svg>\n",
    ]
    return "\n".join(parts)


def _rows(story: Story, end_us: int) -> list[_Row]:
    rows = [_Row(note.t_us, note) for note in story.notes]
    rows += [_Row(arrow.sent_us, arrow, number) for number, arrow in enumerate(story.arrows)]
    rows.sort(key=lambda row: row.t_us)
    times = [row.t_us for row in rows]
    for number, arrow in enumerate(story.arrows):
        if arrow.came_us is not None and any(arrow.sent_us < t <= arrow.came_us for t in times):
            rows.append(_Row(min(arrow.came_us, end_us), arrow, number, comes=True))
    # What comes is there before what follows from it.
    rows.sort(key=lambda row: (row.t_us, not row.comes))
    return rows


class _Drawing:
    """Goes down the page; `y` is where it is."""

    def __init__(self, lanes: Sequence[str]) -> None:
        self._lanes = lanes
        self._x = {name: _LEFT + _LANE // 2 + index * _LANE for index, name in enumerate(lanes)}
        self.width = _LEFT + len(lanes) * _LANE
        self.y = _HEAD + 22
        self._off: dict[str, int] = {}  # device -> since where it is without power
        self._spans: list[tuple[str, int, int]] = []
        self._started: dict[int, int] = {}

    def lanes(self) -> Iterator[str]:
        """Called last, put first: the lanes are behind all else."""
        bottom = self.y - 70
        for name, x in self._x.items():
            yield f'<line class="lane" x1="{x}" y1="{_HEAD}" x2="{x}" y2="{bottom}"/>'
            shown = _clean(name, 26)
            half = max(46, int(len(shown) * 3.6) + 12)
            yield f'<rect class="head" x="{x - half}" y="{_HEAD - 26}" width="{2 * half}" height="24" rx="5"/>'
            yield text(x, _HEAD - 10, name, "name", length=26)
        for name, since in self._off.items():
            self._spans.append((name, since, bottom))
        for name, since, until in self._spans:
            x = self._x[name]
            yield f'<line class="page" style="stroke: var(--page)" x1="{x}" y1="{since}" x2="{x}" y2="{until}"/>'
            yield f'<line class="off" x1="{x}" y1="{since}" x2="{x}" y2="{until}"/>'

    def rows(self, rows: Sequence[_Row]) -> Iterator[str]:
        both = {row.number for row in rows if row.comes}
        before: int | None = None
        for row in rows:
            if before is not None and row.t_us - before >= _PAUSE_US:
                yield text(_LEFT - 10, self.y - 4, f"⋮ {_seconds(row.t_us - before)}", "time")
                self.y += 16
            if before is None or row.t_us != before:
                yield text(_LEFT - 10, self.y + 4, clock(row.t_us), "time")
            before = row.t_us
            what = row.what
            if isinstance(what, Note):
                yield from self._note(what)
            elif row.comes:
                yield from self._arrow(what, self._started[row.number], self.y)
            elif row.number in both:
                self._started[row.number] = self.y
                yield from self._label(what, self.y)
            else:
                yield from self._label(what, self.y)
                yield from self._arrow(what, self.y, self.y + _SLOPE)
            self.y += _ROW

    def _note(self, note: Note) -> Iterator[str]:
        x = self._x.get(note.lane)
        if x is None:
            yield text(_LEFT + 4, self.y + 4, note.text, "fault", length=90)
            return
        if note.text.startswith(("power off", "stopped", "killed")):
            self._off.setdefault(note.lane, self.y)
        elif note.lane in self._off and note.text.startswith(("power on", "started")):
            self._spans.append((note.lane, self._off.pop(note.lane), self.y))
        yield f'<circle class="dot" cx="{x}" cy="{self.y}" r="3.2"/>'
        is_last = note.lane == self._lanes[-1]
        room = int((_LANE * (0.5 if is_last else 1.4) - 14) / _CHAR)
        if is_last and len(note.text) > room:  # at the edge it stands on the other side
            yield text(x - 9, self.y + 4, note.text, f"{note.tone}", length=int(room * 2.6), anchor="end")
        else:
            yield text(x + 9, self.y + 4, note.text, note.tone, length=room)

    def _ends(self, arrow: Arrow) -> tuple[int, int]:
        middle = self._x[BROKER]
        start, to = self._x.get(arrow.start, middle), self._x.get(arrow.to, middle)
        if arrow.lost and arrow.start not in self._lanes[: len(self._lanes)]:
            start = middle
        return start, to

    def _label(self, arrow: Arrow, y: int) -> Iterator[str]:
        start, to = self._ends(arrow)
        words = arrow.label + (f"  ✕ {arrow.lost}" if arrow.lost else "")
        room = int((max(abs(to - start), _LANE) * (0.9 if not arrow.lost else 1.3) - 10) / _CHAR)
        tone = "bad" if arrow.lost else ""
        if to >= start:
            yield text(start + 9, y - 4, words, tone, length=room)
        else:
            yield text(start - 9, y - 4, words, tone, length=room, anchor="end")

    def _arrow(self, arrow: Arrow, top: int, bottom: int) -> Iterator[str]:
        start, to = self._ends(arrow)
        if arrow.lost:
            yield from self._lost(start, to if to != start else start + _LANE, top)
            return
        kind = "ask" if TABLE in (arrow.to, arrow.start) else "up" if to > start else "down"
        side = 1 if to > start else -1
        yield f'<line class="{kind}" x1="{start}" y1="{top}" x2="{to - 5 * side}" y2="{bottom}"/>'
        yield f'<path class="{kind}" d="M{to} {bottom} l{-9 * side} -4 l0 8 z"/>'

    def _lost(self, start: int, to: int, y: int) -> Iterator[str]:
        end = start + (to - start) * 45 // 100
        yield f'<line class="lost" stroke-dasharray="5 3" x1="{start}" y1="{y}" x2="{end}" y2="{y + _SLOPE // 2}"/>'
        x, y = end, y + _SLOPE // 2
        yield f'<path class="lost" d="M{x - 5} {y - 5} l10 10 m0 -10 l-10 10"/>'

    def violation(self, violation: Violation) -> Iterator[str]:
        lines = wrap(_clean(f"{violation.text}", 600), max(30, int((self.width - 60) / _CHAR)))[:5]
        self.y += 4
        top, height = self.y, 30 + 16 * len(lines)
        yield text(_LEFT - 10, top + 20, clock(violation.t_us), "time")
        yield f'<rect class="box" x="{_LEFT}" y="{top}" width="{self.width - _LEFT - 16}" height="{height}" rx="6"/>'
        yield text(_LEFT + 12, top + 20, f"✕ {violation.check}", "bad write")
        for index, line in enumerate(lines):
            yield text(_LEFT + 12, top + 38 + 16 * index, line, "", length=600)
        self.y += height


def _clean(text: str, length_max: int) -> str:
    return printable(text, length_max)


def text(x: float, y: float, words: str, style: str, *, length: int = 120, anchor: str = "") -> str:
    """A line of text, harmless whatever it says. `length`: in letters. What is cut can be read in whole where the
    pointer rests."""
    shown = _clean(words, max(8, length))
    whole = _clean(words, 600)
    tip = f"<title>{escape(whole)}</title>" if shown != whole else ""
    side = f' text-anchor="{anchor}"' if anchor else ""
    named = f' class="{style}"' if style else ""
    return f'<text x="{x:g}" y="{y:g}"{named}{side}>{tip}{escape(shown)}</text>'


def clock(t_us: int) -> str:
    """`1:02:03.456`, from the run's start."""
    ms = t_us // 1000
    hours, minutes, seconds = ms // 3_600_000, ms // 60_000 % 60, ms % 60_000 / 1000
    return f"{hours}:{minutes:02d}:{seconds:06.3f}" if hours else f"{minutes}:{seconds:06.3f}"


def _seconds(us: int) -> str:
    seconds = us / 1e6
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
