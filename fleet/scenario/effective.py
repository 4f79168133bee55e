"""A scenario after defaults and overrides, as YAML again: `scenario.effective.yaml` in a run directory.

Loads to an equal scenario. Pure; called by whoever writes a run directory.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from fleet.scenario.model import Scenario
from fleet.scenario.shipped import SCHEMAS


def effective_values(scenario: Scenario) -> dict[str, Any]:
    """Plain values; every default is there."""
    values: dict[str, Any] = scenario.model_dump(mode="json", by_alias=True, exclude_none=True)
    schema = Path(scenario.parsed_schema.file).resolve()
    if not schema.is_relative_to(SCHEMAS):
        values["schema"] = str(schema)  # the run directory is elsewhere
    for group, written in zip(scenario.devices, values["devices"], strict=True):
        if group.link.offline is None:
            written["link"]["offline"] = None  # left out, the profile's would come back
    return values


def effective_yaml(scenario: Scenario) -> str:
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 120
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    out = io.StringIO()
    yaml.dump(effective_values(scenario), out)
    return out.getvalue()
