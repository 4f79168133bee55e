"""What a run took of its cloud's quotas, and what the cloud would bill: plain values, `quotas` in summary.json.

Values only. Filled by fleet.quota where a scenario has quotas or asks for what it uses; read by the terminal's summary,
the report, and fleet.capacity.
"""

from __future__ import annotations

import msgspec


class QuotaUse(msgspec.Struct, frozen=True, kw_only=True):
    """One quota. `per`: what it holds for (account, client, partition, ...); `unit`: of `limit` and `peak`.

    `peak`: the most that was asked for, within one second where the unit is a rate, refused requests included; so
    `peak_share` of the limit may be above 1 (0 where there is no limit). `throttled`: how often the quota said no;
    `effect`: what that meant (refused, dropped, delayed, queued). `source`: v, 2, a, or `scenario` where the scenario
    has set the limit."""

    name: str
    per: str
    unit: str
    limit: float  # 0: none
    peak: float = 0.0
    peak_share: float = 0.0
    peak_at_s: float | None = None
    throttled: int = 0
    first_s: float | None = None
    last_s: float | None = None
    effect: str = ""
    source: str = ""


class Usage(msgspec.Struct, kw_only=True):
    """What is metered, over the whole run. `messages`: in steps of `fleet.quota` (5 KB for AWS), that is CONNECT,
    SUBSCRIBE, PUBLISH both ways and a device's PUBACK; `connection_s`: over all devices; units as DynamoDB counts them;
    `function_s`: time that relay tasks took, `functions`: how many; `stream_reads`: looks at all shards."""

    seconds: float = 0.0
    connects: int = 0
    connects_refused: int = 0
    subscribes: int = 0
    publishes_up: int = 0
    publishes_down: int = 0
    deliveries: int = 0
    pubacks: int = 0
    messages: int = 0
    rule_triggers: int = 0
    rule_actions: int = 0
    connection_s: float = 0.0
    connection_minutes: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    write_units: int = 0
    read_units: int = 0
    stream_reads: int = 0
    functions: int = 0
    function_s: float = 0.0
    peak_connects_per_s: int = 0
    peak_messages_per_s: int = 0


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """How a fleet came back after a fault: `lost` connections were gone when it ended; seconds from its end until half,
    95 % and 99 % of these were back (None: not within the run). `floor_s`: lost / connects a second; 0: no quota."""

    fault: str
    end_s: float
    lost: int
    back_50_s: float | None = None
    back_95_s: float | None = None
    back_99_s: float | None = None
    floor_s: float = 0.0


class Quotas(msgspec.Struct, kw_only=True):
    """`preset`: its name; empty when the scenario has set every quota itself."""

    preset: str = ""
    uses: list[QuotaUse] = []
    usage: Usage = msgspec.field(default_factory=Usage)
    recoveries: list[Recovery] = []


Asked = dict[str, list[tuple[int, float]]]  # name -> (second, what was asked for in it), rising


class LoadRow(msgspec.Struct, frozen=True, array_like=True):
    """One second in which anything connected or went: CONNECTs that came, that were let in, connections at its end."""

    t_s: int
    attempts: int
    accepted: int
    online: int
