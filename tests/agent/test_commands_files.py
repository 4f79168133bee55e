"""`fleet-agent backup compact export import rejected`: the whole database, and what the cloud refused of it.

Called by pytest only.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command_rig import SCHEMA, Shell

from agent.commands import rejected
from agent.files import open_file


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def begun(shell: Shell) -> Shell:
    shell.ok("create", "Setting", "volume", "level=3")
    shell.ok("create", "Report", "id=a", "level=0.5")
    words = [
        "n=123456789012345678901234567890",
        'tags=["x"]',
        "data=AAH/",
        "at=2026-01-02",
        'any={"x": {"$B": "AA=="}}',
    ]
    shell.ok("create", "Thing", "g", "1", *words)
    return shell


def everything(shell: Shell, *words: str) -> list[Any]:
    """The items of the models of `begun`, without their stamps."""
    found = []
    for model in ("Setting", "Report", "Thing"):
        for row in shell.ok("find", model, *words).rows:
            found.append({name: value for name, value in row.items() if name not in ("created", "updated")})
    return found


# --- backup, compact


def test_a_backup_is_a_database_of_the_same_items(begun: Shell) -> None:
    said = begun.ok("backup", "copy.db").out
    assert said == f"copy.db: {(begun.folder / 'copy.db').stat().st_size} bytes\n"
    assert everything(begun, "--database", "copy.db") == everything(begun)
    begun.ok("remove", "Setting", "volume")
    assert begun.ok("get", "Setting", "volume", "--database", "copy.db").row["level"] == 3


def test_a_backup_is_written_over_nothing(begun: Shell) -> None:
    (begun.folder / "there").write_text("precious")
    assert "there: exists already (name another file: nothing is written over)" in begun.refused("backup", "there")
    assert (begun.folder / "there").read_text() == "precious"
    assert "agent.db: exists already" in begun.refused("backup", "agent.db")
    assert "none/copy.db" in begun.refused("backup", "none/copy.db")
    assert sorted(path.name for path in begun.folder.iterdir()) == [
        "agent.db",
        "agent.db-lock",
        "schema.json5",
        "there",
    ]


def test_compact_says_what_it_gave_back(begun: Shell) -> None:
    rows = [{"model": "Thing", "key": ["device#dev-1", f"thing#g#{n}"], "item": thing(n)} for n in range(10, 99)]
    begun.ok("import", stdin="\n".join(map(json.dumps, rows)))
    for n in range(10, 99):
        begun.ok("remove", "Thing", "g", str(n))
    before = begun.database.stat().st_size
    words = begun.ok("compact").out.split()
    assert words[0] == "agent.db:" and int(words[1]) == before
    assert int(words[4]) == begun.database.stat().st_size < before


def test_figures_are_json_for_programs(begun: Shell) -> None:
    said = begun.ok("backup", "copy.db", "--json").row
    assert said == {"file": "copy.db", "bytes": (begun.folder / "copy.db").stat().st_size}
    assert set(begun.ok("compact", "--json").row) == {"file", "bytes_before", "bytes_after"}
    lines = begun.ok("export").out
    none = {"created": 0, "updated": 0, "unchanged": 0, "refused": []}
    assert begun.ok("import", "--json", stdin=lines).row == {**none, "unchanged": 3}
    said = begun("import", "--json", stdin="x")
    assert said.code == 2 and said.row["refused"][0]["line"] == 1


def thing(n: int) -> dict[str, Any]:
    key = {"gs1pk": "things", "gs1sk": str(n)}
    made = {"_type": "Thing", "deviceId": "dev-1", "group": "g", "id": str(n), "any": {"x": "y" * 1000}}
    return {**made, **key, "created": 1, "updated": 1}


# --- export, import


def test_what_is_exported_is_imported_as_it_was(begun: Shell) -> None:
    lines = begun.ok("export").out
    assert [row["model"] for row in map(json.loads, lines.splitlines())] == ["Report", "Setting", "Thing"]
    said = begun.ok("import", "--database", "new.db", stdin=lines)
    assert said.out == "3 created, 0 updated, 0 unchanged\n"
    assert everything(begun, "--database", "new.db") == everything(begun)
    assert begun.ok("import", "--database", "new.db", stdin=lines).out == "0 created, 0 updated, 3 unchanged\n"


def test_an_imported_item_is_a_write_of_this_device(begun: Shell) -> None:
    lines = begun.ok("export", "--model", "Setting").out
    begun.ok("import", "--database", "new.db", stdin=lines)
    connection = open_file(begun.folder / "new.db")
    try:
        kinds = connection.execute("SELECT kind, sk FROM outbox ORDER BY n").fetchall()
    finally:
        connection.close()
    assert kinds == [("sweep", ""), ("create", "setting#volume")]


def test_export_and_import_take_files_and_models(begun: Shell) -> None:
    assert begun.ok("export", "out.jsonl", "--model", "Setting", "--model", "Thing").out == "out.jsonl: 2 items\n"
    begun.ok("update", "Setting", "volume", "level=9")
    assert begun.ok("import", "out.jsonl").out == "0 created, 1 updated, 1 unchanged\n"
    assert begun.ok("get", "Setting", "volume").row["level"] == 3
    assert "out.jsonl: exists already" in begun.refused("export", "out.jsonl")
    assert "no model 'Setings' (did you mean 'Setting'?)" in begun.refused("export", "x", "--model", "Setings")
    assert not (begun.folder / "x").exists()


def test_a_failed_export_leaves_no_file(begun: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.commands.files.os.fsync", raise_full)
    assert "no space left on device" in begun.refused("export", "out.jsonl")
    assert not list(begun.folder.glob("out*"))


def raise_full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


BAD_LINES = (
    ('{"model": "Setting"', "no JSON"),
    ("[]", "expected an object with model and item"),
    ('{"model": "Nothing", "key": ["a", "b"], "item": {}}', "Nothing"),
    ('{"model": "Setting", "key": ["device#dev-1", "setting#x"], "item": {"level": "loud"}}', "Setting"),
    ('{"model": "Config", "key": ["device#dev-1", "config#"], "item": {"_type": "Config", "deviceId": "dev-1"}}',
     "the device cannot write it"),
    ('{"model": "Setting", "key": ["device#dev-2", "setting#x"], "item": {"_type": "Setting", "deviceId": "dev-2", '
     '"name": "x", "created": 1, "updated": 1}}', "another device's"),
    ('{"model": "Thing", "key": ["device#dev-1", "thing#g#7"], "item": {"n": NaN}}', "NaN"),
)  # fmt: skip


def test_refused_lines_are_named_and_nothing_is_imported(begun: Shell) -> None:
    before = everything(begun)
    good = begun.ok("export", "--model", "Setting").out.replace("volume", "bass")
    text = good + "\n" + "\n".join(line for line, _ in BAD_LINES) + "\n"
    for words in ((), ("--partial",)):
        said = begun("import", "-", *words, stdin=text)
        assert said.code == 2
        errors = said.err.splitlines()
        for number, (_, expected) in enumerate(BAD_LINES, 3):  # after the good line and an empty one
            line = errors[number - 3]
            assert line.startswith(f"standard input:{number}: ") and expected in line, line
        if not words:
            assert errors[-1] == "fleet-agent: nothing was imported (--partial keeps what can be)"
            assert said.out == "" and everything(begun) == before
        else:
            assert said.out == f"1 created, 0 updated, 0 unchanged, {len(BAD_LINES)} refused\n"
            assert begun.ok("get", "Setting", "bass").row["level"] == 3


def test_many_refused_lines_are_counted(begun: Shell) -> None:
    said = begun("import", stdin="x\n" * 100)
    assert len(said.err.splitlines()) == 22
    assert said.err.splitlines()[20] == "and 80 more lines are refused"


def test_no_utf8_is_refused_with_its_line(begun: Shell) -> None:
    said = begun("import", stdin=b"\n\xff\n")
    assert (said.code, said.err.splitlines()[0]) == (2, "standard input:2: no UTF-8")


def test_a_file_that_cannot_be_read_is_named(begun: Shell) -> None:
    assert begun.refused("import", "none.jsonl") == "none.jsonl: no such file or directory"
    assert begun.refused("import", ".") == ".: is a directory"


def test_items_of_a_device_that_nobody_named_are_refused_with_a_hint(
    begun: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = begun.ok("export").out
    monkeypatch.delenv("FLEET_DEVICE")
    said = begun("import", "--database", "new.db", stdin=lines)
    assert said.code == 2 and "--device says whose" in said.err.splitlines()[-1]


# --- rejected


@pytest.fixture
def refusing(begun: Shell) -> Shell:
    """With two writes that the cloud refused, and a change from the cloud that could not be applied."""
    connection = open_file(begun.database)
    insert = "INSERT INTO dead_letter VALUES(?, 1767322800000, ?, ?, ?, ?, 5, ?)"
    (image,) = connection.execute("SELECT image FROM outbox WHERE sk='setting#volume' ORDER BY n").fetchone()
    connection.execute("DELETE FROM outbox WHERE sk='setting#volume'")
    connection.execute(insert, (1, "device#dev-1", "setting#volume", "create", image, "unique"))
    connection.execute(insert, (2, "device#dev-1", "report#a", "delete", None, "strange"))
    connection.execute(insert, (3, "device#dev-1", "config#", "row", b"\xc1", "malformed"))
    connection.close()
    return begun


def test_rejected_writes_are_listed_with_their_reasons(refusing: Shell) -> None:
    first, second, third = refusing.ok("rejected").rows
    assert (first["n"], first["what"], first["model"], first["code"]) == (1, "create", "Setting", "unique")
    assert first["at"] == "2026-01-02T03:00:00.000Z"
    assert first["key"] == ["device#dev-1", "setting#volume"]
    assert first["item"]["level"] == 3
    assert first["reason"] == "another item has this unique value"
    assert (second["what"], second["item"], second["reason"]) == ("delete", None, "")
    assert (third["what"], third["model"], third["item"]) == ("from the cloud", "Config", None)
    head, *rows = refusing.ok("rejected", "--table").out.splitlines()
    assert head.split() == ["N", "when", "what", "item", "code", "reason"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]


def test_a_retried_write_goes_to_the_outbox(refusing: Shell) -> None:
    assert refusing.ok("rejected", "--retry", "1").out == "1: queued to be sent again\n"
    assert [row["n"] for row in refusing.ok("rejected").rows] == [2, 3]
    assert refusing.ok("get", "Setting", "volume").row["level"] == 3


def test_dropped_ones_are_gone(refusing: Shell) -> None:
    assert refusing.ok("rejected", "--drop", "3", "2").out.splitlines() == ["2: dropped", "3: dropped"]
    assert refusing.ok("rejected", "--discard").out == "1: dropped\n"
    assert refusing.ok("rejected").out == ""
    assert refusing("rejected", "--drop").err == refusing("rejected", "--table").err == "nothing was rejected\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--retry", "1", "7"], "there is no rejected write 7 (there: 1, 2, 3)"),
        (["--drop", "7"], "there is no rejected write 7 (there: 1, 2, 3)"),
        (["--retry", "1", "3"], "3 is a change from the cloud: there is nothing to send (--drop forgets it)"),
        (["--retry", "1", "--drop", "2"], "--retry and --drop at once (name one)"),
    ],
)
def test_what_cannot_be_done_with_one_is_done_with_none(refusing: Shell, words: list[str], expected: str) -> None:
    assert refusing.refused("rejected", *words) == expected
    assert len(refusing.ok("rejected").rows) == 3


def test_every_code_of_the_relay_has_its_reason(root: Path) -> None:
    """Its own, and those of the model's check, which it passes on; beside them the device's own for a row."""
    ingest = (root / "cloud/ingest.py").read_text()
    codes = set(re.findall(r'_reject\("([\w-]+)"\)|refused\S* ?= "([\w-]+)"|refused\.update\(.*, "([\w-]+)"\)', ingest))
    own = {code for group in codes for code in group if code}
    assert own >= {"direction", "foreign", "malformed", "size", "unknown-model", "unique", "invalid"}
    checks = [root / "agent/protocol/onetable" / f"{name}.py" for name in ("fields", "model", "unique", "writing")]
    passed_on = set(re.findall(r'refuse\("([\w-]+)"', "".join(path.read_text() for path in checks))) - {"index"}
    assert passed_on >= {"enum", "key", "model", "required", "scope", "type", "validate"}
    assert own | passed_on | {"oversize"} == set(rejected._REASONS)


# --- another schema


def test_a_schema_that_differs_from_the_last_one_is_said(begun: Shell) -> None:
    (begun.folder / "schema.json5").write_text(SCHEMA.replace("mode: {type: 'string', enum: ['on', 'off']},", ""))
    said = begun("get", "Setting", "volume")
    assert said.code == 0 and json.loads(said.out)["level"] == 3
    assert "not the schema that the database had: Setting.mode: field removed" in said.err
    begun.ok("get", "Setting", "volume")  # said once
