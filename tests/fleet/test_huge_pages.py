"""Huge pages: asked for where the system gives them, of the process's own memory alone, and only once it has grown."""

from __future__ import annotations

import platform
import subprocess
import sys

from fleet.native import pages
from fleet.native.pages import HUGE_BYTES, HugePages, ranges


def kernel() -> tuple[int, ...]:
    return tuple(int(number) for number in platform.release().split("-")[0].split(".")[:2])


MAPS = """\
55d0c0000000-55d0c0400000 r-xp 00000000 fe:00 1234                       /usr/bin/python3.11
55d0c1ff0000-55d0c2410000 rw-p 00000000 00:00 0                          [heap]
7f1000000000-7f1000800000 rw-p 00000000 00:00 0
7f1000800000-7f1000a00000 ---p 00000000 00:00 0
7f1001000000-7f1001600000 rw-s 00000000 00:01 77                         /dev/zero (deleted)
7f1002000000-7f1002600000 rw-p 00000000 fe:00 99                         /usr/lib/a library.so
7f1003000000-7f1003100000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00800000 rw-p 00000000 00:00 0                          [stack]
"""

GROWN = """
from fleet.native.pages import of_this_process
pages = of_this_process()
kept = [bytes([n % 256]) * 500 for n in range(400_000)]
asked = pages.look()
again = pages.look()
smaps = open("/proc/self/smaps_rollup").read()
print(asked, again, next(line for line in smaps.splitlines() if line.startswith("AnonHugePages")).split()[1])
assert all(kept[n] == bytes([n % 256]) * 500 for n in range(0, 400_000, 1000))
"""


def test_only_the_process_s_own_memory_is_asked_for_in_whole_huge_pages() -> None:
    found = list(ranges(MAPS))
    assert found == [(0x55D0C2000000, 0x55D0C2400000), (0x7F1000000000, 0x7F1000800000)]
    assert all(start % HUGE_BYTES == 0 and end % HUGE_BYTES == 0 for start, end in found)


def test_a_process_that_has_not_grown_asks_for_nothing() -> None:
    asked: list[tuple[int, int, int]] = []

    def madvise(start: int, size: int, advice: int) -> int:
        asked.append((start, size, advice))
        return -1  # as a kernel that does not know the advice: nothing is lost

    looked = HugePages(madvise)
    looked._next_bytes = 1 << 50
    assert looked.look() == 0
    assert asked == []
    looked._next_bytes = 0
    assert looked.look() == sum(size for _, size, _ in asked) // 2 > 0
    assert looked.look() == 0  # it has not grown since


def test_a_system_without_huge_pages_is_left_alone() -> None:
    assert HugePages(None).look() == 0


def test_a_process_that_grows_gets_them_and_keeps_what_it_holds() -> None:
    done = subprocess.run([sys.executable, "-c", GROWN], capture_output=True, text=True, check=True)
    asked, again, huge_kb = (int(word) for word in done.stdout.split())
    assert again == 0
    if pages._allowed():
        assert asked > 100 << 20
        assert huge_kb > 0 or kernel() < (6, 1)  # an older one gives them to what comes, not to what is there
    else:
        assert asked == 0
