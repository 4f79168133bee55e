"""`python -m docs.picture`: runs a scenario and pictures its report, as the README shows it, in docs/report.png.

Needs chromium; asks nothing of the network. Run by `make picture` when the report has a new look.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fleet.run import Request, execute
from fleet.scenario.build import build_plan
from fleet.scenario.effective import effective_yaml
from fleet.scenario.load import load
from reports.html import render

TARGET: Final = Path(__file__).resolve().parent / "report.png"
SCENARIO: Final = "scenarios/outage.yaml"
DEVICES: Final = 200
WIDTH_PX, HEIGHT_PX = 1280, 1474  # down to the first row of plots
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.picture", description="Picture the report of a run.")
    parser.add_argument("--devices", type=int, default=DEVICES, metavar="N", help="default: %(default)s")
    parser.add_argument("--to", type=Path, default=TARGET, metavar="FILE", help="default: docs/report.png")
    options = parser.parse_args(arguments)
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print(f"no browser: none of {', '.join(BROWSERS)} is installed", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="fleet-picture-") as scratch:
        page = Path(scratch) / "report.html"
        page.write_text(report(options.devices), encoding="utf-8")
        picture(browser, page, options.to)
    print(f"wrote {options.to}")
    return 0


def report(devices: int) -> str:
    """The page of a run of so many devices."""
    scenario = load(SCENARIO, devices=devices)
    plan = build_plan(scenario)
    command = f"fleet run {SCENARIO} --seed {plan.seed} --devices {devices}"
    return render(execute(plan, Request(command, effective_yaml(scenario))))


def picture(browser: str, page: Path, target: Path) -> None:
    """What the browser shows of `page`, with a profile of its own that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="fleet-browser-") as profile:
        place = (f"--user-data-dir={profile}", f"--window-size={WIDTH_PX},{HEIGHT_PX}", f"--screenshot={target}")
        subprocess.run([browser, *FLAGS, *place, page.as_uri()], check=True, capture_output=True, timeout=60)


if __name__ == "__main__":
    sys.exit(main())
