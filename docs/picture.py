"""`python -m docs.picture`: runs two scenarios and pictures their reports, as the README and docs/reports.md show them.

Needs chromium; asks nothing of the network. Run by `make picture` when the report has a new look.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fleet.native.start import prepare
from fleet.run import Request, execute
from fleet.scenario.build import build_plan
from fleet.scenario.effective import effective_yaml
from fleet.scenario.load import load
from reports.failure import story_of
from reports.html import render
from reports.rundir import read_trace

FOLDER: Final = Path(__file__).resolve().parent
DEVICES: Final = 200
WIDTH_PX: Final = 1280
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
DARK: Final = "--blink-settings=preferredColorScheme=0"
TRACE: Final = "trace.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Run:
    """`devices`: how many; None: as many as are asked for."""

    scenario: str
    devices: int | None = None
    plant: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """`section`: the anchor at which it begins, the page's top when empty."""

    name: str
    run: Run
    height_px: int
    section: str = ""
    dark: bool = False


PASSED: Final = Run("scenarios/outage.yaml")
FAILED: Final = Run("scenarios/long-offline.yaml", 30, "deleted-items-return")
PICTURES: Final = (
    Picture("report.png", PASSED, 1580),
    Picture("report-time.png", PASSED, 1290, "time"),
    Picture("report-latency.png", PASSED, 655, "latency"),
    Picture("report-faults.png", PASSED, 1200, "faults"),
    Picture("report-failure.png", FAILED, 1140, dark=True),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.picture", description="Picture the reports of two runs.")
    parser.add_argument("--devices", type=int, default=DEVICES, metavar="N", help="of the outage; default: %(default)s")
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="DIR", help="default: docs")
    options = parser.parse_args(arguments)
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print(f"no browser: none of {', '.join(BROWSERS)} is installed", file=sys.stderr)
        return 2
    prepare()
    pages = {run: report(run, options.devices) for run in dict.fromkeys(picture.run for picture in PICTURES)}
    with tempfile.TemporaryDirectory(prefix="fleet-picture-") as scratch:
        for picture in PICTURES:
            page = Path(scratch) / "report.html"
            page.write_text(from_section(pages[picture.run], picture.section), encoding="utf-8")
            taken(browser, page, picture, options.to / picture.name)
            print(f"wrote {options.to / picture.name}")
    return 0


def report(run: Run, devices: int) -> str:
    """The page of a run; of one that fails with its story, as `fleet run` would have it."""
    scenario = load(run.scenario, devices=run.devices or devices)
    plan = build_plan(scenario, plant=run.plant)
    command = f"fleet run {run.scenario} --seed {plan.seed} --devices {run.devices or devices}"
    request = Request(command + (f" --plant {run.plant}" if run.plant else ""), effective_yaml(scenario))
    with tempfile.TemporaryDirectory(prefix="fleet-picture-") as scratch:
        path = Path(scratch) / TRACE if run.plant else None
        result = execute(plan, replace(request, trace_path=path))
        if path is not None:
            result.story = story_of(result.violations, read_trace(Path(scratch)))
    return render(result)


def from_section(page: str, section: str) -> str:
    """The page without what stands before the section: a picture cannot be scrolled."""
    if not section:
        return page
    hidden = f"main > :not(#{section}):not(#{section} ~ *) {{ display: none }} main > h2 {{ margin-top: 0 }}"
    return page.replace("</style>", f"{hidden}</style>", 1)


def taken(browser: str, page: Path, picture: Picture, target: Path) -> None:
    """What the browser shows of `page`, with a profile of its own that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="fleet-browser-") as profile:
        place = [f"--user-data-dir={profile}", f"--window-size={WIDTH_PX},{picture.height_px}"]
        place += [f"--screenshot={target}", *([DARK] if picture.dark else [])]
        subprocess.run([browser, *FLAGS, *place, page.as_uri()], check=True, capture_output=True, timeout=60)


if __name__ == "__main__":
    sys.exit(main())
