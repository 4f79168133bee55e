"""The agent's numbers, all configurable. Defaults are the protocol's; times are in milliseconds.

Pure values. Used by the session; the simulator and a configuration file may override each.
"""

from __future__ import annotations

import msgspec

from agent.protocol.messages import BATCH_BYTES_MAX, OPS_MAX
from agent.protocol.topics import PREFIX


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    topic_prefix: str = PREFIX
    compact: bool = False  # MessagePack on the wire instead of JSON
    hello_period_ms: int = 15 * 60 * 1000
    hello_jitter: float = 0.2  # of the period, both ways
    hello_spacing_ms: int = 1000  # least time between two hellos, but for the next part of a catch-up
    boot_jitter_ms: int = 30 * 1000  # before the first connection after a boot: power comes back for many at once
    resend_base_ms: int = 2 * 1000
    resend_cap_ms: int = 5 * 60 * 1000
    connect_base_ms: int = 2 * 1000
    connect_cap_ms: int = 5 * 60 * 1000
    connect_jitter: float = 1.0  # share of that back-off that is drawn; with 0, what was cut off together returns so
    stable_ms: int = 20 * 1000  # of connection, before the back-off starts anew
    pause_max_ms: int = 60 * 60 * 1000  # when the relay asks to wait; by chance up to as much again is added
    gap_wait_ms: int = 2 * 1000  # for a straggler, before asking
    gap_rows_max: int = 64  # messages kept of what came too early, per feed
    snapshot_parts_max: int = 4096
    batch_ops_max: int = OPS_MAX
    batch_bytes_max: int = BATCH_BYTES_MAX
    digest_period_ms: int = 24 * 60 * 60 * 1000  # between two comparisons of digests; 0: only when asked to
    digest_jitter: float = 0.2  # of that period, both ways
    digest_retry_ms: int = 60 * 1000  # when something is on its way, or no answer comes; by chance as much again
    digest_rows: int = 256  # items counted at once
    digest_heal_ms: int = 60 * 60 * 1000  # least time between two snapshots of a feed, or restatements, for digests
