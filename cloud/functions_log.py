"""What a function says: a JSON object a line, and its counters in CloudWatch's embedded metric format.

The format is that of https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html:
CloudWatch makes metrics of such lines, so that nothing has to be sent. Called by cloud.functions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Literal

NAMESPACE: Final = "Fleet"
_METRICS_MAX: Final = 100  # of one line
_TEXT_CHARS_MAX: Final = 2_000

Level = Literal["info", "warning", "error"]


class Log:
    """`write` takes one line. `about`: what every line carries; the metrics' dimension `table` is among it."""

    def __init__(self, write: Callable[[str], None], clock_ms: Callable[[], int], about: dict[str, str]) -> None:
        self._write = write
        self._clock_ms = clock_ms
        self._about = about

    def say(self, level: Level, message: str, **fields: Any) -> None:
        known = {name: _short(value) for name, value in fields.items()}
        self._line({"at": self._clock_ms(), "level": level, "message": message, **self._about, **known})

    def count(self, counters: Counter[str], **fields: Any) -> None:
        """Writes what was counted, and begins anew."""
        counted = sorted((name, number) for name, number in counters.items() if number)
        counters.clear()
        for start in range(0, len(counted), _METRICS_MAX):
            part = counted[start : start + _METRICS_MAX]
            metrics = [{"Name": name, "Unit": "Count"} for name, _ in part]
            about = {"Namespace": NAMESPACE, "Dimensions": [["table"]], "Metrics": metrics}
            meta = {"Timestamp": self._clock_ms(), "CloudWatchMetrics": [about]}
            self._line({"_aws": meta, **self._about, **fields, **dict(part)})

    def _line(self, values: dict[str, Any]) -> None:
        self._write(json.dumps(values, default=str))


def _short(value: Any) -> Any:
    return value[:_TEXT_CHARS_MAX] if isinstance(value, str) else value
