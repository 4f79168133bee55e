"""What an application on a device can expect of its database: models of ten fields, transactions, indexes, large files.

Rates are by CPU time but where the disk is waited for. The cost of a create is also taken apart, by doing its parts
alone: the model (validation, keys, stamps), the encoding, SQLite. The file lies in the system's temporary directory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

from agent.database import Database
from agent.files import open_file, open_memory
from agent.protocol.messages import encode_image
from agent.protocol.schema import Schema
from agent.store import Store
from benchmarks.ground import CONTEXT, START_MS, database
from benchmarks.measure import CPU, WALL, Effort, Result, Work, rates, ratios, seconds, side_by_side

QUESTION = "what does a device's database take, and what does each part of a write cost?"
BLOCK: Final = 500  # writes in one transaction
LARGE: Final = 100_000
_FIELDS: Final = """pk: {type: 'string', value: 'device#${deviceId}'}, deviceId: {type: 'string', required: true},
    id: {type: 'string', required: true}, name: {type: 'string'}, level: {type: 'number'}, ratio: {type: 'number'},
    active: {type: 'boolean'}, state: {type: 'string', enum: ['ok', 'bad']}, count: {type: 'number'},
    text: {type: 'string'}, unit: {type: 'string'}"""
SCHEMA: Final = f"""{{
    format: 'onetable:1.1.0', version: '0.0.1', params: {{timestamps: true}},
    indexes: {{primary: {{hash: 'pk', sort: 'sk'}}, grades: {{hash: 'grade', sort: 'level'}}}},
    process: {{Reading: {{enable: 'both', sync: 'up'}}, Local: {{enable: 'device'}}, Graded: {{enable: 'device'}}}},
    models: {{
        Reading: {{sk: {{type: 'string', value: 'reading#${{id}}'}}, {_FIELDS}}},
        Local: {{sk: {{type: 'string', value: 'local#${{id}}'}}, {_FIELDS}}},
        Graded: {{sk: {{type: 'string', value: 'graded#${{id}}'}}, grade: {{type: 'string', default: 'a'}}, {_FIELDS}}},
    }},
}}"""


def schema() -> Schema:
    return Schema.parse(SCHEMA, "benchmark.json5")


def ten_fields(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:08}", "name": "pump", "level": number, "ratio": 0.5, "active": True, "state": "ok", "count": 7,
        "text": "a few words of text", "unit": "bar",
    }  # fmt: skip


def creates(db: Database, model: str) -> Work:
    numbers = count()

    def work(n: int) -> None:
        for _ in range(n):
            db.create(model, ten_fields(next(numbers)))

    return work


def in_blocks(db: Database, model: str) -> Work:
    numbers = count()

    def work(n: int) -> None:
        for start in range(0, n, BLOCK):
            with db.transaction():
                for _ in range(min(BLOCK, n - start)):
                    db.create(model, ten_fields(next(numbers)))

    return work


def gets(db: Database, model: str, there: int) -> Work:
    keys = [{"id": f"{number:08}"} for number in range(there)]

    def work(n: int) -> None:
        for at in range(n):
            db.get(model, keys[at % there])

    return work


def _parts() -> dict[str, Work]:
    """The parts of a create, each done alone."""
    model = schema().models["Reading"]
    store = Store(open_memory())
    store.initialise("epoch")
    store.load()
    key, image = model.create(ten_fields(1), CONTEXT, START_MS, str)
    data = encode_image(image)
    properties = ten_fields(1)
    parts: dict[str, Callable[[], object]] = {
        "model: validate, key, stamps": lambda: model.create(properties, CONTEXT, START_MS, str),
        "key alone": lambda: model.key(properties, CONTEXT),
        "encode": lambda: encode_image(image),
        "read back for the caller": lambda: model.read(key, image),
        "SQLite: look, insert": lambda: (store.visible(*key), store.add_operation("pk", "sk", "create", data, 1)),
    }

    def repeated(part: Callable[[], object]) -> Work:
        def work(n: int) -> None:
            for _ in range(n):
                part()

        return work

    return {name: repeated(part) for name, part in parts.items()}


def _large(result: Result, folder: Path, effort: Effort) -> None:
    """Opening a file with many items: what is read is what is kept in memory, and no item."""
    items = LARGE // 100 if effort.small else LARGE
    file = folder / "large.db"
    db = database(open_file(file), schema())
    in_blocks(db, "Local")(items)
    db.close()

    def opened(n: int) -> None:
        for _ in range(n):
            database(open_file(file), schema()).close()

    times = [seconds(opened, 1, WALL) * 1000 for _ in range(effort.repeats)]
    result.add(f"open a file of {items:,} items", times, "ms wall")


def run(effort: Effort) -> Result:
    result = Result("device", QUESTION)
    for model in ("Reading", "Local", "Graded"):
        db = database(open_memory(), schema())
        there = 200 if effort.small else 10_000
        in_blocks(db, model)(there)
        result.add(f"get by key, {model}", rates(gets(db, model, there), effort), "1/s")
        fresh = database(open_memory(), schema())
        result.add(f"create, memory, {model}", rates(creates(fresh, model), effort), "1/s")
    plain, indexed = (database(open_memory(), schema()) for _ in range(2))
    with_index, without = side_by_side(creates(indexed, "Graded"), creates(plain, "Local"), effort)
    result.add("a create with an index, of one without", ratios(with_index, without), "ratio")
    for name, work in _parts().items():
        result.add(f"part of a create: {name}", [1e6 / rate for rate in rates(work, effort, CPU)], "µs CPU")
    with tempfile.TemporaryDirectory(prefix="fleet-benchmark-") as folder:
        db = database(open_file(Path(folder) / "device.db"), schema())
        result.add(f"create, file, {BLOCK} in a transaction", rates(in_blocks(db, "Reading"), effort, WALL), "1/s wall")
        result.add("create, file, by itself", rates(creates(db, "Local"), effort, WALL), "1/s wall")
        db.close()
        _large(result, Path(folder), effort)
    return result
