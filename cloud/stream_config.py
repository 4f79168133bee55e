"""The numbers of the stream's readers, with defaults. Pure values; made by whoever starts a relay."""

from __future__ import annotations

from dataclasses import dataclass

from cloud.stream import RECORDS_MAX

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Raises ValueError when the numbers contradict each other."""

    lease_ms: int = 15_000  # a lease that nobody has renewed for so long is free
    renew_ms: int = 4_000  # how often leases are renewed, and those of others looked at
    checkpoint_ms: int = 1_000  # least time between two checkpoints of what was done
    discover_ms: int = 30_000  # how often the stream is asked for its shards; a shard's end asks at once
    poll_ms: int = 250  # between two looks at a shard that had nothing: Lambda's own pace
    batch_records: int = 250  # read at once; what a crash makes come again
    lanes: int = 32  # feeds of one batch whose records are worked on at once
    record_tries: int = 5  # of a record that the relay cannot work on, before it is set aside
    record_retry_ms: int = 60 * _MINUTE_MS  # the same where the table refuses or does not answer
    backoff_base_ms: int = 200
    backoff_cap_ms: int = 10_000
    letter_life_ms: int = 30 * 24 * 60 * _MINUTE_MS  # how long what was set aside is kept

    def __post_init__(self) -> None:
        for name in ("renew_ms", "checkpoint_ms", "discover_ms", "poll_ms", "lanes", "record_tries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: at least 1")
        if self.renew_ms * 2 > self.lease_ms:
            raise ValueError(
                f"renew_ms {self.renew_ms} must be at most half of lease_ms {self.lease_ms}: "
                "one renewal that fails must not cost the lease"
            )
        if not 0 < self.batch_records <= RECORDS_MAX:
            raise ValueError(f"batch_records {self.batch_records}: 1 to {RECORDS_MAX}")
        if not 0 < self.backoff_base_ms <= self.backoff_cap_ms:
            raise ValueError(f"backoff_base_ms {self.backoff_base_ms}: 1 to backoff_cap_ms {self.backoff_cap_ms}")

    def pause_ms(self, tries: int, chance: float) -> int:
        """Before the try after so many (from 1): full jitter below a ceiling that doubles. `chance`: from 0 to 1."""
        ceiling = min(self.backoff_cap_ms, self.backoff_base_ms << min(tries - 1, 20))
        return int(chance * ceiling)
