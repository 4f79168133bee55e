"""From when on a failure could not be avoided, as SVG: the share of runs that fail, over the moment from which on
everything was drawn anew.

Made by hand like the sequence diagram, whose colours it has. Takes plain values. Called by `fleet shrink --when`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import quoteattr

from reports.sequence import STYLE, clock, text

WIDTH: Final = 760
HEIGHT: Final = 320
SURE: Final = 0.9
_LEFT: Final = 64
_TOP: Final = 66
_RIGHT: Final = 24
_BOTTOM: Final = 52
_TICKS: Final = 5


def picture(
    points: Sequence[tuple[int, float]], moment_us: int | None, end_us: int, title: str, subtitle: str = ""
) -> str:
    """`points`: (moment in µs, share that failed), in order of time; `moment_us`: the one that decided it;
    `end_us`: when the failure was there."""
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    end_us = max(end_us, 1, *(at for at, _ in points))

    def place(at_us: int, share: float) -> tuple[int, int]:
        return _LEFT + at_us * width // end_us, _TOP + round((1.0 - share) * height)

    marks = [place(*point) for point in points]
    line = " ".join(f"{x},{y}" for x, y in marks)
    _, sure = place(0, SURE)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label={quoteattr("Share of runs that fail, over the moment of drawing anew")}>',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        text(16, 24, title, "title", length=80),
        text(16, 44, f"{subtitle}: share of runs that fail all the same, drawn anew from this moment on", "muted"),
    ]
    for share in (0.0, 0.5, 1.0):
        _, y = place(0, share)
        parts.append(f'<line class="lane" x1="{_LEFT}" y1="{y}" x2="{WIDTH - _RIGHT}" y2="{y}"/>')
        parts.append(text(_LEFT - 8, y + 4, f"{share:.0%}", "time"))
    parts.append(f'<line class="off" x1="{_LEFT}" y1="{sure}" x2="{WIDTH - _RIGHT}" y2="{sure}"/>')
    parts.append(text(_LEFT - 8, sure + 4, f"{SURE:.0%}", "time"))
    for tick in range(_TICKS + 1):
        x, _ = place(end_us * tick // _TICKS, 0.0)
        side = "end" if tick == _TICKS else "middle"
        parts.append(text(x, HEIGHT - _BOTTOM + 20, clock(end_us * tick // _TICKS), "muted", anchor=side))
    parts.append(text(_LEFT + width / 2, HEIGHT - 12, "virtual time", "muted", anchor="middle"))
    if moment_us is not None:
        x, _ = place(moment_us, 0.0)
        parts.append(f'<line class="lost" x1="{x}" y1="{_TOP}" x2="{x}" y2="{HEIGHT - _BOTTOM}"/>')
        side = "end" if x > WIDTH // 2 else "start"
        at = x - 8 if x > WIDTH // 2 else x + 8
        parts.append(text(at, HEIGHT - _BOTTOM - 10, f"unavoidable from {clock(moment_us)}", "bad", anchor=side))
    parts.append(f'<polyline class="up" style="fill: none" points="{line}"/>')
    parts += [f'<circle class="up" cx="{x}" cy="{y}" r="3.5"/>' for x, y in marks]
    return "\n".join([*parts, "</svg>\n"])
