"""What must hold of the stages of a rollout: they happen within the scenario, and between schemas that there can be.

Adds problems to the document; called by fleet.scenario.check_faults.
"""

from __future__ import annotations

from agent.protocol.errors import InputError
from agent.protocol.schema import Schema
from fleet.scenario.document import Path_
from fleet.scenario.draft import Draft, first_of, outside
from fleet.scenario.explain import guess
from fleet.scenario.faults import RelayRollout, Rollout, Stage
from fleet.scenario.units import format_duration
from fleet.scenario.variants import Unfit, variant


def check_stage(draft: Draft, path: Path_, stage: Stage) -> None:
    document, end = draft.document, draft.duration_us
    if not stage.at_us:
        document.complain((*path, "at"), "an empty list of times")
    for at_us in stage.at_us:
        key, lasts_us = _lasts(stage)
        if end is not None and at_us >= end:
            outside(draft, (*path, "at"), "begins")
        elif end is not None and at_us + lasts_us > end:
            place = (*path, key) if document.written((*path, key)) is not None else (*path, "at")
            text = f"at {format_duration(at_us)} it lasts beyond the scenario's end, {format_duration(end)}"
            document.complain(place, text)
    if draft.schema is None:
        return
    for key in ("lacks", "before"):
        made = _schema(draft, (*path, key), getattr(stage, key), draft.schema)
        if key == "lacks" and made is not None and isinstance(stage, RelayRollout):
            _feeds_stay(draft, (*path, key), made, draft.schema)
    if not stage.lacks and not stage.before:
        document.complain(path, "changes nothing: give `before` or `lacks`", "such as before: [Notice]")


def _lasts(stage: Stage) -> tuple[str, int]:
    """The key that says it, and the longest that one event is sure to last."""
    if isinstance(stage, Rollout):
        return "off", stage.off[1]
    return "restart", stage.restart_us if isinstance(stage, RelayRollout) else 0


def _schema(draft: Draft, path: Path_, lacks: tuple[str, ...], schema: Schema) -> Schema | None:
    document = draft.document
    listed = isinstance(document.written(path), list)
    sound = True
    for index, text in enumerate(lacks):
        try:
            variant(schema, (text,))
        except Unfit as unfit:
            hint = (guess(unfit.name, unfit.known) or first_of(unfit.known)) if unfit.known else ""
            document.complain((*path, index) if listed else path, str(unfit), hint)
            sound = False
        except InputError as error:
            document.complain((*path, index) if listed else path, f"without it: {error.problems[0].message}")
            sound = False
    if not sound:
        return None
    try:
        return variant(schema, lacks)
    except (Unfit, InputError) as error:
        text = error.problems[0].message if isinstance(error, InputError) else str(error)
        document.complain(path, f"without all of these: {text}")
        return None


def _feeds_stay(draft: Draft, path: Path_, made: Schema, schema: Schema) -> None:
    """A device waits for ever for a feed of which no relay knows."""
    left = {model.feed for model in made.models.values() if model.receives}
    for feed in dict.fromkeys(model.feed for model in schema.models.values() if model.receives):
        if feed not in left:
            names = [model.name for model in schema.models.values() if model.receives and model.feed == feed]
            hint = f"leave one of these: {', '.join(names)}"
            draft.document.complain(path, f"no model is left of the feed {feed!r}, for which devices would wait", hint)
