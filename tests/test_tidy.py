"""Scans the source for traps: what a seed would not repeat, what a killed worker must not run, what was left behind.

The rules are in tidy_rules.py. Every rule has to catch planted examples, to let the proper form pass, and to hold for
every file that git would commit. What is allowed all the same is listed here with its reason. Called by pytest only.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import tidy_rules as rules
from tidy_rules import Rule, Source

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHON: Final = (".py",)
TEXT: Final = (
    ".py",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".json5",
    ".json",
    ".j2",
    ".html",
    ".css",
    ".js",
    ".mjs",
    ".cfg",
    ".txt",
)
TEXT_NAMES: Final = ("Makefile", "LICENSE", ".gitignore", ".ci/run")


@dataclass(frozen=True)
class Check:
    """A rule, where it holds, and (path -> reason) where it does not."""

    rule: Rule
    folders: tuple[str, ...] = ("",)
    endings: tuple[str, ...] = PYTHON
    allowed: Mapping[str, str] = field(default_factory=dict)


# Where time and chance enter from outside, each with why that changes nothing that a seed repeats.
CLOCKS: Final[dict[str, str]] = {
    "agent/system.py": "the machine's clocks, given to the database that a command or the agent opens",
    "cloud/system.py": "the machine's clock, given to the relay's logic by commands and functions",
    "fleet/commands/capacity.py": "the time in the directory's name",
    "fleet/commands/live.py": "the time in the run directory's name",
    "fleet/commands/progress.py": "how often a line of progress is printed, and the speed that it shows",
    "fleet/commands/run.py": "the time in the run directory's name",
    "fleet/commands/mutants.py": "how long it took",
    "fleet/commands/shrink.py": "when it has looked for long enough, and how long it took",
    "fleet/commands/soak.py": "when the night ends, its time, and its seed where none is given",
    "fleet/commands/sweep.py": "how long the sweep took, and the time in its directory's name",
    "fleet/live/clock.py": "a live run takes place in real time: given to agents, faults and what writes down",
    "fleet/run.py": "wall and CPU time that a run took: in the summary, never in the simulation or its trace",
}
CHANCE: Final[dict[str, str]] = {
    "agent/system.py": "the machine's randomness, given to the database that a command or the agent opens",
    "cloud/system.py": "the machine's randomness, given to the relay's logic by commands and functions",
}
SKIPS: Final[dict[str, str]] = {
    "tests/conftest.py": "needs Node and npm: fails without them where CI is set, and says so elsewhere",
    "tests/contract/conftest.py": "needs mosquitto: fails without it where CI is set, and says so elsewhere",
    "tests/cloud/test_access.py": "needs mosquitto: fails without it where CI is set, and says so elsewhere",
    "tests/fleet/test_live_processes.py": "needs mosquitto: fails without it where CI is set, and says so elsewhere",
    "tests/live/conftest.py": "needs mosquitto: fails without it where CI is set, and says so elsewhere",
    "tests/fleet/test_determinism.py": "needs other Pythons: fails without them where CI is set, and says so elsewhere",
    "tests/reports/conftest.py": "needs a browser: fails without one where CI is set, and says so elsewhere",
}
SLEEPS: Final[dict[str, str]] = {
    "tests/websocket_rig.py": "the clock is the test's own, and jumps: no real time passes",
    "tests/runtime_rig.py": "passes trio's virtual time, which costs none; and looks for a condition, with a limit",
}
HASHES: Final[dict[str, str]] = {
    "fleet/world/reseed.py": "each part of a world once, by identity: what is done to one does not depend on the order",
}
LONG_MODULES: Final[dict[str, str]] = {}

CHECKS: Final[dict[str, Check]] = {
    "clock": Check(rules.clock, rules.ROOMS, allowed=CLOCKS),
    "chance": Check(rules.chance, rules.ROOMS, allowed=CHANCE),
    "unseeded": Check(rules.unseeded, ("tests/", "benchmarks/")),
    "sleeping": Check(rules.sleeping, ("tests/",), allowed=SLEEPS),
    "skipping": Check(rules.skipping, ("tests/",), allowed=SKIPS),
    "hashing": Check(rules.hashing, rules.ROOMS, allowed=HASHES),
    "set order": Check(rules.set_order, rules.ROOMS),
    "summing": Check(rules.summing, ("fleet/world/", "fleet/oracle/")),
    "killed generator": Check(rules.killed_generator, ("cloud/",)),
    "query order": Check(rules.query_order, rules.ROOMS),
    "docstring": Check(rules.docstring),
    "long function": Check(rules.long_function),
    "long module": Check(rules.long_module, rules.ROOMS, allowed=LONG_MODULES),
    "long line": Check(rules.long_line, endings=(".py", ".yaml", ".toml", ".json5")),
    "shadowing": Check(rules.shadowing),
    "banned": Check(rules.banned, endings=TEXT),
}

# rule -> examples that it must catch
PLANTED: Final[dict[str, list[str]]] = {
    "clock": [
        "import time\nstarted = time.time()",
        "import time as t\nclock = t.monotonic",
        "from time import perf_counter_ns as now\nnow()",
        "from datetime import datetime, UTC\ndatetime.now(UTC)",
        "import datetime\ndatetime.datetime.utcnow()",
        "from datetime import date\ndate.today()",
    ],
    "chance": [
        "import random\nrandom.random()",
        "from random import choice\nchoice([1, 2])",
        "import random\nstream = random.Random(1)",
        "import uuid\nuuid.uuid4().hex",
        "import os\nos.urandom(8)",
        "from secrets import token_hex\ntoken_hex(4)",
        "import numpy as np\nnp.random.rand(3)",
        "from ulid import ULID\nstr(ULID())",
    ],
    "unseeded": ["import random\nrandom.Random()", "import random\nrandom.seed(1)", "import uuid\nuuid.uuid4()"],
    "sleeping": ["import time\ntime.sleep(0.1)", "from asyncio import sleep\nwait = sleep"],
    "skipping": [
        "import pytest\n@pytest.mark.skipif(True, reason='x')\ndef test(): ...",
        "import pytest\ndef test():\n    pytest.skip('no broker')",
        "from pytest import importorskip\nimportorskip('trio')",
    ],
    "hashing": ["key = hash('device') % 8", "items.sort(key=lambda item: id(item))"],
    "set order": [
        "for x in {1, 2}: print(x)",
        "names = [n for n in set(rows)]",
        "first = list({a, b})",
        "text = ','.join({str(n) for n in rows})",
        "def f():\n    seen = set()\n    for x in seen: print(x)",
        "def f(seen: set[str]):\n    return [*seen]",
        "def f(a, b):\n    for x in a.keys() & b.keys(): print(x)",
        "def f(seen: frozenset[int]):\n    yield from (x for x in seen | {1})",
        "class A:\n    def f(self, left: set[int]):\n        return {x: 1 for x in left.union((1,))}",
    ],
    "summing": ["total = sum(values)", "total = sum(x / 2 for x in values)", "total = sum(map(float, row), 0.0)"],
    "killed generator": [
        "def f():\n    try:\n        yield 1\n    finally:\n        close()",
        "def f():\n    with lock:\n        if ready:\n            yield 1",
        "def f():\n    try:\n        yield 1\n    except BaseException:\n        pass",
        "def f():\n    try:\n        yield from g()\n    except:\n        pass",
    ],
    "query order": [
        "rows = execute('SELECT a, b FROM item WHERE a = ?')",
        "rows = execute(f'SELECT {column} FROM item')",
        "rows = execute('select count(*), a from item group by a')",
        "rows = execute('SELECT a FROM item LIMIT 10')",
        "rows = execute('SELECT image FROM outbox WHERE pk=? AND sk=?')",
        "rows = execute('WITH old AS (SELECT a FROM item) SELECT a FROM old')",
    ],
    "docstring": ["import os\n", "x = 1\n'not at the head'\n"],
    "long function": ["def f():\n" + "    print(1)\n" * 70],
    "long module": ["x = 1\n" * (rules.MODULE_LINES_MAX + 1)],
    "long line": ["x = '" + "a" * 120 + "'"],
    "shadowing": ["def open(): ...", "class list: ..."],
    "banned": [
        "# TO" + "DO: later",
        "see /ho" + "me/anna/notes",
        "<<<<<<" + "< ours\n",
        "white" + "listed",
        "left\u200bright",
        "line \nnext",
        "from https:/" + "/packages.corp.internal/simple",
    ],
}

# rule -> proper forms that it must leave alone
PROPER: Final[dict[str, list[str]]] = {
    "clock": ["def f(time):\n    return time.time()", "from datetime import datetime\ndatetime.fromtimestamp(0)"],
    "chance": ["from fleet.rng import rng\nrng(1, 'a', 'b').unit()", "random = stream\nrandom.random()"],
    "unseeded": ["import random\nrandom.Random(7).random()"],
    "sleeping": ["clock.sleep(3)"],
    "skipping": ["import pytest\n@pytest.mark.slow\ndef test(): ..."],
    "hashing": ["class A:\n    def __hash__(self): return 1", "row.id(3)"],
    "set order": [
        "for x in sorted({1, 2}): print(x)",
        "found = 3 in {1, 2}",
        "n = len(set(rows))",
        "ok = all(x > 1 for x in {1, 2})",
        "names = {n for n in set(rows)}",
        "for x in {1, 2}: counts[x] = 0  # any order: each key is written once",
        "def f():\n    seen = set()\n\ndef g(seen: list[int]):\n    for x in seen: print(x)",
        "for part in first | second: print(part)",
    ],
    "summing": [
        "n = sum(1 for row in rows)",
        "n = sum(len(row) for row in rows)",
        "n = sum(map(len, rows))",
        "n = sum(row.ok == 1 for row in rows)",
        "n = sum(not row.ok for row in rows)",
        "n = sum(group.count for group in groups)",
        "n = sum(parts, Fraction(0))",
        "n = sum(counts.values())  # ints",
    ],
    "killed generator": [
        "def f():\n    try:\n        yield 1\n    except ValueError:\n        pass",
        "def f():\n    with lock:\n        work()\n    yield 1",
        "def f():\n    with lock:\n        def g():\n            yield 1\n",
    ],
    "query order": [
        "rows = execute('SELECT a FROM item ORDER BY a')",
        "row = execute('SELECT a FROM item WHERE a = ? LIMIT 1')",
        "row = execute('SELECT a FROM item WHERE a = ?')  # one row: primary key",
        "row = execute(\n    'SELECT a FROM item WHERE a = ?'\n).fetchone()  # one row",
        "row = execute('SELECT image FROM item WHERE pk=? AND sk=?')",
        "row = execute('SELECT count(*) FROM item')",
        "row = execute('SELECT coalesce(max(n), 0) FROM outbox')",
        "message = 'Select a scenario from the list'",
    ],
    "docstring": ["'''For what.'''\n", ""],
    "long function": ["def f():\n" + "    print(1)\n" * 69],
    "long module": ["x = 1\n" * rules.MODULE_LINES_MAX],
    "long line": ["x = '" + "a" * 110 + "'"],
    "shadowing": ["class A:\n    def open(self): ..."],
    "banned": ["see docs/protocol.md", "https://json-schema.org/draft-07/schema", "mqtt://127.0.0.1:1883", "a/work/b"],
}


@cache
def committed() -> tuple[Source, ...]:
    """Every text that git holds or would add. A source tree without git is walked instead."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode()
        paths = sorted(path for path in listing.split("\0") if path)
    else:
        paths = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".venv" not in path.parts)
    wanted = [path for path in paths if path.endswith(TEXT) or path in TEXT_NAMES]
    return tuple(Source(path, (ROOT / path).read_text("utf-8")) for path in wanted if (ROOT / path).is_file())


