"""What a person sees when a run ends: verdict, checks, thresholds, latencies, counts, faults, probes, in that order.

Fits 100 columns, plain where the output is no terminal, ASCII where it cannot say more. Called by the commands; the
same values are in `summary.json`.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from typing import IO, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from reports.live_text import attached_of, distance_of, items_of, parts_of, quantiles_of, verdict_of
from reports.quota_text import quota_lines
from reports.result import FaultWindow, RunResult
from reports.summary import Check, Percentiles, Status, Summary, Threshold, checks_in_order
from reports.text import bytes_text, clock_text, number_text, printable, seconds_text

WIDTH: Final = 100
_MARK: Final[dict[Status, tuple[str, str]]] = {
    "pass": ("✓", "green"),
    "fail": ("✗", "bold red"),
    "unknown": ("?", "yellow"),
}
_VERDICT: Final[dict[Status, tuple[str, str]]] = {
    "pass": (" PASS ", "bold white on green"),
    "fail": (" FAIL ", "bold white on red"),
    "unknown": (" UNKNOWN ", "bold black on yellow"),
}
_ASCII: Final = str.maketrans(
    {"✓": "+", "✗": "x", "·": "-", "→": ">", "–": "-", "…": "~", "µ": "u", "\ufffd": "?", "×": "x"}
)
_FAULTS_MAX: Final = 20
_DEVICES_MAX: Final = 8
_FAILURES_MAX: Final = 3
_DETAIL_CELLS_MAX: Final = 4 * WIDTH
_PROBE_CELLS_MAX: Final = 40
_EXPR_CELLS_MIN: Final = 40
_EXPR_CELLS_MAX: Final = 56
_GAP: Final = 3


def summary_lines(result: RunResult, width: int = WIDTH) -> list[Text]:
    """The summary as styled lines, none longer than `width` cells."""
    summary = result.summary
    lines = [Text(), _headline(summary), Text(f"   {_figures(summary)}", "dim")]
    lines += _checks(summary.checks, width)
    lines += _thresholds(summary.thresholds)
    lines += _latencies(summary)
    lines += _live(summary)
    lines += _counts(summary)
    lines += _faults(result.faults)
    lines += quota_lines(summary.quotas)
    lines += _devices(result)
    lines += _probes(summary.probes, width)
    lines += [Text(), *_command(printable(summary.reproduce, 400), width)]
    if summary.trace_hash:
        lines.append(Text.assemble(("   trace hash ", "dim"), printable(summary.trace_hash, 128)))
    fitted: list[Text] = []
    for line in lines:
        fitted.extend(_fold(line, width))
    return fitted


def summary_text(result: RunResult, width: int = WIDTH) -> str:
    """The summary without colours."""
    return "".join(f"{line.plain.rstrip()}\n" for line in summary_lines(result, width))


def print_summary(result: RunResult, file: IO[str]) -> None:
    """Writes the summary to `file`, as wide as that is, but not wider than WIDTH."""
    probe = Console(file=file, highlight=False)
    print_lines(summary_lines(result, max(40, min(WIDTH, probe.width)) if probe.is_terminal else WIDTH), file)


def print_lines(lines: Iterable[Text], file: IO[str]) -> None:
    """Coloured on a terminal, plain elsewhere, ASCII where the encoding is not UTF."""
    probe = Console(file=file, highlight=False)
    if not probe.is_terminal:
        text = "".join(f"{line.plain.rstrip()}\n" for line in lines)
        file.write(text if speaks_utf(file) else to_ascii(text))
        return
    buffer = io.StringIO()
    system = probe.color_system
    inner = Console(
        file=buffer,
        width=max(WIDTH, probe.width) + 1,
        force_terminal=True,
        color_system=system,  # type: ignore[arg-type]  # a name that rich itself gave
        highlight=False,
        soft_wrap=True,
    )
    for line in lines:
        inner.print(line, soft_wrap=True)
    text = buffer.getvalue()
    file.write(text if speaks_utf(file) else to_ascii(text))


def to_ascii(text: str) -> str:
    """The same for an output that has no other letters."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


