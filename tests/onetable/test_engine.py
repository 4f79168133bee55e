"""Our schema engine stores what the JavaScript library stores, attribute for attribute, or is known to differ.

Against raw_items.json: no Node is needed. Differences are of two kinds: on purpose (`Case.ours` says why), and not yet
(engine_gaps.py, which has to be exact).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onetable.capture import expected
from onetable.corpus import CASES
from onetable.engine import compare, from_raw, to_raw
from onetable.engine_gaps import GAPS

EXPECTED: Final = expected()
NOT_YET: Final = {name: end for end, names in GAPS.items() for name in names}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.ours])
def test_the_engine_stores_what_the_library_stores(name: str) -> None:
    assert compare(CASES[name], EXPECTED[name]) == NOT_YET.get(name, "")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.ours])
def test_where_the_engine_must_differ_it_does(name: str) -> None:
    assert compare(CASES[name], EXPECTED[name]) != ""


def test_the_gaps_are_cases_of_the_corpus_that_ought_to_agree() -> None:
    assert sum(len(names) for names in GAPS.values()) == len(NOT_YET)
    assert all(name in CASES and not CASES[name].ours for name in NOT_YET)


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


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda deep: st.lists(deep, max_size=4) | st.dictionaries(st.text(), deep, max_size=4),
    )
)
def test_an_image_survives_its_raw_form(value: Any) -> None:
    assert from_raw(to_raw(value)) == value
