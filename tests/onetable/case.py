"""What a case of the corpus is: a schema, and what an application does with it, one step after another.

A case is data alone. cases_types.py, cases_fields.py and cases_items.py list them, corpus.py puts them together,
capture.py has the JavaScript library carry them out, and raw_items.json holds what that stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from onetable.values import Raw

MODEL: Final = "Thing"
CONTEXT: Final = {"deviceId": "dev1", "accountId": "acc1"}
PRIMARY: Final = {"primary": {"hash": "pk", "sort": "sk"}}
GS1: Final = {"hash": "gs1pk", "sort": "gs1sk", "project": "all"}
# Each step is this much later than the one before: stamps tell which step wrote them.
START_MS: Final = 1767323045678  # 2026-01-02T03:04:05.678Z
STEP_MS: Final = 1111
WHEN: Final = datetime(2026, 2, 3, 4, 5, 6, 789_000, UTC)
LATER: Final = datetime(2027, 3, 4, 5, 6, 7, 1_000, UTC)

Fields = Mapping[str, Any]  # name -> its properties


@dataclass(frozen=True)
class Step:
    """`verb`: create, update, upsert, remove; get, find: nothing is stored, the answer counts; put: `raw` goes into the
    table as it stands, as another program may have stored it."""

    verb: str
    props: Mapping[str, Any]
    raw: Raw | None = None
    params: Mapping[str, Any] | None = None
    now_ms: int = START_MS


@dataclass(frozen=True)
class Case:
    """`ours`: why the engine must do otherwise than the library (it refuses, or the library has a defect); "" if not.
    The engine's own answer is then a test of the engine."""

    name: str
    schema: Mapping[str, Any]
    steps: tuple[Step, ...]
    context: Mapping[str, str]
    ours: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = self.schema["models"][MODEL]
        return fields


def case(
    name: str,
    fields: Fields,
    *steps: Step,
    params: Mapping[str, Any] | None = None,
    indexes: Mapping[str, Any] | None = None,
    context: Mapping[str, str] | None = None,
    ours: str = "",
) -> Case:
    """`fields` besides the keys, `deviceId` and `id`; they may replace these. No stamps unless `params` says so."""
    base: Fields = {
        "pk": {"type": "string", "value": "device#${deviceId}"},
        "sk": {"type": "string", "value": "thing#${id}"},
        "deviceId": {"type": "string", "required": True},
        "id": {"type": "string", "required": True},
    }
    schema = {
        "format": "onetable:1.1.0",
        "version": "0.0.1",
        "indexes": {**PRIMARY, **(indexes or {})},
        "params": {"timestamps": False, **(params or {})},
        "models": {MODEL: {**base, **fields}},
    }
    timed = tuple(replace(step, now_ms=START_MS + STEP_MS * number) for number, step in enumerate(steps))
    return Case(name, schema, timed, CONTEXT if context is None else context, ours)


def create(item: str | None = "1", /, **props: Any) -> Step:
    return Step("create", _with_id(item, props))


def update(item: str | None = "1", /, **props: Any) -> Step:
    return Step("update", _with_id(item, props))


def upsert(item: str | None = "1", /, **props: Any) -> Step:
    return Step("upsert", _with_id(item, props))


def remove(item: str | None = "1", /, **props: Any) -> Step:
    return Step("remove", _with_id(item, props))


def get(item: str | None = "1", /, **props: Any) -> Step:
    return Step("get", _with_id(item, props))


def find(index: str = "primary", /, **props: Any) -> Step:
    return Step("find", props, params={} if index == "primary" else {"index": index})


def put(raw: Raw, item: str = "1", /) -> Step:
    """Another program's item; the keys, the type and the ids are added."""
    mine = {"pk": "device#dev1", "sk": f"thing#{item}", "_type": MODEL, "deviceId": "dev1", "id": item}
    return Step("put", {}, raw={**{name: {"S": text} for name, text in mine.items()}, **raw})


def _with_id(item: str | None, props: dict[str, Any]) -> dict[str, Any]:
    return props if item is None else {"id": item, **props}


def all_of(*groups: Iterator[Case]) -> dict[str, Case]:
    """Name -> case. Raises ValueError for a name used twice."""
    cases: dict[str, Case] = {}
    for group in groups:
        for one in group:
            if one.name in cases:
                raise ValueError(f"two cases are called {one.name}")
            cases[one.name] = one
    return cases
