"""The scenario format as JSON Schema, draft-07: what editors read to complete and explain keys.

Made from the models, so that it cannot drift. Pure; printed by `fleet schema`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from fleet.scenario.model import WINDOWS, Scenario
from fleet.scenario.part import Part
from fleet.scenario.presets import LINKS

DRAFT: Final = "http://json-schema.org/draft-07/schema#"


def json_schema() -> dict[str, Any]:
    """Plain values, ready for json.dumps."""
    made = Scenario.model_json_schema(by_alias=True)
    schema = _draft7(made)
    for part in _parts(Part):
        properties = schema["definitions"].get(part.__name__, schema if part is Scenario else {}).get("properties", {})
        for name, field in part.model_fields.items():
            entry = properties.get(field.alias or name)
            if entry is not None and "default" in entry:
                entry["default"] = _default(field)
                if entry["default"] is None:
                    del entry["default"]
    schema["definitions"]["Link"] = {
        "anyOf": [{"type": "string", "enum": list(LINKS)}, schema["definitions"]["Link"]],
        "description": "A link profile's name, or a mapping: a profile with changes, or all numbers.",
    }
    schema["definitions"]["Threshold"] = {
        "anyOf": [
            {"type": "string"},
            schema["definitions"]["Threshold"],
            {
                "type": "object",
                "patternProperties": {f"^({'|'.join(WINDOWS)})": {"type": "string"}},
                "properties": {"abort": {"type": "boolean"}},
                "additionalProperties": False,
            },
        ],
        "description": "An expression, or a mapping: the expression, and whether the run stops when it fails.",
    }
    return {"$schema": DRAFT, "title": "Fleet scenario", **{k: v for k, v in schema.items() if k != "title"}}


def _parts(part: type[Part]) -> list[type[Part]]:
    return [part, *(inner for child in part.__subclasses__() for inner in _parts(child))]


def _default(field: FieldInfo) -> Any:
    """As a person would write it: `5m`, not a number of microseconds."""
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return adapter.dump_python(field.default, mode="json", by_alias=True, exclude_defaults=True)


def _draft7(value: Any) -> Any:
    """Newer words in draft-07's; generated titles, which say nothing, are left out."""
    if isinstance(value, list):
        return [_draft7(one) for one in value]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for key, inner in value.items():
        if key == "$defs":
            made["definitions"] = {name: _draft7(one) for name, one in inner.items()}
        elif key == "properties":
            made["properties"] = {name: _draft7(one) for name, one in inner.items()}
        elif key == "$ref":
            made["$ref"] = inner.replace("#/$defs/", "#/definitions/")
        elif key in ("title", "discriminator"):
            continue
        elif key in ("default", "examples", "enum", "const"):
            made[key] = inner
        else:
            made[key] = _draft7(inner)
    if "$ref" in made and len(made) > 1:  # draft-07 ignores what stands beside a $ref
        made["allOf"] = [{"$ref": made.pop("$ref")}]
    return made
