"""What HEAD has passed of a device's operations in its present epoch, kept after the operations are forgotten.

A disk that was put back sends them once more, and an ack of long ago may still reach it: the trigger that tells of it
is right. Operations in a row with one id and one verdict are one run, so that this stays small; runs older than any
message on its way are dropped. A plain value with no judgement; kept by fleet.oracle.table_side for each device.
"""

from __future__ import annotations

from typing import Final

_KEPT_US: Final = 600_000_000

# Operations `first` to `last` of one id: (first, last, id, verdict, when the last one was decided)
Run = tuple[int, int, str, str, int]


class Decided:
    """Of one device in one epoch, in order."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: tuple[Run, ...] = ()

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, t_us: int, u: int, op_id: str, verdict: str) -> None:
        """HEAD has passed operation `u`. `verdict`: "" accepted."""
        runs = self._runs
        if runs and (runs[-1][1] + 1, runs[-1][2], runs[-1][3]) == (u, op_id, verdict):
            self._runs = (*runs[:-1], (runs[-1][0], u, runs[-1][2], runs[-1][3], t_us))
        else:
            self._runs = (*(run for run in runs if run[4] >= t_us - _KEPT_US), (u, u, op_id, verdict, t_us))

    def verdict(self, u: int, op_id: str | None) -> str | None:
        """Of an operation that HEAD has passed: "" or the verdict. None: it has not, or too long ago."""
        return next((run[3] for run in self._runs if run[0] <= u <= run[1] and run[2] == op_id), None)

    def put_back(self, up: int, op_id: str | None) -> None:
        """HEAD is at `up` again, and has not passed what comes after. If it never was there, nothing holds."""
        if self.verdict(up, op_id) is None:
            self._runs = ()
        else:
            self._runs = tuple((run[0], min(run[1], up), *run[2:]) for run in self._runs if run[0] <= up)
