"""Pages as a real browser lays them out: what sticks out, which plots are there, what it says on its console.

Used by the tests of the reports. The browser itself is the fixture `browser` of tests/reports/conftest.py.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Final

Browser = Callable[..., tuple[str, str]]  # (page, *flags) -> (standard output, lines of the page's console)
PAPER_PX: Final = 718  # A4 or Letter between their margins

MEASURE = """<!doctype html><body style="margin:0">
<iframe style="width:{width}px;height:3000px;border:0" srcdoc="{page}">
</iframe><p id="out"></p><script>addEventListener("load", () => {{
  const root = document.querySelector("iframe").contentDocument;
  const plots = [...root.querySelectorAll("svg.plot")].map(svg => Math.round(svg.getBoundingClientRect().height));
  const out = [...root.querySelectorAll("main *")].filter(one => one.getBoundingClientRect().right > {width} + 0.5);
  const colour = where => getComputedStyle(root.querySelector(where)).backgroundColor;
  document.title = "w=" + root.documentElement.scrollWidth + " images=" + root.images.length +
    " plots=" + plots.length + " least=" + Math.min(9999, ...plots) +
    " page=" + colour("body") + " card=" + colour(".card") + " out=" + out.map(one => one.tagName).join(",");
}})</script>"""
TITLE = re.compile(r"<title>w=(\d+) images=(\d+) plots=(\d+) least=(\d+) page=(.*) card=(.*) out=(.*)</title>")


def measured(browser: Browser, page: str, width: int, plots: int | None = None, *flags: str, images: int = 0) -> str:
    """The page's background. Nothing is wider than the window, no plot is missing or empty, no planted image became
    one, and the console is silent."""
    out, console = browser(MEASURE.format(width=width, page=html.escape(page)), "--dump-dom", *flags)
    assert console == ""
    found = TITLE.search(out)
    assert found is not None
    scroll_width, seen, count, least, *_ = found.groups()
    assert int(scroll_width) <= width and int(seen) == images
    assert plots is None or int(count) == plots
    assert int(least) > 20
    return found.group(5)


def on_paper(browser: Browser, page: str, *flags: str) -> tuple[str, str]:
    """The parts of the page that stick out of a sheet, and the colour of what is under its text."""
    printed = page.replace("@media print and", "@media").replace("@media print {", "@media all {")
    assert printed != page
    out, _ = browser(MEASURE.format(width=PAPER_PX, page=html.escape(printed)), "--dump-dom", *flags)
    found = TITLE.search(out)
    assert found is not None
    return found.group(7), found.group(6)
