"""Swarm: for each seed, which faults exist at all, and then how often, how long, and whom they hit.

A fixed mix always holds everything: what each fault does is hidden by what the others do, and no run is without any of
them (Groce et al., "Swarm Testing", ISSTA 2012). Here a seed leaves out most kinds of fault, some workloads too, and
draws the numbers of the rest, of the agent, of the cloud and of the links, and how long it all lasts. What is drawn is
a scenario in the words of its file, checked like any other. Draws come from ladders of whole numbers, from a stream for
each kind, so that no seed depends on a mathematical library or on which kinds there are. Called by fleet.sweep.case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fleet.rng import Stream, rng
from fleet.scenario.faults import POISONS
from fleet.scenario.units import format_duration, parse_duration, parse_rate

Values = dict[str, Any]

MINUTE: Final = 60
LENGTHS_M: Final = (8, 12, 20, 30, 40, 60, 60)
DENSITIES: Final = (15, 30, 50)  # percent of the kinds of fault that a run has
CONVERGE_WITHIN_M: Final = 45
CONVERGE_AFTER_COPIES_M: Final = 100  # quarantines have to pass, and their relay's patience
WORKLOAD_STAYS: Final = 0.85
LARGE_ITEMS: Final = 0.05  # of the workloads in the cloud: some of what they write is too large for any device
LARGE_BYTES: Final = ["60kb", "130kb"]
# What a rollout does not go with (docs/protocol.md, "Schemas that differ"): an epoch that begins while a model is not
# there, and a damage that only a comparison finds, which there is between equals alone.
NO_STAGES: Final = frozenset(("clone", "table-restore", "device-restore", "factory-reset", "silent-damage"))
STAGES: Final = frozenset(("rollout", "relay-rollout"))
LINKS: Final = ("home-wifi", "wifi-poor", "lte", "lte-m", "cellular-bloated", "rural-lossy", "leo-sat", "ethernet")


@dataclass(frozen=True, slots=True)
class Setting:
    """What the faults of one run have to fit into."""

    length_s: int
    warm_up_s: int
    record_life_s: int
    worker_life_s: int
    groups: tuple[str, ...]
    regions: tuple[str, ...]
    models: tuple[str, ...] = ()  # that a schema may lack


def drawn(values: Values, seed: int, models: tuple[str, ...] = ()) -> Values:
    """The scenario of this seed: the one given, its faults replaced, the rest changed. `values`: as in a file.
    `models`: those that devices and relay may be without for a while."""
    entity = f"swarm/{values['name']}"

    def stream(purpose: str) -> Stream:
        return rng(seed, entity, purpose)

    values = dict(values)
    before_s = _seconds(values["duration"])
    shape = stream("length")
    length_s = min(shape.choice(LENGTHS_M) * MINUTE, max(before_s, LENGTHS_M[0] * MINUTE))
    warm_up_s = min(shape.choice((1, 2, 3)) * MINUTE, length_s // 4)
    cloud = _cloud(values["cloud"], stream("cloud"))
    setting = Setting(
        length_s,
        warm_up_s,
        _seconds(cloud["record_life"]),
        _seconds(cloud["worker_life"]),
        tuple(group["name"] for group in values["devices"]),
        tuple(dict.fromkeys(group["region"] for group in values["devices"])),
        models,
    )
    faults = _faults(setting, stream)
    kinds = {fault["kind"] for fault in faults}
    if kinds & STAGES and kinds & NO_STAGES:
        left_out = NO_STAGES if stream("stages").chance(0.3) else STAGES
        faults = [fault for fault in faults if fault["kind"] not in left_out]
    kinds = {fault["kind"] for fault in faults}
    values.update(
        duration=_time(length_s),
        devices=[_group(group, stream(f"group/{group['name']}")) for group in values["devices"]],
        workload=_workloads(values["workload"], length_s / before_s, stream),
        faults=faults,
        phases=_phases(values["phases"], warm_up_s, kinds),
        cloud=cloud,
        agent=_agent(values["agent"], stream("agent"), digests="silent-damage" in kinds),
        # What a run must have looked at is up to the sweep as a whole: one run may well have no conflict.
        expect={"checks": ["convergence"], "thresholds": []},
    )
    return values


def _seconds(duration: Any) -> int:
    return parse_duration(duration) // 1_000_000


def _time(seconds: int) -> str:
    return format_duration(seconds * 1_000_000)


def _phases(phases: Values, warm_up_s: int, kinds: set[str]) -> Values:
    least_m = CONVERGE_AFTER_COPIES_M if kinds & {"clone", "table-restore"} else CONVERGE_WITHIN_M
    within_s = max(_seconds(phases["converge_within"]), least_m * MINUTE)
    return {**phases, "warm_up": _time(warm_up_s), "converge_within": _time(within_s)}


def _group(group: Values, stream: Stream) -> Values:
    """Another link, or another clock, now and then."""
    group = dict(group)
    if stream.chance(0.3):
        group["link"] = {"profile": stream.choice(LINKS)}
        if stream.chance(0.5):
            group["link"]["offline"] = None
    if stream.chance(0.3):
        group["clock"] = {
            "offset": stream.choice(("0s", "0s", "20m", "-20m", "30s", "-30s")),
            "spread": stream.choice(("0s", "3s", "1m")),
            "drift": stream.choice(("0ppm", "20ppm", "100ppm")),
        }
    if stream.chance(0.2):
        group["encoding"] = stream.choice(("json", "msgpack"))
    return group


def _workloads(workloads: list[Values], scale: float, stream_of: Callable[[str], Stream]) -> list[Values]:
    """Some of them, at other rates. Always one at least. Times within the run move with its length."""
    kept = []
    for workload in workloads:
        stream = stream_of(f"workload/{workload['name']}")
        stays = stream.chance(WORKLOAD_STAYS)
        percent = stream.choice((50, 100, 200, 300, 400))
        if not stays:
            continue
        workload = dict(workload)
        if "every" in workload:
            workload["every"] = _time(max(1, _seconds(workload["every"]) * 100 // percent))
        else:
            per_h = round(parse_rate(workload["rate"]) * 36 * percent)
            workload["rate"] = f"{max(1, per_h)}/h"
        for key in ("from", "until"):
            if key in workload:
                workload[key] = _time(int(_seconds(workload[key]) * scale))
        if _may_be_large(workload) and stream_of(f"large/{workload['name']}").chance(LARGE_ITEMS):
            workload["bytes"] = LARGE_BYTES
        kept.append(workload)
    return kept or [workloads[stream_of("workload").below(len(workloads))]]


def _may_be_large(workload: Values) -> bool:
    """A device refuses its own applications what is too large; the cloud's write what they like, but seldom so much."""
    if workload["side"] != "cloud" or workload["bytes"] in (0, [0, 0]) or workload["commands"]:
        return False
    return "rate" in workload or _seconds(workload["every"]) >= MINUTE


