"""What the JavaScript library stores for every case of the corpus: carried out, and kept in raw_items.json.

`python tests/onetable/capture.py` runs the library against moto's server and writes raw_items.json again. That is right
after a change of the corpus; test_library.py fails when the library stores otherwise than the file says.

In the file, per case and step: `items`, those that are new or changed; `gone`, the keys of those that are no more;
`error`, what the library threw (which may be after it had stored something); `answer`, what get and find gave. `read`:
what `get` gives at the end for each item of the model. Generated ids are masked: `<ulid>`, `<uid(4)>`.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from emulators import client, moto_server
from onetable.bridge import Bridge, LibraryError, library
from onetable.case import MODEL, Case, Step
from onetable.corpus import CASES
from onetable.values import Raw, to_boto

FILE: Final = Path(__file__).resolve().parent / "raw_items.json"
Record = dict[str, Any]
# What each `generate` makes; "uid" is "uid(10)".
_MADE: Final = {
    "ulid": re.compile(r"[0-9A-HJKMNP-TV-Z]{26}"),
    "uuid": re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"),
    "uid": re.compile(r"[0-9A-HJKMNP-TV-Z]{10}"),
    "uid(4)": re.compile(r"[0-9A-HJKMNP-TV-Z]{4}"),
    "uid(5)": re.compile(r"[0-9A-HJKMNP-TV-Z]{5}"),
    "uid(6)": re.compile(r"[0-9A-HJKMNP-TV-Z]{6}"),
    "uid(12)": re.compile(r"[0-9A-HJKMNP-TV-Z]{12}"),
}


@dataclass(frozen=True)
class Library:
    """The library, and beside it boto3, which puts items as other programs store them.

    Each use takes a table of a new name; the tables go with the server."""

    bridge: Bridge
    boto: Any
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def open(self, case: Case) -> str:
        """The name of a new, empty table with the case's schema."""
        table = f"table-{next(self.numbers)}-of-{os.getpid()}"
        self.bridge.open(table, case.schema, case.context)
        return table

    def carry_out(self, case: Case) -> Record:
        """Runs a case in a table of its own."""
        table = self.open(case)
        items: list[Raw] = []
        steps = []
        for step in case.steps:
            record, items = self._step(table, step, items)
            steps.append(record)
        read = self.read(table, case, items)
        masked: Record = _mask({"steps": steps, "read": read}, dict(_made(case, steps)))
        return masked

    def _step(self, table: str, step: Step, before: list[Raw]) -> tuple[Record, list[Raw]]:
        if step.raw is not None:
            self.put(table, [step.raw])
            after = self.bridge.raw(table)
            return _changes(before, after), after
        record: Record = {}
        try:
            answer = self.bridge.call(table, MODEL, step.verb, step.props, step.now_ms, **(step.params or {}))
        except LibraryError as error:
            record["error"] = _shown(error)
        else:
            if step.verb in ("get", "find"):
                record["answer"] = answer
        after = self.bridge.raw(table)
        return {**record, **_changes(before, after)}, after

    def put(self, table: str, items: Sequence[Raw]) -> None:
        """As they stand, at most 25 of them. Raises botocore's errors."""
        if items:
            self.boto.batch_write_item(
                RequestItems={table: [{"PutRequest": {"Item": to_boto(item)}} for item in items]}
            )

    def read(self, table: str, case: Case, items: list[Raw]) -> list[Any]:
        """What the library makes of each item of the model, tagged; the text of the error where it throws."""
        type_field = case.schema["params"].get("typeField", "_type")
        found: list[Any] = []
        for item in items:
            if item.get(type_field) == {"S": MODEL}:
                keys = {"pk": item["pk"]["S"], "sk": item["sk"]["S"]}
                try:
                    found.append(self.bridge.call(table, MODEL, "get", keys))
                except LibraryError as error:
                    found.append({"error": _shown(error)})
        return found


