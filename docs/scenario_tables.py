"""What docs/scenarios.md says of the format, the faults, the links and the shipped scenarios: from the code itself.

The tables come from the JSON Schema that `fleet schema` prints. Called by docs.generate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from docs.markdown import code, table
from fleet.quota.presets import PRESETS
from fleet.scenario.build import build_plan
from fleet.scenario.expect import COLUMNS, LATENCY_PATHS, PART_PATHS, PATHS, RECOVERED
from fleet.scenario.faults import KINDS, Background, FaultBase, Lasting, Occurring, Stage
from fleet.scenario.json_schema import json_schema
from fleet.scenario.load import load
from fleet.scenario.presets import LINKS
from fleet.scenario.quota_settings import QuotaSettings
from fleet.scenario.shipped import header, scenario_paths
from fleet.scenario.units import format_duration

Entry = Mapping[str, Any]
QUOTAS: Final = tuple(field.alias or name for name, field in QuotaSettings.model_fields.items())

# The first example of a unit -> what the unit is called.
UNITS: Final = {
    ("10s", "5m", "1h30m", "250ms"): "duration",
    ("10s", "-5m"): "duration, also negative",
    ("5%",): "share",
    ("1kb",): "size",
    ("100/s", "2/h"): "rate",
    ("375k", "10M"): "bits a second",
    ("20ppm",): "drift",
}
# Definition -> heading and anchor.
PARTS: Final = {
    "Group": "devices",
    "Link": "devices: link",
    "Offline": "devices: link: offline",
    "DeviceClock": "devices: clock",
    "Boot": "devices: boot",
    "Workload": "workload",
    "Phases": "phases",
    "CloudSettings": "cloud",
    "BrokerSettings": "broker",
    "AgentSettings": "agent",
    "Expect": "expect",
    "Threshold": "expect: thresholds",
    "Target": "target: devices",
    "Regions": "target: regions",
    "Return": "back and stagger",
}
_FAMILY_KEYS: Final[tuple[tuple[type[FaultBase], str, tuple[str, ...]], ...]] = (
    (Lasting, "lasting", ("name", "kind", "at", "rate", "from", "until", "duration")),
    (Occurring, "momentary", ("name", "kind", "at", "rate", "from", "until")),
    (Background, "background", ("name", "kind", "at", "duration")),
    (Stage, "momentary", ("name", "kind")),
)


def kind_of(entry: Entry) -> str:
    """What may be written, in words."""
    if "allOf" in entry:
        return kind_of(entry["allOf"][0])
    if "$ref" in entry:
        return f"see *{PARTS[entry['$ref'].rpartition('/')[2]]}*"
    if "oneOf" in entry:
        return "one of the kinds below"
    if "anyOf" in entry:
        return _one_of([one for one in entry["anyOf"] if one.get("type") != "null"])
    if "examples" in entry:
        return UNITS[tuple(entry["examples"])]
    if "enum" in entry:
        return ", ".join(code(value) for value in entry["enum"])
    if "const" in entry:
        return code(entry["const"])
    if entry["type"] == "array":
        return f"list: {kind_of(entry['items'])}"
    return _plain(entry)


def _one_of(entries: list[Entry]) -> str:
    inner = [
        one for one in entries if any("examples" in each for each in (one, *one.get("anyOf", ()))) or "$ref" in one
    ]
    lists = [one for one in entries if one.get("type") == "array"]
    values = [one for one in (inner or entries) if one.get("type") != "array"] or entries
    text = kind_of(values[0])
    if lists:
        text += " or [least, most]" if lists[0].get("maxItems") == 2 else ", or a list of them"
    return text


def _plain(entry: Entry) -> str:
    kinds = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    text = kinds[entry["type"]]
    low = entry.get("minimum")
    high = entry.get("maximum")
    if high is not None and high >= 2**53:
        high = None
    if low is not None and high is not None:
        return f"{text}, {low:,} to {high:,}"
    return f"{text}, at least {low:,}" if low is not None else text


def _rows(definition: Entry, leave_out: tuple[str, ...] = ()) -> list[list[str]]:
    required = definition.get("required", ())
    rows = []
    for name, entry in definition["properties"].items():
        if name not in leave_out:
            default = "**required**" if name in required else _default(entry)
            rows.append([code(name), kind_of(entry), default, entry.get("description", "")])
    return rows


def _default(entry: Entry) -> str:
    value = entry.get("default")
    if value is None or value in ("", [], {}):
        return ""
    return code(str(value).lower() if isinstance(value, bool) else value)


def _definition(schema: Entry, name: str) -> Entry:
    found: Entry = schema["definitions"][name]
    return next(one for one in found["anyOf"] if "properties" in one) if "anyOf" in found else found


def keys() -> str:
    """Every part of a scenario but the faults."""
    schema = json_schema()
    head = ["key", "what to write", "default", "means"]
    parts = ["### The file\n\n" + table(head, _rows(schema))]
    for name, heading in PARTS.items():
        if not heading.startswith(("target", "back")):
            definition = _definition(schema, name)
            rows = _rows(definition, QUOTAS if name == "CloudSettings" else ())
            parts.append(f"### {heading}\n\n{definition['description']}\n\n{table(head, rows)}")
    quotas = [row for row in _rows(_definition(schema, "CloudSettings")) if row[0].strip("`") in QUOTAS]
    parts.append(f"### cloud: quotas\n\n{' '.join((QuotaSettings.__doc__ or '').split())}\n\n{table(head, quotas)}")
    return "\n\n".join(parts)


def fault_keys() -> str:
    """The faults: what they share, then each kind with its own keys."""
    schema = json_schema()
    head = ["key", "what to write", "default", "means"]
    lasting = _definition(schema, "LinkDown")
    shared = {**lasting, "properties": {k: v for k, v in lasting["properties"].items() if k in _FAMILY_KEYS[0][2]}}
    parts = ["### What faults share\n\n" + table(head, _rows(shared, ("kind",)))]
    for name in ("Target", "Regions", "Return"):
        definition = _definition(schema, name)
        parts.append(f"### {PARTS[name]}\n\n{definition['description']}\n\n{table(head, _rows(definition))}")
    for name, kind in KINDS.items():
        definition = _definition(schema, kind.__name__)
        family, common = _family(kind)
        own = _rows(definition, common)
        text = f"### {name}\n\n{' '.join(definition['description'].split())} *{family.capitalize()}; hits {kind.on}.*"
        parts.append(text + (f"\n\n{table(head, own)}" if own else ""))
    return "\n\n".join(parts)


def _family(kind: type[FaultBase]) -> tuple[str, tuple[str, ...]]:
    return next((name, common) for base, name, common in _FAMILY_KEYS if issubclass(kind, base))


def links() -> str:
    """The link profiles. An empty cell: no limit, or nothing of the kind."""
    columns = ("delay", "jitter", "delay_p99", "rate_up", "rate_down", "loss", "burst", "queue")
    rows = []
    for name, numbers in LINKS.items():
        offline = numbers.get("offline")
        breaks = f"every {offline['every']}: {offline['median']}, p99 {offline['p99']}" if offline else ""
        rows.append([code(name), *(str(numbers.get(column, "")) for column in columns), breaks])
    return table(["profile", *columns, "offline"], rows)


def shipped() -> str:
    """Each shipped scenario, in the words of its own file."""
    parts = []
    for name, path in scenario_paths().items():
        scenario = load(path)
        kinds = dict.fromkeys(fault.kind for fault in scenario.faults)
        plan = build_plan(scenario)
        facts = [
            f"{scenario.device_count:,} devices, {format_duration(scenario.duration_us)}",
            "faults: " + (", ".join(code(kind) for kind in kinds) or "none"),
            "must have been checked: " + ", ".join(code(check) for check in plan.checks),
        ]
        if plan.thresholds:
            facts.append("thresholds: " + ", ".join(code(one) for one in plan.thresholds))
        lines = "\n".join(f"- {fact}" for fact in facts)
        parts.append(f"### [{name}](../scenarios/{path.name})\n\n{header(path)}\n\n{lines}")
    return "\n\n".join(parts)


def presets() -> str:
    """The quotas of each preset, with the mark of its source."""
    keys = [key for key in QUOTAS if any(key in values or f"{key}_us" in values for values in PRESETS.values())]
    rows = []
    for key in keys:
        cells = []
        for values in PRESETS.values():
            value, mark = values.get(key, values.get(f"{key}_us", ("", "")))
            shown = format_duration(value) if key == "table_doubling" and value else value
            cells.append(f"{shown:,} ({mark})" if isinstance(shown, int) else f"{shown} ({mark})" if mark else "")
        rows.append([code(key), *cells])
    return table(["quota", *map(code, PRESETS)], rows)


def threshold_paths() -> str:
    """What a threshold may name."""

    def listed(paths: Iterable[str]) -> str:
        return ", ".join(code(path) for path in paths)

    parts = [
        f"- of one {part}: `latency_s...` as above, {listed(path for path in paths if path not in LATENCY_PATHS)}"
        for part, paths in PART_PATHS.items()
    ]
    whole = f"- of the whole run: {listed(PATHS)}, and `probes.NAME`"
    return "\n".join([whole, *parts, f"- in a window: {listed(COLUMNS)}; after a heal also `{RECOVERED}`"])
