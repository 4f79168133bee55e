"""The process that kills what a harness has started, should the harness itself be killed.

Reads lines `+ GROUP` and `- GROUP`, the ids of process groups, and kills those that are left when its input ends: that
end comes from the kernel, however the harness dies. Started by fleet.live.processes, as a file, with the standard
library alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    groups: dict[int, None] = {}
    for line in sys.stdin:
        sign, _, number = line.partition(" ")
        if sign == "+":
            groups[int(number)] = None
        else:
            groups.pop(int(number), None)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