def speaks_utf(file: IO[str]) -> bool:
    encoding = getattr(file, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").startswith("utf")


def _fold(line: Text, width: int) -> list[Text]:
    """Breaks a line that is too long, the rest indented under its text."""
    if cell_len(line.plain) <= width:
        return [line]
    indent = len(line.plain) - len(line.plain.lstrip()) + 2
    console = Console(width=width, file=io.StringIO(), highlight=False)
    first = line.wrap(console, width)[0]
    tail = line[len(first.plain) :]
    tail = tail[len(tail.plain) - len(tail.plain.lstrip()) :]
    whole = [first, *(Text(" " * indent) + part for part in tail.wrap(console, width - indent))]
    for part in whole:
        part.rstrip()
    return whole


def _command(command: str, width: int) -> list[Text]:
    """What to type, over several lines as a shell takes them when it is long."""
    rows = [""]
    for word in re.findall(r"(?:--[\w-]+ (?!-))?(?:'[^']*'|\S)+", command):
        if rows[-1] and cell_len(f"{rows[-1]} {word}") > width - 16:
            rows.append("")
        rows[-1] += f" {word}" if rows[-1] else word
    heads = [("   reproduce  ", "dim"), *[("                ", "")] * (len(rows) - 1)]
    ends = [*[" \\"] * (len(rows) - 1), ""]
    return [Text.assemble(head, row, end) for head, row, end in zip(heads, rows, ends, strict=True)]


def _title(text: str) -> list[Text]:
    return [Text(), Text(f"   {text}", "bold")]


def _pad(text: str, cells: int) -> str:
    """`text` in exactly so many cells, with an ellipsis where it was cut."""
    return set_cell_size(text, cells) if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def _headline(summary: Summary) -> Text:
    label, style = _VERDICT[summary.verdict]
    line = Text.assemble("   ", (label, style), "  ", (printable(summary.scenario, 48), "bold"))
    line.append(f"  seed {summary.seed}")
    if summary.plant:
        line.append(f"  plant {printable(summary.plant, 32)}", "yellow")
    if summary.interrupted:
        line.append("  interrupted", "yellow")
    if summary.aborted:
        line.append("  stopped early", "yellow")
    return line


def _figures(summary: Summary) -> str:
    speed = f" ({summary.virtual_s / summary.wall_s:,.0f}×)" if summary.wall_s > 0 else ""
    parts = [
        f"{summary.devices:,} devices",
        f"{clock_text(summary.virtual_s)} in {seconds_text(summary.wall_s)}{speed}",
        f"{seconds_text(summary.cpu_s)} CPU",
        f"{summary.rss_mb_max:,.0f} MB",
        printable(summary.backend, 20),
    ]
    return " · ".join(parts)


def _mark(status: Status) -> tuple[str, str]:
    return _MARK[status]


def _checks(checks: list[Check], width: int) -> list[Text]:
    lines = _title("CHECKS")
    if not checks:
        lines.append(Text("     none", "dim"))
    for check in checks_in_order(checks):
        mark = _mark(check.status)
        if check.status == "unknown":
            said = "never evaluated, and the scenario requires it" if check.required else "had nothing to check"
        else:
            said = f"{check.checked:,} checked"
            said += f", {check.failures:,} failed" if check.status == "fail" and check.failures else ""
        name_style = "" if check.status != "unknown" or check.required else "dim"
        lines.append(
            Text.assemble("     ", mark, " ", (_pad(printable(check.name), 40), name_style), " ", (said, "dim"))
        )
        if check.status == "fail" and check.detail:
            for part in check.detail.splitlines()[:_FAILURES_MAX]:
                lines.append(Text(f"         {printable(part, _DETAIL_CELLS_MAX)}", "red"))
            if check.failures > _FAILURES_MAX:
                lines.append(Text(f"         and {check.failures - _FAILURES_MAX:,} more", "red"))
    return lines


def _thresholds(thresholds: list[Threshold]) -> list[Text]:
    if not thresholds:
        return []
    lines = _title("THRESHOLDS")
    longest = max(cell_len(printable(one.expr)) for one in thresholds)
    cells = min(max(longest, _EXPR_CELLS_MIN), _EXPR_CELLS_MAX)
    for threshold in thresholds:
        said = f"is {number_text(threshold.actual)}" if threshold.status != "unknown" else "nothing to measure"
        said = printable(threshold.detail, _DETAIL_CELLS_MAX) or said
        expr = _pad(printable(threshold.expr), cells)
        lines.append(Text.assemble("     ", _mark(threshold.status), " ", expr, " ", (said, "dim")))
    return lines


def _latencies(summary: Summary) -> list[Text]:
    head = "".join(f"{name:>11}" for name in ("p50", "p90", "p99", "p99.9", "max", "count"))
    lines = [Text(), Text.assemble(("   LATENCY    ", "bold"), (head, "dim"))]
    for name, values in (("up", summary.latency_s.up), ("down", summary.latency_s.down)):
        lines.append(Text(f"     {name:<9}{_percentiles(values)}"))
    if summary.converged_after_s is None:
        lines.append(Text.assemble("     ", ("did not converge", "yellow")))
    elif not summary.converged_after_s:
        lines.append(Text("     converged at once"))
    else:
        lines.append(Text(f"     converged {seconds_text(summary.converged_after_s)} after the last heal"))
    return lines


def _percentiles(values: Percentiles) -> str:
    if not values.count:
        return "".join(f"{'–':>11}" for _ in range(5)) + f"{0:>11}"
    times = (values.p50, values.p90, values.p99, values.p999, values.max)
    return "".join(f"{seconds_text(time):>11}" for time in times) + f"{values.count:>11,}"


def _live(summary: Summary) -> list[Text]:
    """What was real, and the same plan simulated beside it."""
    live = summary.live
    if live is None:
        return []
    lines = [*_title("LIVE"), Text(f"     {parts_of(live)}")]
    comparison = live.comparison
    if comparison is not None:
        lines.append(
            Text.assemble("     ", _mark("pass" if comparison.equal else "unknown"), f" {verdict_of(comparison)}")
        )
        for total in comparison.totals:
            if not total.equal:
                lines.append(
                    Text(f"         {printable(total.name, 60)}: {total.live:,} live, {total.simulated:,} simulated")
                )
        lines.append(Text(f"       {items_of(comparison)}"))
        for latency in comparison.latencies:
            quantiles = " · ".join(f"{name} {one} ({other})" for name, one, other in quantiles_of(latency))
            lines.append(Text(f"       {latency.name:<5}{quantiles} · {distance_of(latency)}"))
        lines.append(Text("       (in brackets: simulated; distance: the largest difference of the two shares)", "dim"))
    for device in live.attached:
        mark = _mark("pass" if device.status == "pass" else "fail")
        lines.append(Text.assemble("     ", mark, f" attached {printable(device.device, 60)}: {attached_of(device)}"))
    for one in live.not_applied:
        lines.append(Text(f"     not applied: {printable(one.name, 40)}: {printable(one.why, 200)}", "yellow"))
    return lines


def _counts(summary: Summary) -> list[Text]:
    counts = summary.counts
    rows = (
        ("writes", f"{counts.local_writes:,} on devices · {counts.cloud_writes:,} in the cloud"),
        ("synced", f"{counts.updates_synced:,} updates · {counts.conflicts:,} conflicts"),
        ("messages", f"{counts.messages_up:,} up · {counts.messages_down:,} down · {counts.messages_lost:,} lost"),
        ("bytes", f"{bytes_text(counts.bytes_up)} up · {bytes_text(counts.bytes_down)} down"),
        ("devices", f"{counts.connects:,} connects · {counts.disconnects:,} disconnects · {counts.reboots:,} reboots"),
        ("repairs", f"{counts.retransmits:,} retransmits · {counts.snapshots:,} snapshots"),
    )
    return [*_title("COUNTS"), *(Text(f"     {name:<10}{value}") for name, value in rows)]


def _faults(faults: list[FaultWindow]) -> list[Text]:
    if not faults:
        return []
    lines = _title("FAULTS")
    for fault in faults[:_FAULTS_MAX]:
        window = f"{clock_text(fault.start_s)} → {clock_text(fault.end_s)}"
        lines.append(
            Text.assemble(
                f"     {_pad(printable(fault.name), 20)} ",
                (f"{_pad(printable(fault.kind) if fault.kind != fault.name else '', 14)} ", "dim"),
                f"{window:<21} {f'{fault.devices:,} devices' if fault.devices else '–':>15}  ",
                healing(fault),
            )
        )
    if len(faults) > _FAULTS_MAX:
        lines.append(Text(f"     and {len(faults) - _FAULTS_MAX:,} more", "dim"))
    return lines


def healing(fault: FaultWindow) -> str:
    """`in step +42 s`: how long after its heal the fleet was back in step."""
    if fault.healed_s is None:
        return "not healed"
    if fault.recovered_s is None:
        return "healed"
    return f"in step +{seconds_text(max(0.0, fault.recovered_s - fault.healed_s))}"


def _devices(result: RunResult) -> list[Text]:
    if not result.devices:
        return []
    lines = _title(f"DEVICES NOT AS THEY SHOULD BE ({len(result.devices):,})")
    for row in result.devices[:_DEVICES_MAX]:
        tail = f"{printable(row.reason, 120)} (state {printable(row.state, 20)}, outbox {row.outbox:,})"
        lines.append(Text(f"     {_pad(printable(row.device), 20)} {tail}"))
    if len(result.devices) > _DEVICES_MAX:
        lines.append(Text(f"     and {len(result.devices) - _DEVICES_MAX:,} more in devices.csv", "dim"))
    return lines


def _probes(probes: dict[str, int], width: int) -> list[Text]:
    """As many columns as there is room for, read downwards; those never reached are last and dim."""
    if not probes:
        return []
    ordered = sorted(probes.items(), key=lambda pair: (pair[1] == 0, pair[0]))
    name_cells = min(max(cell_len(printable(name)) for name, _ in ordered), _PROBE_CELLS_MAX)
    count_cells = max(len(f"{count:,}") for _, count in ordered)
    columns = max(1, (min(width, WIDTH) - 5 + _GAP) // (name_cells + 2 + count_cells + _GAP))
    rows = math.ceil(len(ordered) / columns)
    lines = _title("PROBES")
    for row in range(rows):
        line = Text("    ")
        for i, (name, count) in enumerate(ordered[row::rows]):
            gap = " " * (_GAP if i else 1)
            cells = f"{gap}{_pad(printable(name), name_cells)}  {count:>{count_cells},}"
            line.append(cells, "dim" if count == 0 else "")
        lines.append(line)
    return lines