def _key(item: Raw) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _changes(before: list[Raw], after: list[Raw]) -> Record:
    old = {_key(item): item for item in before}
    changed = [item for item in after if old.pop(_key(item), None) != item]
    return {**({"items": changed} if changed else {}), **({"gone": [list(key) for key in sorted(old)]} if old else {})}


def _shown(error: LibraryError) -> str:
    """The words of Node and of the server differ between their versions; the library's own do not."""
    code = error.code or error.name
    foreign = code.endswith("Exception") or code.startswith("ERR_") or error.name == "TypeError"
    return code if foreign else f"{code}: {error.message}"


def _made(case: Case, steps: list[Record]) -> Iterator[tuple[str, str]]:
    """(generated id, its mask). Raises ValueError for one that has not the form that it should have."""
    given = {value for step in case.steps for value in step.props.values() if isinstance(value, str)}
    for kind, path in _generating(case.fields):
        for record in steps:
            for item in record.get("items", ()):
                text = _text_at(item, path)
                if text is None or text in given:
                    continue
                if not _MADE[kind].fullmatch(text):
                    raise ValueError(f"{case.name}: {text!r} is not what {kind} should give")
                yield text, f"<{kind}>"


def _generating(fields: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(kind, path of names) of every field whose id is generated; a default comes first."""
    for name, properties in fields.items():
        if "generate" in properties and "default" not in properties:
            yield properties["generate"], (name,)
        for kind, path in _generating(properties.get("schema", {})):
            yield kind, (name, *path)


def _text_at(item: Raw, path: tuple[str, ...]) -> str | None:
    value: Any = {"M": item}
    for name in path:
        value = value.get("M", {}).get(name, {})
    text: str | None = value.get("S")
    return text


def _mask(value: Any, masks: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _mask(item, masks) for name, item in value.items()}
    if isinstance(value, list):
        return [_mask(item, masks) for item in value]
    if isinstance(value, str):
        for made, mask in masks.items():
            value = value.replace(made, mask)
    return value


def connect(bridge: Bridge, endpoint: str) -> Library:
    return Library(bridge, client(endpoint))


def expected() -> dict[str, Record]:
    """What raw_items.json says, by case."""
    records: dict[str, Record] = json.loads(FILE.read_text("utf-8"))
    return records


def states(record: Record) -> Iterator[list[Raw]]:
    """All that the table holds after each step."""
    items: dict[tuple[str, str], Raw] = {}
    for step in record["steps"]:
        items.update({_key(item): item for item in step.get("items", ())})
        for pk, sk in step.get("gone", ()):
            del items[pk, sk]
        yield [items[key] for key in sorted(items)]


def _written(records: dict[str, Record]) -> str:
    """A line for each step and each item, so that a change can be read."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)

    def block(parts: list[str], indent: str) -> str:
        return "[" + ",".join(f"\n{indent}    {part}" for part in parts) + f"\n{indent}]" if parts else "[]"

    def step(record: Record) -> str:
        rest = {name: value for name, value in record.items() if name != "items"}
        if "items" not in record:
            return line(rest)
        items = '"items": ' + block([line(item) for item in record["items"]], " " * 12)
        return "{" + (line(rest)[1:-1] + ", " if rest else "") + items + "}"

    def one(record: Record) -> str:
        steps = block([step(part) for part in record["steps"]], " " * 8)
        read = block([line(item) for item in record["read"]], " " * 8)
        return f'{{\n        "steps": {steps},\n        "read": {read}\n    }}'

    return "{" + ",".join(f"\n    {line(name)}: {one(record)}" for name, record in records.items()) + "\n}\n"


def main() -> None:
    old = expected() if FILE.exists() else {}
    with moto_server() as endpoint, library(endpoint) as bridge:
        capturing = connect(bridge, endpoint)
        new = {name: capturing.carry_out(case) for name, case in CASES.items()}
    FILE.write_text(_written(new), "utf-8")
    changed = [name for name in new if new[name] != old.get(name)]
    print(f"{len(new)} cases, {len(changed)} of them changed: {', '.join(changed[:20])}")


if __name__ == "__main__":
    main()
