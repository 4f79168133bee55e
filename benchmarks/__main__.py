"""`python -m benchmarks`: measures what Fleet costs, prints tables, and keeps the figures as JSON.

One file for each subject in benchmarks/results/, or all of them on standard output with `--json`. Each of several
subjects is measured in a process of its own: a process that has run a fleet is slower at other things. Never judges a
figure: that is for whoever compares two machines or two commits.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.measure import QUICK, Effort, Result, Row
from fleet.native.start import prepare

# subject -> module; `profile` is measured only when asked for
SUBJECTS: Final = {
    "end-to-end": "end_to_end",
    "clock": "clock",
    "memory": "memory",
    "database": "database",
    "device": "device",
    "agent": "agent",
    "messages": "messages",
    "schema": "schema",
    "relay": "relay",
    "tracing": "tracing",
    "latency": "latency",
    "report": "report",
}
PROFILE: Final = {"profile": "sampling"}
SIMULATED: Final = frozenset({"end-to-end", "memory", "tracing", "profile"})  # as `fleet run` does, with its SQLite
WIDTH: Final = 120  # where there is no terminal
RESULTS: Final = Path(__file__).resolve().parent / "results"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures what Fleet costs on this machine."
    )
    made.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"any of {', '.join(SUBJECTS)}; default: all")
    made.add_argument("--profile", action="store_true", help="where the time of a run goes, by room and by module")
    made.add_argument("--quick", action="store_true", help="small and rough: seconds instead of minutes")
    made.add_argument("--json", action="store_true", help="print JSON, write no files")
    made.add_argument(
        "--out", type=Path, default=RESULTS, metavar="DIR", help="where the JSON goes; default: %(default)s"
    )
    return made


def surroundings(effort: Effort) -> dict[str, Any]:
    """What a figure depends on besides the code."""
    import sqlite3

    return {
        "effort": asdict(effort),
        "fleet": version("fleet-sync"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "msgspec": version("msgspec"),
        "simpy": version("simpy"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
    }


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(result: Result) -> Table:
    made = Table(title=f"{result.subject}: {result.question}", title_justify="left", title_style="bold")
    made.add_column("what")
    made.add_column("median", justify="right")
    made.add_column("unit")
    made.add_column("repeats", justify="right")
    made.add_column("spread", justify="right")
    made.add_column("note", style="dim")
    for row in result.rows:
        spread = f"{row.spread:.0%}" if row.spread else ""
        made.add_row(row.name, shown(row.value), row.unit, str(row.repeats), spread, row.note)
    return made


def chosen(arguments: argparse.Namespace) -> dict[str, str]:
    known = SUBJECTS | PROFILE
    unknown = [name for name in arguments.subjects if name not in known]
    if unknown:
        parser().error(f"no subject {', '.join(unknown)}; there are {', '.join(known)}")
    names = arguments.subjects or ([] if arguments.profile else list(SUBJECTS))
    if arguments.profile and "profile" not in names:
        names = [*names, "profile"]
    return {name: known[name] for name in names}


def measured(name: str, module: str, effort: Effort, alone: bool) -> Result:
    if alone:
        if name in SIMULATED:
            prepare()
        result: Result = importlib.import_module(f"benchmarks.{module}").run(effort)
        return result
    command = [sys.executable, "-m", "benchmarks", name, "--json", *(["--quick"] if effort.small else [])]
    done = subprocess.run(command, cwd=RESULTS.parent.parent, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} could not be measured:\n{done.stderr}")
    (document,) = json.loads(done.stdout)
    return Result(document["subject"], document["question"], [Row(**row) for row in document["rows"]])


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    effort = QUICK if arguments.quick else Effort()
    console = Console(stderr=arguments.json)
    if not console.is_terminal:
        console = Console(stderr=arguments.json, width=WIDTH)
    subjects = chosen(arguments)
    documents = []
    for name, module in subjects.items():
        console.print(f"measuring {name} ...", style="dim")
        result = measured(name, module, effort, alone=len(subjects) == 1)
        console.print(table(result))
        document = {**asdict(result), "surroundings": surroundings(effort)}
        documents.append(document)
        if not arguments.json:
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(documents, indent=2))
    else:
        console.print(f"figures in {arguments.out}", style="dim")
    return 0


if __name__ == "__main__":
    sys.exit(main())
