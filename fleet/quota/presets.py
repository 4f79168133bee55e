"""Quota presets: the numbers behind `cloud: {preset: aws-iot-default}`, each with where it comes from.

Values only; no draws, no I/O. Used by the scenario's models (`cloud:`) and by the documentation.
Marks: (v) read in the vendor's own text · (2) in a second-hand copy: check it before you rely on it as a promise · (a)
an assumption. 0: no limit. Rates are a second; a token bucket holds one second of its rate (a).
"""

from __future__ import annotations

from typing import Any, Final

from reports.cost import HUB_UNIT_MESSAGES

Values = dict[str, tuple[Any, str]]

KB: Final = 1024

# What all presets of AWS have in common.
_AWS: Final[Values] = {
    "client_connects_per_s": (1, "v"),
    "connections": (500_000, "v"),
    "refusal": ("silent", "v"),  # throttled connects and publishes can be silent
    "publishes_in_per_s": (20_000, "2"),
    "publishes_out_per_s": (20_000, "2"),
    "client_publishes_per_s": (100, "2"),  # the excess is discarded
    "over_publishes": ("drop", "2"),
    "client_bytes_per_s": (512 * KB, "2"),  # the excess is delayed
    "client_in_flight": (100, "2"),  # unacknowledged QoS 1, each way
    "payload_bytes": (128 * KB, "v"),
    "message_bytes": (5 * KB, "v"),  # metering
    "partition_writes_per_s": (1_000, "v"),
    "partition_reads_per_s": (3_000, "v"),
    "table_writes_per_s": (4_000, "v"),  # of a new on-demand table
    "table_reads_per_s": (12_000, "v"),
    "table_doubling_us": (30 * 60_000_000, "v"),  # twice the previous peak, within this time
    "table_most_per_s": (40_000, "v"),  # account and table, writes and reads each
    "stream_reads_per_s": (4, "a"),  # of a shard: Lambda's polls
    "stream_read_bytes": (1024 * KB, "v"),  # of one read of a shard
    "functions": (1_000, "v"),  # at once
    "functions_per_10s": (1_000, "v"),  # more at once
}


def _azure(connects: int, least: int, daily: int) -> Values:
    """Of one unit. `connects` new connections a second and unit, at least `least`; the same for sends."""
    return {
        "connects_per_s": (connects, "v"),
        "connects_least_per_s": (least, "v"),
        "refusal": ("code", "v"),  # 429
        "publishes_in_per_s": (connects, "v"),
        "over_publishes": ("drop", "a"),
        "payload_bytes": (256 * KB, "a"),
        "message_bytes": (4 * KB, "v"),
        "messages_per_day": (daily, "v"),
    }


PRESETS: Final[dict[str, Values]] = {
    "aws-iot-large": {**_AWS, "connects_per_s": (3_000, "2")},  # a large region, 2026
    "aws-iot-default": {**_AWS, "connects_per_s": (500, "v")},  # before 2024; many plans still assume it
    "aws-iot-small": {
        **_AWS,
        "connects_per_s": (100, "2"),
        "publishes_in_per_s": (2_000, "2"),
        "publishes_out_per_s": (2_000, "2"),
    },
    "azure-iot-hub-s1": _azure(12, 100, HUB_UNIT_MESSAGES["azure-iot-hub-s1"]),
    "azure-iot-hub-s2": _azure(120, 0, HUB_UNIT_MESSAGES["azure-iot-hub-s2"]),
    "azure-iot-hub-s3": _azure(6_000, 0, HUB_UNIT_MESSAGES["azure-iot-hub-s3"]),
}
PER_UNIT: Final = ("connects_per_s", "publishes_in_per_s", "messages_per_day")  # of Azure's presets, times `units`
