"""Mistakes in scenarios: each is found, at its place, with what to do; several at once; and never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenario_rig import GOOD, changed, loaded, problems, write

from agent.protocol.errors import InputError
from fleet.scenario import document
from fleet.scenario.load import load
from fleet.scenario.shipped import schema_path

# One mistake each: what is replaced, by what, the line of the mistake, words of the message.
MISTAKES = [
    ("duration: 30m", "duration: 30m\nduratoin: 5m", 4, "unknown key (did you mean duration?)"),
    ("count: 6", "cuont: 6", 5, "did you mean count?"),
    ("count: 6", "count: -6", 5, "at least 1, found -6"),
    ("count: 6", "count: many", 5, "expected a whole number, found 'many'"),
    ("count: 6", "count: true", 5, "expected a whole number, found true"),
    ("count: 6", "count: 6.5", 5, "expected a whole number"),
    ("duration: 30m", "duration: 0s", 3, "impossible duration"),
    ("duration: 30m", "duration: 30", 3, "expected a duration such as"),
    ("name: shop", "name: home", 6, "a second group named home (first in line 5)"),
    ("name: command", "name: status", 9, "a second workload named status"),
    ("name: cut, ", "name: power-cut, ", 14, "a second fault named power-cut"),
    ("name: small", "name: small\nname: big", 2, "is given twice (first in line 1)"),
    ("link: lte", "link: ltee", 5, "did you mean lte?"),
    ("link: lte", "link: [lte]", 5, "expected a mapping"),
    ("link: lte", "link: {delay: 5ms, jitter: 9ms}", 5, "must not be more than `delay`"),
    ("link: lte", "link: {loss: 60%}", 5, "bursts so short"),
    ("account: beta", "account: all", 6, "cannot be an account"),
    ("schema: fleet.json5", "schema: flet.json5", 2, "no such file"),
    ("schema: fleet.json5", "schema: 5", 2, "expected text"),
    ("kind: power-cut", "kind: powercut", 13, "did you mean power-cut?"),
    ("kind: power-cut, ", "", 13, "key kind is missing"),
    ("region: east}}", "region: eats}}", 12, "unknown region 'eats' (did you mean east?)"),
    ("target: {share: 40%}", "target: {share: 0}", 14, "aimed at no device: a share of 0"),
    ("target: {share: 40%}", "target: {group: hoem}", 14, "did you mean home?"),
    ("target: {share: 40%}", "target: {group: home, region: west}", 14, "aimed at no device: none meets"),
    ("target: {share: 40%}", "target: {devices: [home-0001, home-0077]}", 14, "unknown device 'home-0077'"),
    ("at: 10m, duration: 2m", "at: 40m, duration: 2m", 12, "begins after the scenario's end, 30m"),
    ("at: 10m, duration: 2m", "at: 29m, duration: 2m", 12, "at 29m it lasts beyond the scenario's end"),
    ("at: 10m, duration: 2m", "at: 10m", 12, "key duration is missing (how long it lasts)"),
    ("at: 10m, duration: 2m", "at: 10m, rate: 1/h, duration: 2m", 12, "not both"),
    ("at: 10m, duration: 2m", "duration: 2m", 12, "needs `at` or `rate`"),
    ("rate: 4/h, off", "rate: 4, off", 13, "expected a rate such as"),
    ("rate: 4/h, off", "rate: 4/h, from: 50m, off", 13, "begins after the scenario's end"),
    ("off: [10s, 30s]", "off: [30s, 10s]", 13, "is more than the most"),
    ("model: Status", "model: Sttaus", 8, "no model 'Sttaus' in the schema (did you mean Status?)"),
    ("model: Status", "model: Config", 8, "a device may not write Config"),
    ("model: Status", "model: Audit", 8, "a device may not write Audit"),
    ("model: Command", "model: Status", 9, "the cloud may not write Status"),
    ("model: Command", "model: Diagnostic", 9, "the cloud may not write Diagnostic"),
    ("model: Status, every", "model: Status, action: create, every", 8, "its key has no variable of its own"),
    ("model: Status, every", "model: Status, items: 3, every", 8, "its key has no variable of its own"),
    ("side: device", "side: devise", 8, "did you mean device?"),
    ("every: 60s, jitter", "jitter", 8, "needs `every` or `rate`"),
    ("bytes: [200, 400]", "bytes: [400, 200]", 8, "is more than the most"),
    ("bytes: [200, 400]", "life: 5m", 8, "Status has no ttl field to end an item's life"),
    ("bytes: [200, 400]", "life: [5m, 2m]", 8, "is more than the most"),
    ("bytes: [200, 400]", "keep: 5", 8, "goes with `action: create` only"),
    ("bytes: [200, 400]", "groups: [hmoe]", 8, "unknown group 'hmoe' (did you mean home?)"),
    ("faults:", "cloud: {feed_retention: 6m}\nfaults:", 11, "longer than record_life + worker_life, 6m"),
    ("faults:", "cloud: {workers: 0}\nfaults:", 11, "at least 1, found 0"),
    ("faults:", "expect: {checks: [convergance]}\nfaults:", 11, "did you mean convergence?"),
    ("faults:", "expect: {thresholds: [latency_s.up.p9 < 5s]}\nfaults:", 11, "unknown number 'latency_s.up.p9'"),
    ("faults:", "expect: {thresholds: [converged_after_s]}\nfaults:", 11, "cannot be read"),
    ("faults:", "expect: {thresholds: [counts.reboots < 5s]}\nfaults:", 11, "expected a number for counts.reboots"),
    ("faults:", "phases: {warm_up: 2h}\nfaults:", 11, "ends after the scenario's end"),
    ("faults:", "phases: {quiesce: 2h}\nfaults:", 11, "must not be shorter than `quiesce`"),
    ("faults:", "faults:\n  - {kind: messages}", 12, "does nothing"),
    ("faults:", "faults:\n  - {kind: messages, hop: device-to-broker, qos: 1, lose: 5%}", 12, "no message of QoS 1"),
    ("faults:", "faults:\n  - {kind: messages, hop: device-to-relay, lose: 5%}", 12, "did you mean device-to-broker?"),
    ("faults:", "faults:\n  - {kind: clock, at: 5m}", 12, "give `jump` or `drift`"),
    ("faults:", "faults:\n  - {kind: table-throttle, share: 100%}", 12, "nothing is ever written"),
    ("faults:", "faults:\n  - {kind: stream-delay, delay: 10m}", 12, "shorter than cloud.record_life, 5m"),
    ("faults:", "faults: nothing\nfautls:", 11, "expected a list, found 'nothing'"),
    ("name: home, count: 6", "name: home, ids: [a, b], count: 6", 5, "2 ids for 6 devices"),
    ("name: home, count: 6", "name: home, ids: [shop-0001], count: 1", 5, "a second device named shop-0001"),
    ("name: home, count: 6", "name: home, ids: [a/b], count: 1", 5, "'a/b' cannot be a device's id"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "words"), MISTAKES)
def test_a_mistake_is_found_at_its_place(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    found = problems(tmp_path, changed(old, new))
    assert any(problem.line == line and words in str(problem) for problem in found), "\n".join(map(str, found))
    assert all(problem.file.endswith("s.yaml") and problem.line and problem.column for problem in found)


def test_the_scenario_that_the_mistakes_are_made_in_is_right(tmp_path: Path) -> None:
    assert loaded(tmp_path).device_count == 9


def test_a_place_is_the_column_of_the_key_or_of_the_value(tmp_path: Path) -> None:
    (unknown,) = problems(tmp_path, changed("count: 6", "cont: 2, count: 6"))
    assert (unknown.line, unknown.column, unknown.key) == (5, 18, "devices[0].cont")
    (wrong,) = problems(tmp_path, changed("count: 6", "count: x"))
    assert (wrong.line, wrong.column, wrong.key) == (5, 25, "devices[0].count")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD
    chosen = [MISTAKES[i] for i in (1, 8, 13, 20, 22, 34, 42)]
    for old, new, _, _ in chosen:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    found = "\n".join(map(str, problems(tmp_path, text)))
    for _, _, line, words in chosen:
        assert words in found, (line, words, found)


def test_the_same_mistake_is_told_once(tmp_path: Path) -> None:
    found = problems(tmp_path, changed("model: Status", "model: Sttaus"))
    assert len(found) == 1


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but a comment\n", "---\n", "null\n"])
def test_an_empty_file_is_called_empty(tmp_path: Path, text: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert "the file is empty" in str(problem)


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "42"])
def test_a_file_without_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert "expected a mapping" in problem.message


@pytest.mark.parametrize(
    ("text", "line"),
    [("name: a\n  b: c: d\n", 2), ("name: [1, 2\n", 2), ("name: 'x\n", 2), ("a: b\n\tc: d\n", 2), ("a: *nothing\n", 1)],
)
def test_yaml_that_does_not_parse_has_a_place(tmp_path: Path, text: str, line: int) -> None:
    found = problems(tmp_path, text)
    assert found[0].line == line and found[0].column >= 1


def test_a_control_character_has_a_place(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "name: a\nb: \x01\n")
    assert (problem.line, problem.column) == (2, 4)
    assert "U+0001" in problem.message


def test_an_escaped_half_of_a_character_is_refused_and_a_pair_is_joined(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, changed("name: small", 'name: small\ndescription: "\\ud83d"'))
    assert (problem.line, problem.column) == (2, 14) and "surrogate" in problem.message
    scenario = loaded(tmp_path, changed("name: small", 'name: small\ndescription: "\\ud83d\\ude00"'))
    assert scenario.description == "\U0001f600"


def test_a_file_that_is_not_utf8_has_a_place(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, b"name: a\nb: caf\xe9\n")
    assert (problem.line, problem.column) == (2, 7)
    assert "0xe9" in problem.message


def test_a_second_document_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, GOOD + "---\nname: again\n")
    assert problem.line == GOOD.count("\n") + 1 and "second document" in problem.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path / "nothing.yaml")
    assert "nothing.yaml: cannot be read: no such file" in str(caught.value)
    with pytest.raises(InputError, match="directory"):
        load(tmp_path)


def test_a_huge_file_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    with pytest.raises(InputError, match="larger than 1 MB"):
        load(path)


@pytest.mark.parametrize("text", ["[" * 10_000, "{a: " * 10_000, "- " * 10_000, "a:\n" + "".join(
    " " * i + "a:\n" for i in range(1, 200))])  # fmt: skip
def test_deep_nesting_is_refused(tmp_path: Path, text: str) -> None:
    found = problems(tmp_path, text)
    assert "nested more than" in found[0].message and found[0].line


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 12):
        lines.append(f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]")
    found = problems(tmp_path, "\n".join(lines))
    assert f"more than {document.VALUES_MAX} values" in found[0].message


def test_an_alias_of_what_is_around_it_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, "a: &a [1, *a]\n")
    assert "alias *a" in found[0].message


def test_an_alias_may_be_used_again_and_changed_by_an_override(tmp_path: Path) -> None:
    text = GOOD.replace("link: lte", "link: &l {profile: lte, loss: 1%}").replace(
        "region: west", "region: west, link: *l"
    )
    scenario = loaded(tmp_path, text, ("devices.home.link.loss=3%",))
    assert [group.link.loss for group in scenario.devices] == [0.03, 0.01]


def test_tags_make_no_objects(tmp_path: Path) -> None:
    (problem, *_) = problems(tmp_path, changed("name: small", "name: !!python/object/apply:os.getcwd []"))
    assert problem.line == 1 and "has no meaning here" in problem.message


def test_mistakes_in_the_schema_are_among_the_problems(tmp_path: Path) -> None:
    write(tmp_path, "{version: 1, models: {A: {pk: ", "bad.json5")
    found = problems(tmp_path, changed("fleet.json5", "bad.json5").replace("count: 6", "count: -6"))
    assert any(problem.file.endswith("bad.json5") and problem.line for problem in found)
    assert any("at least 1, found -6" in str(problem) for problem in found)


def test_a_model_without_rev_cannot_be_written(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "scenarios" / "schemas" / "fleet.json5"
    text = shipped.read_text().replace("rev: {type: 'number', required: true}", "rev: {type: 'string', required: true}")
    write(tmp_path, text, "own.json5")
    found = problems(tmp_path, changed("fleet.json5", "own.json5"))
    assert sum("has no number field `rev`" in str(problem) for problem in found) == 3


def test_a_field_that_no_workload_fills_is_named(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "scenarios" / "schemas" / "fleet.json5"
    text = shipped.read_text().replace("level: {type: 'number'}", "level: {type: 'number', required: true}")
    write(tmp_path, text, "own.json5")
    found = problems(tmp_path, changed("fleet.json5", "own.json5"))
    assert ["Status requires level" in problem.message for problem in found] == [True]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_no_text_gives_anything_but_problems(tmp_path: Path, data: st.DataObject) -> None:
    """GOOD with a piece cut out and another put in: accepted, or refused with places."""
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(len(GOOD), start + 20)))
    piece = data.draw(
        st.one_of(st.text(max_size=8), st.sampled_from(["[]", "{}", "- ", "null", "*a", "&a ", ": ", "\n"]))
    )
    text = GOOD[:start] + piece + GOOD[end:]
    path = tmp_path / "cut.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load(path)
    except InputError as error:
        assert error.problems


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("duration: 30m", "duratoin: 30m"),
        ("devices:\n  - {name: home, count: 6, ", "devices:\n  - {name: home, count: many, "),
        ("  - {kind: relay-kill, rate: 20/h}\n", "  - {kind: relay-kil, rate: 20/h}\n"),
    ],
)
def test_one_mistake_is_one_problem(tmp_path: Path, old: str, new: str) -> None:
    text = changed(old, new)
    if "many" in new:  # the only group
        text = text.replace(text[text.index("  - {name: shop") : text.index("workload:")], "")
        text = text.replace(", target: {region: east}", "")
    (problem,) = problems(tmp_path, text)
    assert problem.line and "missing" not in problem.message and "must not be empty" not in problem.message


def test_an_empty_list_of_devices_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD[: GOOD.index("devices:")] + "devices: []\n" + GOOD[GOOD.index("workload:") :])
    assert "devices: must not be empty" in [f"{problem.key}: {problem.message}" for problem in found]


def test_a_shipped_scenario_s_misspelt_name_is_guessed() -> None:
    with pytest.raises(InputError, match=r"outtage: cannot be read: no such file \(did you mean outage\?\)"):
        load("outtage")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name: a\n\tseed: 1\n", 2, "a tab (indent with spaces)"),
        ("name: 'a\nseed: 1\n", 3, "a missing quote or an open bracket, here or just above"),
    ],
)
def test_what_is_no_yaml_says_what_it_mostly_comes_from(tmp_path: Path, text: str, line: int, words: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.line == line and words in str(problem)


ORDERS = GOOD.replace("schema: fleet.json5", "schema: commands.json5").replace(
    "keep: 5}\n  - {name: notice, side: cloud, model: Notice, action: create, every: 10m, keep: 5}\n",
    "keep: 5, commands: [blink, reboot], expires: [1m, 5m]}\n",
)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema: commands.json5", "schema: fleet.json5", "the schema has no CommandResult"),
        ("[blink, reboot]", "[blnik, reboot]", "unknown command 'blnik' (did you mean blink?)"),
        (", expires: [1m, 5m]", "", "needs `expires`"),
        (", commands: [blink, reboot]", "", "goes with `commands` only"),
        ("model: Command", "model: Audit", "only the cloud gives commands"),
        ("action: create", "action: update", "only the cloud gives commands"),
    ],
)
def test_a_mistake_in_commands_is_told(tmp_path: Path, old: str, new: str, words: str) -> None:
    loaded(tmp_path, ORDERS)
    assert ORDERS.count(old) == 1
    assert any(words in str(problem) and problem.line for problem in problems(tmp_path, ORDERS.replace(old, new)))


def test_a_schema_whose_results_do_not_fit_is_told_with_its_own_line(tmp_path: Path) -> None:
    text = schema_path("commands.json5").read_text()  # type: ignore[union-attr]
    broken = text.replace("message: {type: 'string'}", "message: {type: 'number'}")
    write(tmp_path, broken, "own.json5")
    (problem,) = problems(tmp_path, ORDERS.replace("commands.json5", "own.json5"))
    assert problem.file.endswith("own.json5") and "message" in broken.splitlines()[problem.line - 1]