def _cloud(cloud: Values, stream: Stream) -> Values:
    record_life_s, worker_life_s = stream.choice((120, 300, 720)), stream.choice((60, 180))
    margin_s = max(worker_life_s, stream.choice((120, 180, 300)))
    least_s = max(record_life_s + worker_life_s, 2 * margin_s) + MINUTE
    forgets = stream.chance(0.6)
    return {
        **cloud,
        "workers": stream.choice((1, 2, 2, 4)),
        "shards": stream.choice((1, 2, 4)),
        "lease": stream.choice(("5s", "10s", "20s")),
        "record_concurrency": stream.choice((1, 4, 16)),
        "stream_delay": stream.choice(("50ms", "150ms", "2s")),
        "record_life": _time(record_life_s),
        "worker_life": _time(worker_life_s),
        "ttl_margin": _time(margin_s),
        "feed_retention": _time(least_s + stream.choice((0, 300, 900))) if forgets else "7d",
    }


def _agent(agent: Values, stream: Stream, *, digests: bool) -> Values:
    compares = stream.chance(0.3)
    agent = {
        **agent,
        "hello_every": stream.choice(("1m", "3m", "15m", "15m")),
        "batch_ops": stream.choice((98, 98, 16, 4, 1)),
        "gap_wait": stream.choice(("500ms", "2s", "5s")),
    }
    if compares or digests:
        agent.update(digest_every=stream.choice(("2m", "4m", "8m")), digest_retry="15s", digest_heal="4m")
    return agent


