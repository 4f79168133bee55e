"""Our schema engine stores what the JavaScript library stores, attribute for attribute, or differs on purpose.

Against raw_items.json: no Node is needed. `Case.ours` says why a case must end otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from onetable.capture import expected
from onetable.corpus import CASES
from onetable.engine import compare

EXPECTED: Final = expected()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.ours])
def test_the_engine_stores_what_the_library_stores(name: str) -> None:
    assert compare(CASES[name], EXPECTED[name]) == ""


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.ours])
def test_where_the_engine_must_differ_it_does(name: str) -> None:
    end = compare(CASES[name], EXPECTED[name])
    assert end != ""
    if CASES[name].ours.endswith(": refused"):
        assert end.startswith("refuses ")


@pytest.mark.parametrize(
    ("name", "params", "end"),
    [
        ("type/date", {"isoDates": True}, "stores otherwise in step 1, create"),
        ("type/string", {"nulls": True}, "stores otherwise in step 7, create"),
        ("stamps/true-ms", {"timestamps": "create"}, "stores otherwise in step 1, create"),
        ("required/missing", {}, "takes step 1, create"),
    ],
)
def test_a_difference_would_be_seen(name: str, params: dict[str, Any], end: str) -> None:
    case = CASES[name]
    fields = {name: {**field, "required": False} for name, field in case.fields.items()}
    schema = {**case.schema, "params": {**case.schema["params"], **params}, "models": {"Thing": fields}}
    assert compare(replace(case, schema=schema), EXPECTED[name]) == end
