"""`fleet-agent get find create update upsert remove`: as a person or a script uses them. Called by pytest only."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_rig import SCHEMA, Shell
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.commands.grammar import COMMANDS
from agent.files import open_file
from agent.protocol.process import Context
from agent.protocol.schema import Schema


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def begun(shell: Shell) -> Shell:
    shell.ok("create", "Setting", "volume", "level=3")
    return shell


def test_what_is_created_is_printed_and_read_back(shell: Shell) -> None:
    made = shell.ok("create", "Setting", "name=volume", "level=3").row
    assert {name: made[name] for name in ("deviceId", "name", "level")} == {
        "deviceId": "dev-1", "name": "volume", "level": 3,
    }  # fmt: skip
    assert made["created"] == made["updated"]
    assert shell.ok("get", "Setting", "name=volume").row == made
    assert shell.ok("get", "Setting", "volume").row == made


def test_an_update_changes_what_is_given_and_null_removes(begun: Shell) -> None:
    assert begun.ok("update", "Setting", "volume", "mode=on").row["level"] == 3
    changed = begun.ok("update", "Setting", "volume", "level:=null").row
    assert "level" not in changed and changed["mode"] == "on"
    assert begun.ok("get", "Setting", "volume").row == changed


def test_an_upsert_creates_then_updates(shell: Shell) -> None:
    made = shell.ok("upsert", "Setting", "volume", "level=1").row
    changed = shell.ok("upsert", "Setting", "volume", "level=2").row
    assert changed["created"] == made["created"] and changed["level"] == 2


def test_what_is_removed_is_printed_and_can_be_created_again(begun: Shell) -> None:
    removed = begun.ok("remove", "Setting", "volume")
    assert removed.row["level"] == 3
    assert "there is no Setting device#dev-1 / setting#volume" in begun.refused("get", "Setting", "volume")
    assert begun.ok("create", "Setting", "-", stdin=removed.out).row["level"] == 3


def test_a_write_is_queued_for_the_cloud(begun: Shell) -> None:
    connection = open_file(begun.database)
    try:
        kinds = connection.execute("SELECT kind, pk, sk FROM outbox ORDER BY n").fetchall()
    finally:
        connection.close()
    assert kinds == [("sweep", "", ""), ("create", "device#dev-1", "setting#volume")]


def test_words_behind_options_count(begun: Shell) -> None:
    assert begun.ok("get", "Setting", "--json", "volume").row["name"] == "volume"
    assert begun.ok("update", "--json", "Setting", "volume", "--device", "dev-1", "level=-4").row["level"] == -4
    assert begun("get", "Setting", "--json", "volume", "--colour").code == 2


def test_given_fields_go_over_the_piped_object(shell: Shell) -> None:
    made = shell.ok("create", "Setting", "-", "level=2", stdin='{"name": "volume", "level": 1, "mode": "off"}').row
    assert (made["level"], made["mode"]) == (2, "off")


# --- find


def test_find_chooses_by_fields_and_by_the_beginning_of_the_key(shell: Shell) -> None:
    for group, id_, n in (("a", "1", "5"), ("a", "2", "6"), ("b", "1", "5")):
        shell.ok("create", "Thing", group, id_, f"n={n}")

    def ids(*words: str) -> list[str]:
        return [f"{row['group']}{row['id']}" for row in shell.ok("find", "Thing", *words).rows]

    assert ids() == ["a1", "a2", "b1"]
    assert ids("group=a") == ids("a") == ["a1", "a2"]
    assert ids("n=5") == ["a1", "b1"]
    assert ids("--limit", "1") == ["a1"]
    assert ids("n=7") == ids("--limit", "0") == []


def test_find_goes_by_an_index_and_backwards(shell: Shell) -> None:
    for group, id_ in (("a", "2"), ("b", "3"), ("c", "1")):
        shell.ok("create", "Thing", group, id_)

    def groups(*words: str) -> str:
        return "".join(row["group"] for row in shell.ok("find", "Thing", *words).rows)

    assert groups() == "abc"
    assert groups("--reverse") == "cba"
    assert groups("--index", "gs1") == "cab"
    assert groups("--index", "gs1", "--reverse", "--limit", "2") == "ba"
    assert groups("--index", "gs1", "id=2") == "a"


def test_the_output_of_find_is_one_json_object_a_line(begun: Shell) -> None:
    begun.ok("create", "Setting", "bass", "level=0.5")
    assert [(row["name"], row["level"]) for row in begun.ok("find", "Setting").rows] == [("bass", 0.5), ("volume", 3)]


def test_a_table_is_aligned_and_leaves_out_what_all_rows_share(begun: Shell) -> None:
    begun.ok("create", "Setting", "bass", "level=12")
    head, *rows = begun.ok("find", "Setting", "--table").out.splitlines()
    assert head.split() == ["name", "level", "created", "updated"]
    assert [row.split()[:2] for row in rows] == [["bass", "12"], ["volume", "3"]]
    assert {row.index(row.split()[1]) + len(row.split()[1]) for row in rows} == {head.index("level") + 5}


def test_a_table_fits_the_terminal_and_one_item_is_shown_whole(
    begun: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = "x" * 300
    begun.ok("create", "Report", "id=a", "level=1", f"text={long}")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("agent.protocol.commands.output.sys.stdout.isatty", lambda: True, raising=False)
    lines = begun("find", "Report").out.splitlines()
    assert max(map(len, lines)) == 100
    assert "…" in lines[1]
    assert f"text      {long}" in begun("get", "Report", "id=a").out.splitlines()


def test_a_table_for_a_file_or_a_pipe_is_not_cut(begun: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    begun.ok("create", "Report", "id=a", "level=1", f"text={'x' * 300}")
    monkeypatch.setenv("COLUMNS", "100")
    assert "x" * 300 in begun.ok("find", "Report", "--table").out


def test_what_a_terminal_would_act_on_is_shown_as_its_escape(shell: Shell) -> None:
    shell.ok("create", "Report", "id=a", "level=1", "text=a\x1b[2J\nb\u202e")
    assert "a\\u001b[2J\\nb\\u202e" in shell.ok("get", "Report", "id=a", "--table").out
    assert "a\\u001b[2J\\nb\\u202e" in shell.ok("find", "Report", "--table").out


def test_nothing_found_is_said_to_a_person_and_not_to_a_script(begun: Shell) -> None:
    assert begun.ok("find", "Report").out == ""
    said = begun("find", "Report", "--table")
    assert (said.code, said.out, said.err) == (0, "", "no such Report\n")


# --- types


@pytest.mark.parametrize(
    ("word", "name", "shown"),
    [
        ("n=1e3", "n", 1000), ("n=-0.25", "n", -0.25), ("n:=12", "n", 12),
        ("n=123456789012345678901234567890", "n", {"$N": "123456789012345678901234567890"}),
        ("yes=true", "yes", True), ("yes=false", "yes", False),
        ("at=2026-01-02", "at", "2026-01-02T00:00:00.000Z"),
        ("at=2026-01-02T03:04:05.678+02:00", "at", "2026-01-02T01:04:05.678Z"),
        ("at=1767322800000", "at", "2026-01-02T03:00:00.000Z"),
        ("until=2999-01-02T03:04:05Z", "until", "2999-01-02T03:04:05.000Z"),
        ('tags=["b", "a"]', "tags", ["a", "b"]), ("tags:=[2, 1]", "tags", [1, 2]),
        ("data=AAH/", "data", "AAH/"),
        ('list=[1, "two", null, {"x": true}]', "list", [1, "two", None, {"x": True}]),
        ('any={"x": {"$B": "AAH/"}}', "any", {"x": {"$B": "AAH/"}}),
        ("numbers=[1, 2.5]", "numbers", [1, 2.5]),
        ('place={"lat": 47.5, "since": "2026-01-02", "raw": "AA=="}', "place",
         {"lat": 47.5, "since": "2026-01-02T00:00:00.000Z", "raw": "AA=="}),
    ],
)  # fmt: skip
def test_a_value_is_read_by_the_type_of_its_field(shell: Shell, word: str, name: str, shown: object) -> None:
    made = shell.ok("create", "Thing", "group=g", "id=1", word).row
    assert made[name] == shown
    assert shell.ok("get", "Thing", "g", "1").row == made
    assert shell.ok("find", "Thing", word).row == made


def test_text_is_taken_as_it_is(shell: Shell) -> None:
    for text in ("", "5", "true", "null", '{"a": 1}', "a=b:=c", "-", "ü\n"):
        assert shell.ok("upsert", "Report", "id=a", "level=1", f"text={text}").row["text"] == text


def test_what_get_prints_can_be_piped_into_an_update(shell: Shell) -> None:
    words = ["n=1", "at=2026-01-02", 'tags=["a"]', "data=AAH/", 'any={"x": {"$B": "AA=="}}', 'place={"raw": "AA=="}']
    made = shell.ok("create", "Thing", "g", "1", *words)
    changed = shell.ok("update", "Thing", "-", stdin=made.out).row
    assert {**changed, "updated": ""} == {**made.row, "updated": ""}


# --- which database, which schema, whose device


def test_database_and_schema_can_be_named(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (shell.folder / "schema.json5").rename(other / "its.json5")
    places = ("--database", "other/a.db", "--schema", "other/its.json5")
    shell.ok("create", "Setting", "volume", *places)
    assert shell.ok("find", "Setting", *places).row["name"] == "volume"
    monkeypatch.setenv("FLEET_DATABASE", "other/a.db")
    monkeypatch.setenv("FLEET_SCHEMA", "other/its.json5")
    assert shell.ok("find", "Setting").row["name"] == "volume"


def test_the_schema_beside_the_database_is_taken(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shell.ok("create", "Setting", "volume")
    monkeypatch.chdir(tmp_path.parent)
    assert shell.ok("find", "Setting", "--database", str(shell.database)).row["name"] == "volume"


def test_whose_device_it_is_can_be_told_from_the_items(begun: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEET_DEVICE")
    assert begun.ok("get", "Setting", "volume").row["deviceId"] == "dev-1"
    begun.ok("create", "Report", "level=1")
    assert "no Setting" in begun.refused("get", "Setting", "volume", "--device", "dev-2")
    begun.ok("create", "Setting", "volume", "--device", "dev-2")
    line = begun.refused("get", "Setting", "volume")
    assert "several devices: dev-1, dev-2" in line and "--device" in line


def test_a_new_database_wants_to_know_whose_device_it_is(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEET_DEVICE")
    assert shell.refused("create", "Setting", "volume") == "Setting.deviceId: is required (--device says whose)"
    assert "(--device says whose)" in shell.refused("upsert", "Setting", "volume")
    assert shell.ok("create", "Setting", "deviceId=dev-3", "name=volume").row["deviceId"] == "dev-3"


# --- errors


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["create", "Seting", "volume"], "schema.json5: no model 'Seting' (did you mean 'Setting'?)"),
        (["create", "Audit", "text=x"], "schema.json5: Audit lives in the cloud alone (`fleet-cloud` has its items)"),
        (["create", "Config", "text=x"],
         "Config syncs down: the device cannot write it (change it in the cloud)"),
        (["create", "Setting", "volume"], "exists already (`update` changes it, `upsert` does either)"),
        (["update", "Setting", "bass", "level=1"], "does not exist (`create` makes it, `upsert` does either)"),
        (["get", "Setting", "bass"], "there is no Setting device#dev-1 / setting#bass (`fleet-agent find Setting`)"),
        (["remove", "Setting", "bass"], "there is no Setting device#dev-1 / setting#bass"),
        (["get", "Setting"], "Setting: needs name for the key 'setting#${name}'"),
        (["get", "Setting", "volume", "bass"], "'bass': expected FIELD=VALUE (the key of Setting has: name)"),
        (["update", "Setting", "volume", "lvel=1"], "Setting has no field 'lvel' (did you mean 'level'?)"),
        (["find", "Setting", "lvel=1"], "Setting has no field 'lvel' (did you mean 'level'?)"),
        (["update", "Setting", "volume", "level=loud"], "Setting.level: expected a number, found 'loud'"),
        (["update", "Setting", "volume", "level="], "Setting.level: expected a number, found ''"),
        (["update", "Setting", "volume", "level=NaN"], "Setting.level: expected a number, found 'NaN'"),
        (["update", "Setting", "volume", "level:=NaN"], "no JSON: NaN is no number"),
        (["update", "Setting", "volume", "level:=1e999"], "Setting.level: 1E+999 is out of the range of numbers"),
        (["update", "Setting", "volume", "level:=\"3\""], "Setting.level: expected a number, found '3'"),
        (["update", "Setting", "volume", "mode=loud"], "Setting.mode: expected one of on, off; found 'loud'"),
        (["update", "Setting", "volume", "level:=lo"], "level:=lo: no JSON"),
        (["update", "Setting", "volume", "level=1", "level=2"], "'level=2': level is given twice"),
        (["update", "Setting", "volume", "updated=2026-01-02"], "Setting.updated: the database itself keeps"),
        (["update", "Setting", "volume", "deviceId=dev-2"], "Setting.deviceId: 'dev-2', but this is 'dev-1'"),
        (["create", "Setting", "volume", "--device", "a/b"], "'a/b' is no device's id"),
        (["create", "Setting", "volume", "--account", "all"], "'all' is no account's id"),
        (["create", "Setting", "name=\udcff"], "half a surrogate pair"),
        (["create", "Setting", "x" * 2000], "has more than 1024 bytes"),
        (["create", "Report", "id=a"], "Report.level: is required"),
        (["create", "Report", "level=1", "text=no!"], "Report.text: 'no!' does not match"),
        (["create", "Report", "level=1", "text=" + "x" * 100_000], "at most 98304"),
        (["create", "Thing", "g", "1", "yes=1"], "Thing.yes: expected true or false, found '1'"),
        (["create", "Thing", "g", "1", "at=soon"], "Thing.at: expected a date as 2026-01-02T03:04:05Z"),
        (["create", "Thing", "g", "1", "at=99999999999999999"], "Thing.at: expected a date"),
        (["create", "Thing", "g", "1", "at:=true"], "Thing.at: expected a date"),
        (["create", "Thing", "g", "1", "data=not base64"], "Thing.data: expected bytes as base64 text"),
        (["create", "Thing", "g", "1", "tags=a,b"], "Thing.tags: expected JSON, as tags='[\"a\", \"b\"]'"),
        (["create", "Thing", "g", "1", "tags=[]"], "Thing.tags: an empty set"),
        (["create", "Thing", "g", "1", "any=[1]"], "Thing.any: expected an object, found [1]"),
        (["create", "Thing", "g", "1", "any:=" + "[" * 5000], "no JSON: nested too deep"),
        (["create", "Thing", "g", "1", 'place={"lon": 1}'], "Thing.place has no field 'lon'"),
        (["create", "Thing", "g", "1", 'place={"lat": "x"}'], "Thing.place.lat: expected a number, found 'x'"),
        (["create", "Thing", "g", "1", 'numbers=["x"]'], "expected a number, found 'x'"),
        (["create", "Free", "text=x"], "Free: needs 'pk': it has no template"),
        (["find", "Setting", "--index", "gs9"], "there is no index 'gs9' (did you mean 'gs1'?)"),
        (["find", "Setting", "--limit", "-1"], "--limit -1"),
        (["find", "Setting", "--json", "--table"], "two ways to print"),
        (["find", "Setting", "--schema", "no.json5"], "no.json5: cannot be read: no such file or directory"),
    ],
    ids=lambda value: ascii(value)[:60],
)  # fmt: skip
def test_bad_input_is_one_line_that_says_what_and_what_to_do(begun: Shell, words: list[str], expected: str) -> None:
    before = begun.ok("find", "Setting").out, begun.ok("find", "Report").out, begun.ok("find", "Thing").out
    if "no.json5" in words:  # a schema's own problems stand alone, as `schema check` has them
        said = begun(*words)
        assert (said.code, said.out, said.err) == (2, "", f"{expected}\n")
    else:
        assert expected in begun.refused(*words)
    assert before == (begun.ok("find", "Setting").out, begun.ok("find", "Report").out, begun.ok("find", "Thing").out)


@pytest.mark.parametrize(
    ("stdin", "expected"),
    [
        ("", "standard input: no JSON"), ("[1]", "standard input: expected one JSON object"),
        ('{"name": "a", "lvel": 1}', "Setting has no field 'lvel'"), ('{"name": 5}', "Setting.name: expected a text"),
        ('{"name": "\\ud800"}', "half a surrogate pair"), ('{"name": "a", "deviceId": "x"}', "but this is 'dev-1'"),
    ],
)  # fmt: skip
def test_bad_piped_input_is_refused(shell: Shell, stdin: str, expected: str) -> None:
    assert expected in shell.refused("create", "Setting", "-", stdin=stdin)


def test_no_utf8_on_standard_input_is_refused(shell: Shell) -> None:
    assert "standard input: no UTF-8" in shell.refused("create", "Setting", "-", stdin=b'{"name": "\xff"}')


def test_a_command_that_reads_begins_no_database(shell: Shell) -> None:
    for words in (["get", "Setting", "a"], ["find", "Setting"], ["update", "Setting", "a"], ["remove", "Setting", "a"]):
        line = shell.refused(*words)
        assert line == "agent.db: no such database (name it with --database or $FLEET_DATABASE; `create` begins one)"
    assert not shell.database.exists()


def test_a_file_that_cannot_be_used_is_named_with_what_to_do(
    begun: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.db").write_text("hello, this is no database" * 10)
    (tmp_path / "empty.db").write_text("")
    newer = tmp_path / "newer.db"
    data = bytearray(begun.database.read_bytes())
    data[60:64] = (99).to_bytes(4, "big")
    newer.write_bytes(data)
    cases = {
        "text.db": "not a database",
        "empty.db": "empty",
        "newer.db": "database of version 99",
        ".": "a folder",
        "none/agent.db": "no such database",
        ":memory:": "is no file",
    }
    for name, expected in cases.items():
        line = begun.refused("find", "Setting", "--database", name, "--schema", "schema.json5")
        assert expected in line and line.endswith(")"), line
    assert newer.read_bytes() == data
    assert (tmp_path / "empty.db").read_bytes() == b""


def test_a_database_in_use_names_the_process_that_has_it(begun: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("agent.commands.opening.pause", pauses.append)
    connection = open_file(begun.database)
    try:
        assert f"{begun.database}: in use by this process" in begun.refused("find", "Setting")
        assert 0.3 < sum(pauses) < 1  # so long it waits for another command
    finally:
        connection.close()
    begun.ok("find", "Setting")


def test_a_file_that_may_not_be_written_is_named(begun: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.files.os.access", lambda *_, **__: False)
    line = begun.refused("find", "Setting")
    assert line.startswith(f"{begun.database}: read-only (give ")


def test_a_damaged_item_is_said_with_its_file(begun: Shell) -> None:
    connection = open_file(begun.database)
    connection.execute("UPDATE outbox SET image=x'c1' WHERE kind='create'")
    connection.close()
    line = begun.refused("find", "Setting")
    assert line.startswith(f"{begun.database}: damaged: ") and "backup" in line


def test_an_error_of_the_program_says_that_it_is_one(begun: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("agent.commands.items.properties", fail)
    said = begun("find", "Setting")
    assert said.code == 4
    (line,) = said.err.splitlines()
    assert line.startswith("fleet-agent: internal error: ZeroDivisionError: on purpose at ") and "report" in line


def test_an_interrupt_is_quiet(begun: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.commands.items.properties", interrupt)
    said = begun("find", "Setting")
    assert (said.code, said.out, said.err) == (130, "", "")


WORDS = st.sampled_from(
    ["Setting", "Report", "Thing", "Free", "Config", "volume", "a", "", "-", "--", "--json", "--table", "--limit", "-1",
     "0", "--index", "gs1", "--reverse", "--device", "dev-1", "x y", "--account", "name=volume", "level=1", "=", ":=",
     "level:=[1", "level:=null", "pk=p", "sk=s", "pk:=5", "any={}", "at=0", "tags=[]", "until=1", "=x", "n=1e200",
     "--retry", "--drop", "--partial", "--model", "deviceId:=null", "data=A", "updated=1", "group=g", "id=\n"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([command.name for command in COMMANDS if command.name not in ("watch", "export", "backup")]),
    st.lists(WORDS, max_size=6),
    st.sampled_from([b"", b"{}", b'{"level": 1}', b"\xff", b'{"model": "Setting"}\n', b"null"]),
)
def test_whatever_is_typed_is_done_or_refused_in_words(begun: Shell, name: str, words: list[str], stdin: bytes) -> None:
    said = begun(name, *words, stdin=stdin)
    assert said.code in (0, 2), said
    assert "Traceback" not in said.err
    assert said.code == 0 or said.err


def test_the_schema_of_the_tests_has_a_field_of_every_type() -> None:
    model = Schema.parse(SCHEMA, "schema").models["Thing"]
    types = {field.type for field in model.fields.values()}
    assert types >= {"string", "number", "boolean", "date", "set", "buffer", "array", "object"}
    assert model.key({"group": "g", "id": "1"}, Context("d", "")) == ("device#d", "thing#g#1")