# ---------------------------------------------------------------- faults


def _faults(setting: Setting, stream_of: Callable[[str], Stream]) -> list[Values]:
    """Each kind is in or out by a draw of its own."""
    density = stream_of("density").choice(DENSITIES)
    faults = []
    for name, draw in DRAWS.items():
        stream = stream_of(f"fault/{name}")
        if stream.below(100) < density and (setting.models or name not in STAGES):
            faults.append({"name": name, **draw(setting, stream)})
    return faults


def _times(setting: Setting, stream: Stream, longest_s: int, often: tuple[int, ...] = (1, 2, 4, 8, 16)) -> Values:
    """At a rate, or at one or two moments at which it still fits in."""
    if stream.chance(0.6):
        events = stream.choice(often)  # of each device that it may hit, over the whole run
        return {"rate": f"{max(1, events * 3600 // setting.length_s)}/h"}
    last_s = setting.length_s - longest_s - 1
    at = sorted(stream.between(setting.warm_up_s, max(setting.warm_up_s, last_s)) for _ in range(1 + stream.below(2)))
    return {"at": [_time(second) for second in dict.fromkeys(at)]}


def _fits(setting: Setting, stream: Stream, ladder: tuple[int, ...]) -> int:
    """A duration in seconds, at most half of what comes after the warm-up."""
    return min(stream.choice(ladder), (setting.length_s - setting.warm_up_s) // 2)


def _target(setting: Setting, stream: Stream) -> Values:
    kind = stream.below(8)
    if kind < 4:
        return {}
    if kind < 6:
        return {"target": {"share": f"{stream.choice((5, 10, 20, 40, 60))}%"}}
    if kind == 6:
        return {"target": {"group": stream.choice(setting.groups)}}
    return {"target": {"region": stream.choice(setting.regions)}}


def _broker_outage(setting: Setting, stream: Stream) -> Values:
    duration = _fits(setting, stream, (10, 60, 300, 600))
    where = {"target": {"region": stream.choice(setting.regions)}} if stream.chance(0.5) else {}
    return {"kind": "broker-outage", "duration": _time(duration), **_times(setting, stream, duration), **where}


def _link_down(setting: Setting, stream: Stream) -> Values:
    duration = _fits(setting, stream, (5, 30, 90, 360, 1500))
    when, target = _times(setting, stream, duration), _target(setting, stream)
    return {"kind": "link-down", "duration": _time(duration), **when, **target}


def _disconnects(setting: Setting, stream: Stream) -> Values:
    return {"kind": "disconnects", **_times(setting, stream, 0), **_target(setting, stream)}


def _half_open(setting: Setting, stream: Stream) -> Values:
    duration = _fits(setting, stream, (10, 60, 300))
    return {
        "kind": "half-open",
        "duration": _time(duration),
        **_times(setting, stream, duration),
        **_target(setting, stream),
    }


def _off(setting: Setting, stream: Stream, ladder: tuple[int, ...]) -> tuple[int, Values]:
    least, most = sorted(_fits(setting, stream, ladder) for _ in range(2))
    return most, {"off": [_time(least), _time(most)]}


def _reboots(setting: Setting, stream: Stream) -> Values:
    longest, off = _off(setting, stream, (1, 5, 20, 60))
    when, target = _times(setting, stream, longest), _target(setting, stream)
    return {"kind": "reboots", "orderly": stream.chance(0.5), **off, **when, **target}


def _power_cut(setting: Setting, stream: Stream) -> Values:
    longest, off = _off(setting, stream, (1, 10, 30, 120, 720))
    return {"kind": "power-cut", **off, **_times(setting, stream, longest), **_target(setting, stream)}


def _messages(*hops: str) -> Callable[[Setting, Stream], Values]:
    def draw(setting: Setting, stream: Stream) -> Values:
        lose, duplicate, reorder = (stream.choice((0, 0, 1, 3, 10, 25)) for _ in range(3))
        if not lose + duplicate + reorder:
            duplicate = 5
        return {
            "kind": "messages",
            "hop": list(hops),
            "lose": f"{lose}%",
            "duplicate": f"{duplicate}%",
            "reorder": f"{reorder}%",
            "reorder_by": stream.choice(("200ms", "2s", "10s", "60s")),
            **_target(setting, stream),
        }

    return draw


def _relay_kill(setting: Setting, stream: Stream) -> Values:
    restart = _fits(setting, stream, (1, 5, 20))
    return {"kind": "relay-kill", "restart": _time(restart), "rate": f"{stream.choice((6, 20, 60, 200))}/h"}


def _relay_stall(setting: Setting, stream: Stream) -> Values:
    duration = min(stream.choice((5, 15, 30, 45, 90)), setting.worker_life_s * 3 // 4)
    return {"kind": "relay-stall", "duration": _time(duration), "rate": f"{stream.choice((6, 20, 60, 120))}/h"}


def _late_s(setting: Setting, stream: Stream) -> list[str]:
    longest = min(stream.choice((5, 30, 120, 600)), setting.record_life_s - 30)
    return ["0s" if stream.chance(0.5) else "1s", _time(longest)]


def _stream_replay(setting: Setting, stream: Stream) -> Values:
    return {"kind": "stream-replay", "share": f"{stream.choice((1, 5, 20))}%", "late": _late_s(setting, stream)}


def _stream_delay(setting: Setting, stream: Stream) -> Values:
    return {"kind": "stream-delay", "delay": _late_s(setting, stream)}


def _clock(setting: Setting, stream: Stream) -> Values:
    jump = stream.choice(("-1h", "-10m", "-30s", "2s", "5m", "1h", "0s"))
    drift = stream.choice(("50ppm", "-50ppm")) if jump == "0s" or stream.chance(0.2) else "0ppm"
    return {
        "kind": "clock",
        "jump": jump,
        "drift": drift,
        **_times(setting, stream, 0),
        **_target(setting, stream),
    }


def _table(kind: str, *percents: int) -> Callable[[Setting, Stream], Values]:
    def draw(setting: Setting, stream: Stream) -> Values:
        return {"kind": kind, "share": f"{stream.choice(percents)}%"}

    return draw


def _table_restore(setting: Setting, stream: Stream) -> Values:
    restart = stream.choice((10, 30, 60))
    at = stream.between(setting.warm_up_s + 1, setting.length_s - restart - 1)
    back = stream.choice((2, 10, 30, 60)) * MINUTE
    return {"kind": "table-restore", "back": _time(back), "restart": _time(restart), "at": _time(at)}


def _clone(setting: Setting, stream: Stream) -> Values:
    duration = _fits(setting, stream, (120, 600, 1800))
    at = stream.between(setting.warm_up_s, setting.length_s - duration - 1)
    share = f"{stream.choice((5, 10, 20))}%"
    return {"kind": "clone", "at": _time(at), "duration": _time(duration), "target": {"share": share}}


def _device_restore(setting: Setting, stream: Stream) -> Values:
    longest, off = _off(setting, stream, (5, 20, 60))
    back = stream.choice((10, 60, 300, 1800))
    return {
        "kind": "device-restore",
        "back": _time(back),
        **off,
        **_times(setting, stream, longest, (1, 1, 2)),
        **_few(stream),
    }


def _factory_reset(setting: Setting, stream: Stream) -> Values:
    longest, off = _off(setting, stream, (5, 20, 60))
    return {"kind": "factory-reset", **off, **_times(setting, stream, longest, (1, 1, 2)), **_few(stream)}


def _disk_full(setting: Setting, stream: Stream) -> Values:
    duration = _fits(setting, stream, (30, 120, 600))
    when, target = _times(setting, stream, duration, (1, 1, 2)), _target(setting, stream)
    return {"kind": "disk-full", "duration": _time(duration), **when, **target}


def _few(stream: Stream) -> Values:
    return {"target": {"share": f"{stream.choice((5, 20, 60))}%"}}


def _silent_damage(setting: Setting, stream: Stream) -> Values:
    where = stream.choice(("any", "device", "table"))
    events = stream.choice((1, 2, 3))
    return {"kind": "silent-damage", "where": where, "rate": f"{max(1, events * 3600 // setting.length_s)}/h"}


def _poison(setting: Setting, stream: Stream) -> Values:
    duration = _fits(setting, stream, (20, 120, 600))
    what = [name for name in POISONS if stream.chance(0.5)] or [stream.choice(POISONS)]
    return {
        "kind": "poison",
        "what": what,
        "duration": _time(duration),
        **_times(setting, stream, duration, (1, 2, 4)),
        **_few(stream),
    }


def _lacks(setting: Setting, stream: Stream) -> list[str]:
    found = [name for name in setting.models if stream.chance(0.3)]
    return found[:3] or [stream.choice(setting.models)]


def _rollout(setting: Setting, stream: Stream) -> Values:
    """One to three stages of the same rollout, or one that takes models away."""
    longest, off = _off(setting, stream, (1, 20, 60))
    last_s = setting.length_s - longest - 1
    at = sorted(stream.between(setting.warm_up_s, max(setting.warm_up_s, last_s)) for _ in range(1 + stream.below(3)))
    key = stream.choice(("before", "before", "lacks"))
    return {
        "kind": "rollout",
        key: _lacks(setting, stream),
        "at": [_time(second) for second in dict.fromkeys(at)],
        "orderly": stream.chance(0.5),
        **off,
        **_target(setting, stream),
    }


def _relay_rollout(setting: Setting, stream: Stream) -> Values:
    """In the end the relay knows all."""
    restart = _fits(setting, stream, (1, 5, 20))
    at = stream.between(setting.warm_up_s, setting.length_s - restart - 1)
    return {
        "kind": "relay-rollout",
        "before": _lacks(setting, stream),
        "at": _time(at),
        "restart": _time(restart),
    }


DRAWS: Final[dict[str, Callable[[Setting, Stream], Values]]] = {
    "broker-outage": _broker_outage,
    "link-down": _link_down,
    "second-link-down": _link_down,
    "disconnects": _disconnects,
    "half-open": _half_open,
    "reboots": _reboots,
    "power-cut": _power_cut,
    "messages-up": _messages("device-to-broker", "broker-to-relay"),
    "messages-down": _messages("relay-to-broker", "broker-to-device"),
    "relay-kill": _relay_kill,
    "relay-stall": _relay_stall,
    "stream-replay": _stream_replay,
    "stream-delay": _stream_delay,
    "clock": _clock,
    "second-clock": _clock,
    "table-throttle": _table("table-throttle", 1, 5, 20),
    "table-silence": _table("table-silence", 1, 5),
    "table-restore": _table_restore,
    "clone": _clone,
    "silent-damage": _silent_damage,
    "device-restore": _device_restore,
    "factory-reset": _factory_reset,
    "disk-full": _disk_full,
    "poison": _poison,
    "rollout": _rollout,
    "relay-rollout": _relay_rollout,
}
