"""The numbers of the simulated cloud, broker and agent that a scenario may override: `cloud:`, `broker:`, `agent:`.

Pydantic models with defaults; no logic but their conversion to the plan's plain structs. Used by fleet.scenario.model
and fleet.scenario.build.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from agent.config import AgentConfig
from fleet.scenario.part import Part
from fleet.scenario.plan import AgentPlan, BrokerPlan, CloudPlan
from fleet.scenario.quota_settings import QuotaSettings
from fleet.scenario.units import Duration, PositiveDuration, Share, Size

_AGENT: Final = AgentConfig()
_MS: Final = 1000  # microseconds
_S: Final = 1000 * _MS
_M: Final = 60 * _S
_DAY: Final = 24 * 60 * _M


def field(alias: str, default: Any, description: str, **limits: Any) -> Any:
    return Field(alias=alias, default=default, description=description, **limits)


class CloudSettings(QuotaSettings):
    """The simulated table, its change stream and the relay's workers; and its quotas."""

    workers: int = field("workers", 2, "Relay workers (processes).", ge=1, le=1000)
    concurrency: int = field("concurrency", 100, "Tasks that one worker runs at once.", ge=1, le=100_000)
    queue: int = field("queue", 10_000, "Device messages that wait in one worker; more are dropped.", ge=1)
    shards: int = field("shards", 4, "Shards of the table's change stream.", ge=1, le=1000)
    poll_every_us: PositiveDuration = field(
        "poll_every", 250 * _MS, "Time between two looks at a shard (AWS Lambda: about 4 a second)."
    )
    stream_delay_us: Duration = field("stream_delay", 150 * _MS, "Time from a commit to its record in the stream.")
    stream_jitter: Share = field("stream_jitter", 0.5, "Share by which the stream's delay varies, both ways.")
    batch_records: int = field("batch_records", 100, "Most records that a worker takes at once.", ge=1, le=1000)
    record_concurrency: int = field(
        "record_concurrency", 16, "Records of different items that a worker handles at once, per shard.", ge=1, le=1000
    )
    lease_us: PositiveDuration = field("lease", 10 * _S, "How long a worker holds a shard without renewing.")
    record_life_us: PositiveDuration = field(
        "record_life",
        5 * _M,
        "How long a record can come back: delivered late, again, or to another worker. AWS keeps a stream for 24 h; "
        "a short life lets a scenario of an hour reach beyond the feed's retention.",
    )
    worker_life_us: PositiveDuration = field(
        "worker_life",
        1 * _M,
        "Longest life of one task in a worker; older ones are killed. AWS Lambda allows 15 m; shorter for the same "
        "reason as record_life.",
    )
    feed_retention_us: PositiveDuration = field(
        "feed_retention", 7 * _DAY, "How long the feed keeps a change. More than record_life + worker_life."
    )
    ttl_margin_us: PositiveDuration = field(
        "ttl_margin", 5 * _M, "A feed whose last row expires within this time starts anew."
    )
    future_bound_us: Duration = field("future_bound", 1 * _M, "How far in the future a device's time stamp may be.")
    read_latency_us: Duration = field("read_latency", 4 * _MS, "Median time of a get or batch get.")
    write_latency_us: Duration = field("write_latency", 6 * _MS, "Median time of a put, update or delete.")
    transact_latency_us: Duration = field("transact_latency", 12 * _MS, "Median time of a transaction.")
    query_latency_us: Duration = field("query_latency", 6 * _MS, "Median time of a query.")
    latency_jitter: Share = field("latency_jitter", 0.5, "Share by which the table's times vary, both ways.")
    sweep_every_us: PositiveDuration = field("sweep_every", 1 * _M, "Time between two sweeps of expired items.")
    sweep_delay_us: Duration = field("sweep_delay", 2 * _M, "How late an expired item may be swept (AWS: days).")


class BrokerSettings(Part):
    """The simulated MQTT broker."""

    keep_alive_us: PositiveDuration = field(
        "keep_alive", 5 * _M, "Keep-alive of the devices' connections; the broker drops one after 1.5 times."
    )
    in_flight: int = field(
        "in_flight",
        100,
        "Unacknowledged QoS 1 messages, per client and direction (AWS IoT Core: 100).",
        ge=1,
        le=65_535,
    )
    queue: int = field("queue", 1000, "Messages that wait for one client beyond these; more are dropped.", ge=0)
    hop_delay_us: Duration = field("hop_delay", 5 * _MS, "Time between broker and relay, each way.")
    hop_jitter: Share = field("hop_jitter", 0.5, "Share by which that time varies, both ways.")


