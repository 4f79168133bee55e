"""The relay's numbers, with the protocol's defaults. Pure values; made by whoever starts a relay.

`expiry_margin_ms` must exceed what may pass between reading a feed's last row and writing the next one: a worker's life
and the difference of two clocks. Otherwise a row could follow one that the service has already swept.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.protocol.messages import BATCH_BYTES_MAX, MESSAGE_BYTES_MAX
from agent.protocol.topics import PREFIX

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """Raises ValueError when the numbers contradict each other."""

    topic_prefix: str = PREFIX
    ttl_attribute: str = "ttl"  # the table has one; LOG rows share it with the schema
    retention_ms: int = 7 * 24 * _HOUR_MS  # R: how long a feed's row lives
    expiry_margin_ms: int = 30 * _MINUTE_MS  # a last row this close to its end is as good as gone
    record_life_ms: int = 24 * _HOUR_MS  # of a stream record
    worker_life_ms: int = 15 * _MINUTE_MS
    future_ms: int = 60_000  # stamps further ahead are cut
    transaction_retries: int = 8
    condition_attributes_max: int = 100  # beyond: only `updated` and `_op` are compared (the service's limits)
    catchup_rows: int = 1000  # read for one message
    catchup_bytes: int = BATCH_BYTES_MAX
    snapshot_page: int = 200  # items of one query
    snapshot_part_bytes: int = BATCH_BYTES_MAX
    hello_window_ms: int = _MINUTE_MS
    hello_per_window: int = 120  # of one device, at one worker
    up_per_window: int = 6000  # the same of batches
    overload_retry_ms: int = 5_000  # a device whose message found no room is asked to wait so long, at least
    epochs_per_hour: int = 5  # replaced by one device; one more, and two copies of it live
    quarantine_retry_ms: int = 15 * _MINUTE_MS
    digest_per_window: int = 4  # of one device, at one worker, in `hello_window_ms`; more get no answer
    digests_per_window: int = 300  # of all devices, at one worker: each reads all items of a device
    incarnation_ms: int = _MINUTE_MS  # so long a relay goes by what the table's marker said, unless something differs

    @property
    def settled_ms(self) -> int:
        """Since a commit: after this time its record has made its row, or never will."""
        return self.record_life_ms + self.worker_life_ms

    def __post_init__(self) -> None:
        if self.retention_ms <= self.record_life_ms + self.worker_life_ms:
            raise ValueError(
                f"retention_ms {self.retention_ms} must exceed a record's life and a worker's life together, "
                f"{self.record_life_ms} + {self.worker_life_ms}: a late record would find its feed forgotten"
            )
        if not self.worker_life_ms <= self.expiry_margin_ms < self.retention_ms // 2:
            raise ValueError(
                f"expiry_margin_ms {self.expiry_margin_ms} must be at least worker_life_ms {self.worker_life_ms} "
                f"and less than half of retention_ms {self.retention_ms}"
            )
        for name in ("catchup_bytes", "snapshot_part_bytes"):
            if not 0 < getattr(self, name) <= MESSAGE_BYTES_MAX - 16 * 1024:
                raise ValueError(f"{name} {getattr(self, name)}: at most {MESSAGE_BYTES_MAX - 16 * 1024}")
        whole = ("catchup_rows", "snapshot_page", "hello_per_window", "hello_window_ms", "transaction_retries")
        windows = ("digest_per_window", "digests_per_window", "up_per_window", "overload_retry_ms")
        for name in (*whole, *windows, "incarnation_ms", "quarantine_retry_ms"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: at least 1")
