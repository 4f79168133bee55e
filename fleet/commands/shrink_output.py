"""What `fleet shrink` shows: the line of progress, the minimum for people, and from when on it could not be avoided."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer

from fleet.commands.common import cut_short_at_will
from fleet.scenario.units import format_duration
from fleet.shrink.shrink import Shrink, Size, size_of
from fleet.shrink.when import SURE, Localised
from reports.sequence import Arrow, Note, Story, Violation, chosen, picture
from reports.text import printable

if TYPE_CHECKING:
    from fleet.scenario.plan import Plan
    from fleet.shrink.whole import Failure, Shrunk

WIDTH: Final = 100
AROUND_MAX: Final = 12
MOSTLY: Final = 0.5
_BAR: Final = 30


def describe(told: str, elapsed_s: float) -> str:
    return f"{told}, {elapsed_s:.0f} s"


def progress(work: Shrink, before: Size) -> str:
    """At most 100 columns; no number of it ever grows but the replays."""
    now = size_of(work.search.best)
    parts = (
        f"devices {before.devices:,}→{now.devices:,}",
        f"faults {before.faults}→{now.faults}",
        f"{format_duration(before.duration_us)}→{_about(now.duration_us)}",
        f"{work.search.replays:,} replays",
        work.phase,
    )
    return ", ".join(parts)


def _about(us: int) -> str:
    return format_duration(max(1_000_000, us // 1_000_000 * 1_000_000))


@dataclass(frozen=True, slots=True)
class Result:
    """A shrink that has come to its end, and where its files are. `yaml_path` None: no scenario can say it."""

    shrunk: Shrunk
    before: Size
    after: Size
    wall_s: float
    jobs: int
    yaml: str
    plan_path: Path
    yaml_path: Path | None
    svg_path: Path

    @property
    def command(self) -> str:
        """What reproduces the failure."""
        plan = self.shrunk.plan
        if self.yaml_path is None:
            return shlex.join(["fleet", "replay", str(self.plan_path)])
        return shlex.join(["fleet", "run", str(self.yaml_path), *(["--plant", plan.plant] if plan.plant else [])])

    def picture(self, story: Story) -> str:
        plan = self.shrunk.plan
        violation = as_violation(plan, self.shrunk.failure)
        title = f"{plan.scenario}: {violation.check}"
        plant = f", planted bug {plan.plant}" if plan.plant else ""
        return picture(chosen(story, violation), violation, title, f"seed {plan.seed}{plant} · {self.command}")


def as_violation(plan: Plan, failure: Failure) -> Violation:
    """As the picture takes it: the item, and the devices that it names or belongs to."""
    found = failure.violation
    if found is None:
        return Violation(failure.end_us, failure.kind.check, failure.step.first)
    words = found.item.replace("/", "#").split("#")
    devices = tuple(one.id for one in plan.devices if one.id == found.device or one.id in words)
    items = (found.item,) if found.item and not found.item.startswith("_fleet") else ()
    return Violation(failure.end_us, found.check, f"expected {found.expected}, found {found.found}", items, devices)


def show(result: Result, *, as_json: bool, quiet: bool) -> None:
    with cut_short_at_will():
        if as_json:
            typer.echo(json.dumps(as_values(result), indent=2))
        elif not quiet:
            _show(result)
        if not as_json:
            typer.echo(str(result.plan_path))


def as_values(result: Result) -> dict[str, Any]:
    shrunk = result.shrunk
    return {
        "check": shrunk.failure.kind.check,
        "shape": shrunk.failure.kind.shape,
        "violation": msgspec.to_builtins(shrunk.failure.violation),
        "before": asdict(result.before),
        "after": asdict(result.after),
        "complete": shrunk.complete,
        "replays": shrunk.replays,
        "wall_s": round(result.wall_s, 1),
        "jobs": result.jobs,
        "trace_hash": shrunk.failure.step.trace_hash,
        "plan": str(result.plan_path),
        "scenario": None if result.yaml_path is None else str(result.yaml_path),
        "picture": str(result.svg_path),
        "reproduce": result.command,
    }


def _show(result: Result) -> None:
    before, after, shrunk = result.before, result.after, result.shrunk
    typer.echo(f"✗ {shrunk.failure.kind.check}")
    typer.echo(f"   {printable(shrunk.failure.step.first, 400)}\n")
    rows = (
        ("devices", f"{before.devices:,}", f"{after.devices:,}"),
        ("faults", f"{before.faults}", f"{after.faults}"),
        ("events of faults", f"{before.events:,}", f"{after.events:,}"),
        ("workloads", f"{before.workloads}", f"{after.workloads}"),
        ("duration", format_duration(before.duration_us), format_duration(after.duration_us)),
    )
    for name, was, now in rows:
        typer.echo(f"   {name:16} {was:>10} → {now}")
    end = "" if shrunk.complete else "; not to its end: it may become smaller"
    typer.echo(f"   {shrunk.replays:,} replays, {result.wall_s:.0f} s, {result.jobs} at once{end}\n")
    if result.yaml:
        typer.echo(result.yaml)
    else:
        typer.echo("   no scenario makes this plan; it is in the plan's file\n")
    if result.yaml_path is not None:
        typer.echo(f"   scenario   {result.yaml_path}")
    typer.echo(f"   picture    {result.svg_path}")
    typer.echo(f"   again      {result.command}")


# ---------------------------------------------------------------- when


def show_when(
    plan: Plan, failure: Failure, found: Localised, story: Story, path: Path, *, as_json: bool, quiet: bool
) -> None:
    around = events_around(plan, failure, found, story)
    with cut_short_at_will():
        if as_json:
            typer.echo(json.dumps(_when_values(failure, found, around, path), indent=2))
            return
        if not quiet:
            typer.echo(f"✗ {failure.kind.check}\n   {printable(failure.step.first, 400)}\n")
            typer.echo(f"   {'drawn anew from':>16}   failed all the same")
            for point in found.points:
                bar = "█" * round(point.ratio * _BAR)
                mark = "  ← unavoidable" if point.at_us == found.moment_us else ""
                typer.echo(f"   {_moment(point.at_us):>16}   {point.failed:3} of {point.runs}  {bar:{_BAR}}{mark}")
            typer.echo("")
            for line in (*conclusion(found, bool(around)), *around):
                typer.echo(f"   {line}")
        typer.echo(str(path))


def conclusion(found: Localised, something: bool) -> list[str]:
    """In words. `something`: events are known that happened when it was decided."""
    if found.moment_us is None:
        return [f"It could be avoided at every moment that was looked at: never did {SURE:.0%} of the runs fail."]
    if found.before_us is None:
        return ["It could not be avoided at all: the plan itself decides it, whatever the run draws."]
    lines = [f"It was decided between {_moment(found.before_us)} and {_moment(found.moment_us)}."]
    if found.points and found.points[0].ratio >= MOSTLY:
        lines.append("Most of it the plan itself decides: drawn anew from the beginning, most runs fail too.")
    lines.append(
        "What happened then:" if something else "Nothing that has to do with it happened then: more --runs tell more."
    )
    return lines


def _moment(us: int) -> str:
    return f"{us / 1e6:,.6f} s"


def events_around(plan: Plan, failure: Failure, found: Localised, story: Story) -> list[str]:
    """What happened between the last moment at which the failure could be avoided and the first at which it could not,
    a little before and after where that is nothing."""
    if found.moment_us is None:
        return []
    low, high = found.before_us or 0, found.moment_us
    violation = as_violation(plan, failure)
    part = Story(
        devices=story.devices,
        notes=[note for note in story.notes if note.t_us <= violation.t_us],
        arrows=[arrow for arrow in story.arrows if arrow.sent_us <= violation.t_us],
    )
    near = chosen(Story(devices=part.devices, notes=_within(part.notes, low, high), arrows=[]), violation).notes
    moves = chosen(
        Story(
            devices=part.devices,
            notes=[],
            arrows=[
                arrow for arrow in part.arrows if low <= arrow.sent_us <= high or low <= (arrow.came_us or 0) <= high
            ],
        ),
        violation,
    ).arrows
    lines = [(note.t_us, f"{note.lane or 'everywhere'}: {note.text}") for note in near]
    lines += [(arrow.sent_us, _in_words(arrow)) for arrow in moves]
    lines.sort()
    told = [f"{_moment(t_us):>16}  {printable(text, WIDTH - 24)}" for t_us, text in lines]
    if len(told) > AROUND_MAX:
        told = [f"({len(told) - AROUND_MAX} more before)", *told[-AROUND_MAX:]]
    return told


def _within(notes: list[Note], low: int, high: int) -> list[Note]:
    return [note for note in notes if low <= note.t_us <= high]


def _in_words(arrow: Arrow) -> str:
    end = f"came at {_moment(arrow.came_us)}" if arrow.came_us is not None else arrow.lost
    return f"{arrow.start} → {arrow.to}: {arrow.label} ({end})"


def _when_values(failure: Failure, found: Localised, around: list[str], path: Path) -> dict[str, Any]:
    return {
        "check": failure.kind.check,
        "shape": failure.kind.shape,
        "points": [{"at_s": point.at_us / 1e6, "failed": point.failed, "runs": point.runs} for point in found.points],
        "unavoidable_from_s": None if found.moment_us is None else found.moment_us / 1e6,
        "avoidable_until_s": None if found.before_us is None else found.before_us / 1e6,
        "around": around,
        "complete": found.complete,
        "picture": str(path),
    }
