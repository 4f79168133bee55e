"""Which Python to make .venv with: of those that will do, the one that runs fastest here.

Builds of one version differ by 10 to 20 %: distributions build theirs with profile-guided optimisation, version
managers seldom do. Called by the Makefile before there is a .venv, as a script: `python3 interpreter.py CANDIDATE...`
prints the command of one, nothing when none will do. Standard library only, and for any Python since 3.8.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

# Run by each candidate: prints nanoseconds of CPU for a fixed piece of work, the best of several goes.
# The work is of the kind that a run consists of: calls, attributes, dictionaries, tuples, small integers.
PROBE = """
import os, sys, sysconfig, time, ensurepip, venv
assert (3, 11) <= sys.version_info[:2] <= (3, 13), "version"
class Entry:
    __slots__ = ("key", "value")
    def __init__(self, key, value):
        self.key = key
        self.value = value
    def take(self, found):
        found[self.key] = (self.value, found.get(self.key))
        return len(found)
def work():
    found = {}
    total = 0
    for number in range(40_000):
        entry = Entry(number & 1023, number)
        total += entry.take(found) ^ number >> 3
    return total
best = None
for _ in range(7):
    before = time.process_time_ns()
    work()
    took = time.process_time_ns() - before
    best = took if best is None else min(best, took)
has_headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
print(best, int(has_headers), os.path.realpath(sys.executable))
"""
ROUNDS = 3  # in turn, so that what else the machine does meets all of them
# Less than this share is noise: then the first candidate, which a person expects, stays.
WORTH = 0.05


def measured(candidate: str) -> tuple[int, bool, str] | None:
    """(nanoseconds, whether the core can be compiled, where it is), or None when it will not do."""
    if shutil.which(candidate) is None:
        return None
    try:
        found = subprocess.run([candidate, "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if found.returncode:
        return None
    took, has_headers, path = found.stdout.decode().split(None, 2)
    return int(took), has_headers == "1", path.strip()


def fastest(candidates: Sequence[str], measure: Callable[[str], tuple[int, bool, str] | None] = measured) -> str | None:
    """The command to use, or None. One that cannot compile the core is taken only when none can."""
    found: dict[
        str, tuple[str, int, bool]
    ] = {}  # where it is -> (command, nanoseconds, whether the core can be compiled)
    for _ in range(ROUNDS):
        for candidate in candidates:
            one = measure(candidate)
            if one is None:
                continue
            took, compiles, path = one
            command, least, _ = found.get(path, (candidate, took, compiles))
            found[path] = command, min(took, least), compiles
    best: tuple[str, int, bool] | None = None
    for command, took, compiles in found.values():
        if best is None or compiles > best[2] or (compiles == best[2] and took < best[1] * (1 - WORTH)):
            best = command, took, compiles
    return None if best is None else best[0]


if __name__ == "__main__":
    print(fastest(sys.argv[1:]) or "")