def findings(name: str) -> dict[str, list[str]]:
    """Path -> what breaks the rule there, allowed or not."""
    check = CHECKS[name]
    found: dict[str, list[str]] = {}
    for source in committed():
        read = source.path.endswith(check.endings) or (check.endings is TEXT and source.path in TEXT_NAMES)
        if read and source.path.startswith(check.folders):
            places = sorted(set(check.rule(source)))
            if places:
                found[source.path] = [f"{source.path}:{line}: {message}" for line, message in places]
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_the_source_keeps_the_rule(name: str) -> None:
    broken = [line for path, lines in findings(name).items() if path not in CHECKS[name].allowed for line in lines]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize("name", CHECKS)
def test_what_is_allowed_is_still_needed_and_says_why(name: str) -> None:
    found = findings(name)
    for path, reason in CHECKS[name].allowed.items():
        assert path in found, f"{path} no longer needs its place in the allow list of {name}"
        assert len(reason) > 10


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in PLANTED.items() for text in texts])
def test_a_planted_trap_is_caught(name: str, text: str) -> None:
    assert list(CHECKS[name].rule(Source("planted.py", text)))


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in PROPER.items() for text in texts])
def test_the_proper_form_passes(name: str, text: str) -> None:
    assert not list(CHECKS[name].rule(Source("proper.py", text)))


def test_every_rule_has_both_kinds_of_example() -> None:
    assert set(CHECKS) == set(PLANTED) == set(PROPER)


def test_the_scan_sees_the_source() -> None:
    paths = {source.path for source in committed()}
    assert {"agent/protocol/messages.py", "cloud/table.py", "fleet/rng.py", "pyproject.toml", ".ci/run"} <= paths
