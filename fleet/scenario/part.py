"""What every part of a scenario is: a strict pydantic model. Used by the modules that hold the parts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a scenario: unknown keys are errors, types are not guessed, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)