class AgentSettings(Part):
    """The agent's own numbers, where a scenario changes them."""

    hello_every_us: PositiveDuration = field(
        "hello_every", _AGENT.hello_period_ms * _MS, "How often a device asks what it missed."
    )
    hello_jitter: Share = field("hello_jitter", _AGENT.hello_jitter, "Share by which that period varies, both ways.")
    hello_spacing_us: Duration = field(
        "hello_spacing", _AGENT.hello_spacing_ms * _MS, "Least time between two questions."
    )
    boot_jitter_us: Duration = field(
        "boot_jitter", _AGENT.boot_jitter_ms * _MS, "Longest wait between a boot and the first connection."
    )
    resend_base_us: PositiveDuration = field(
        "resend_base", _AGENT.resend_base_ms * _MS, "First back-off of a resend; it doubles."
    )
    resend_cap_us: PositiveDuration = field("resend_cap", _AGENT.resend_cap_ms * _MS, "Longest back-off of a resend.")
    connect_base_us: PositiveDuration = field(
        "connect_base", _AGENT.connect_base_ms * _MS, "First back-off of a connection; it doubles."
    )
    connect_cap_us: PositiveDuration = field(
        "connect_cap", _AGENT.connect_cap_ms * _MS, "Longest back-off of a connection."
    )
    connect_jitter: Share = field(
        "connect_jitter", _AGENT.connect_jitter, "Share of that back-off that is drawn; 0%: all wait the same time."
    )
    stable_us: Duration = field(
        "stable", _AGENT.stable_ms * _MS, "Time of connection after which back-off starts anew."
    )
    gap_wait_us: Duration = field("gap_wait", _AGENT.gap_wait_ms * _MS, "Wait for a late message before a gap is one.")
    batch_ops: int = field("batch_ops", _AGENT.batch_ops_max, "Most writes in one message.", ge=1, le=98)
    batch_bytes: Size = field(
        "batch_bytes",
        _AGENT.batch_bytes_max,
        "Most bytes of writes in one message.",
        ge=1024,
        le=_AGENT.batch_bytes_max,
    )
    digest_every_us: Duration = field(
        "digest_every", 0, "How often a device compares digests with the cloud; 0s: never (the agent's own: 24 h)."
    )
    digest_retry_us: PositiveDuration = field(
        "digest_retry", _AGENT.digest_retry_ms * _MS, "Wait until it tries again; it doubles."
    )
    digest_heal_us: PositiveDuration = field(
        "digest_heal", _AGENT.digest_heal_ms * _MS, "Least time between two heals of one feed."
    )


def cloud_plan(settings: CloudSettings) -> CloudPlan:
    return CloudPlan(
        workers=settings.workers,
        concurrency=settings.concurrency,
        queue_max=settings.queue,
        shards=settings.shards,
        poll_every_us=settings.poll_every_us,
        stream_delay_us=settings.stream_delay_us,
        stream_jitter=settings.stream_jitter,
        batch_records_max=settings.batch_records,
        record_concurrency=settings.record_concurrency,
        lease_us=settings.lease_us,
        record_life_us=settings.record_life_us,
        worker_life_us=settings.worker_life_us,
        feed_retention_ms=settings.feed_retention_us // _MS,
        ttl_margin_ms=settings.ttl_margin_us // _MS,
        future_bound_ms=settings.future_bound_us // _MS,
        read_latency_us=settings.read_latency_us,
        write_latency_us=settings.write_latency_us,
        transact_latency_us=settings.transact_latency_us,
        query_latency_us=settings.query_latency_us,
        latency_jitter=settings.latency_jitter,
        sweep_every_us=settings.sweep_every_us,
        sweep_delay_us=settings.sweep_delay_us,
    )


def broker_plan(settings: BrokerSettings) -> BrokerPlan:
    return BrokerPlan(
        keep_alive_us=settings.keep_alive_us,
        in_flight_max=settings.in_flight,
        queue_max=settings.queue,
        hop_delay_us=settings.hop_delay_us,
        hop_jitter=settings.hop_jitter,
    )


def agent_plan(settings: AgentSettings) -> AgentPlan:
    return AgentPlan(
        hello_period_ms=settings.hello_every_us // _MS,
        hello_jitter=settings.hello_jitter,
        hello_spacing_ms=settings.hello_spacing_us // _MS,
        boot_jitter_ms=settings.boot_jitter_us // _MS,
        resend_base_ms=settings.resend_base_us // _MS,
        resend_cap_ms=settings.resend_cap_us // _MS,
        connect_base_ms=settings.connect_base_us // _MS,
        connect_cap_ms=settings.connect_cap_us // _MS,
        stable_ms=settings.stable_us // _MS,
        gap_wait_ms=settings.gap_wait_us // _MS,
        batch_ops_max=settings.batch_ops,
        batch_bytes_max=settings.batch_bytes,
        digest_period_ms=settings.digest_every_us // _MS,
        digest_retry_ms=settings.digest_retry_us // _MS,
        digest_heal_ms=settings.digest_heal_us // _MS,
        connect_jitter=settings.connect_jitter,
    )
