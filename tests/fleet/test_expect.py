"""The language of thresholds: what can be said, what each mistake is told at its place, and what becomes of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario_rig import GOOD, loaded, problems

from fleet.scenario.build import build_plan
from fleet.scenario.effective import effective_yaml
from fleet.scenario.expect import COLUMNS, PART_PATHS, PATHS
from fleet.scenario.expect_grammar import (
    AfterHeal,
    During,
    ExpressionError,
    FromTo,
    Limit,
    Name,
    Threshold,
    parse_threshold,
)
from fleet.scenario.expect_measure import Measured, evaluate, from_summary
from fleet.scenario.explain import guess
from reports.result import FaultWindow, Row


def test_numbers_are_those_of_the_summary_and_of_the_timeline() -> None:
    assert {"virtual_s", "counts.updates_synced", "latency_s.down.p999", "converged_after_s"} <= set(PATHS)
    assert not {"verdict", "checks", "scenario", "probes", "groups", "aborted"} & set(PATHS)
    assert {"online", "converged", "connects", "latency_s.up.p99"} <= set(COLUMNS)
    assert COLUMNS["latency_s.up.p99"] == "up_p99_s"
    assert {path for paths in PART_PATHS.values() for path in paths} <= set(PATHS)
    assert guess("latency_s.up.p9", PATHS) == "did you mean latency_s.up.p99?"


def test_limits_are_read_in_the_unit_of_their_number() -> None:
    for expr, kind, value in [
        ("latency_s.up.p99 < 1500ms", "plain", 1.5),
        ("latency_s.up.p99 < 5", "plain", 5),
        ("converged_after_s <= 1h 30m", "plain", 5400),
        ("converged_after_s <= 2 m", "plain", 120),
        ("rss_mb_max < 1gb", "plain", 1024),
        ("counts.bytes_up > 1kb", "plain", 1024),
        ("counts.bytes_up < 1kb/s", "rate", 1024),
        ("counts.connects < 30/m", "rate", 0.5),
        ("during outage: connects < 5 / s", "rate", 5),
        ("after heal outage: online >= 99.5%", "share", 0.995),
        ("probes.snapshot_loaded >= 1", "plain", 1),
    ]:
        assert parse_threshold(expr).limit == Limit(kind, value), expr  # type: ignore[arg-type]


def test_an_expression_says_where_its_words_stand() -> None:
    assert parse_threshold("after heal outage: online > 99% within 3m") == Threshold(
        "after heal outage: online > 99% within 3m",
        Name("online", 19),
        ">",
        Limit("share", 0.99),
        AfterHeal(Name("outage", 11), 180_000_000),
    )
    assert parse_threshold("during a-b: messages_lost<5% of messages_up").limit.base == Name("messages_up", 32)
    assert parse_threshold("during a-b: connects < 5").window == During(Name("a-b", 7))
    assert parse_threshold("from 5m to 1h 30m: connects < 3").window == FromTo(300_000_000, 5_400_000_000)
    assert parse_threshold("from 5m: online > 3").window == FromTo(300_000_000, None)
    of = parse_threshold("latency_s.up.p99 of model Status < 5s")
    assert (of.part, of.of) == ("model", Name("Status", 26))


# expression, how many characters into it the mistake is, what is said of it
MISTAKES = [
    ("", 0, "expected a number such as latency_s.up.p99, found the end"),
    ("latency_s.up.p9 < 5s", 0, "did you mean latency_s.up.p99?"),
    ("online > 99%", 0, "online needs a window"),
    ("recovered_s < 2m", 0, "such as after heal FAULT: recovered_s"),
    ("during a: recovered_s < 2m", 10, "such as after heal FAULT: recovered_s"),
    ("during a: counts.connects < 4", 10, "did you mean connects?"),
    ("during a: converged_after_s < 4", 10, "a number of the whole run"),
    ("durin a: online > 1", 0, "did you mean during?"),
    ("after a: online > 1", 6, "expected `heal` after `after`"),
    ("converged_after_s", 17, "expected one of < <= > >= ==, found the end"),
    ("converged_after_s = 5", 18, "did you mean ==?"),
    ("converged_after_s != 5", 18, "no comparison: !="),
    ("converged_after_s < soon", 20, "expected a duration such as 5s, found 'soon'"),
    ("converged_after_s < 5x", 20, "expected a duration such as 10s"),
    ("converged_after_s < 5s please", 23, "expected nothing more, found 'please'"),
    ("converged_after_s < 5s ]", 23, "cannot be read from ']' on"),
    ("converged_after_s < 5%", 20, "as a share of what?"),
    ("counts.reboots < 5s", 17, "expected a number for counts.reboots"),
    ("counts.reboots < 5%", 17, "as a share of what?"),
    ("counts.reboots < 5% of converged_after_s", 23, "unknown number 'converged_after_s'"),
    ("counts.reboots < 5/w", 17, "a second, minute, hour or day"),
    ("converged_after_s < 5/s", 20, "has no rate"),
    ("during a: online > 101%", 19, "impossible share 101%"),
    ("during a: online > 4 within 3m", 28, "`within` counts from a heal"),
    ("after heal a: connects > 4 within 3m", 34, "cannot be waited for"),
    ("from 5m to 3m: online > 1", 11, "ends before it begins"),
    ("latency_s.up.p99 of grup x < 1", 20, "did you mean group?"),
    ("converged_after_s of group x < 1", 0, "there is no converged_after_s of one group"),
    ("during a: latency_s.up.p99 of group x < 1", 30, "does not tell one group from others"),
    ("counts.reboots of group x < 1/s", 0, "has no rate and no share"),
    ("é", 0, "cannot be read from 'é' on"),
    ("a" * 501, 0, "longer than 500 characters"),
]


@pytest.mark.parametrize(("expr", "at", "words"), MISTAKES)
def test_a_mistake_is_told_with_its_place(expr: str, at: int, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_threshold(expr)
    assert words in str(caught.value) and caught.value.at == at


@given(st.text(alphabet="abonlie_.<>=:%/ 0123456789smduringafteho\n\"'", max_size=60))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        threshold = parse_threshold(text)
    except ExpressionError as error:
        assert 0 <= error.at <= len(text)
    else:
        evaluate(threshold, measured([]))


# ---------------------------------------------------------------- in a scenario


def with_thresholds(*lines: str) -> str:
    return GOOD + "expect:\n  thresholds:\n" + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("- ¦latency_s.up.p9 < 5s", "did you mean latency_s.up.p99?"),
        ("- latency_s.up.p99 < ¦5x", "expected a duration"),
        ("- 'latency_s.up.p99 < ¦5x'", "expected a duration"),
        ("- {expr: latency_s.up.p99 < ¦5x}", "expected a duration"),
        ("- after heal ¦cutt: online > 99%", "unknown fault 'cutt' (did you mean cut?)"),
        ('- "after heal ¦cutt: online > 99%"', "unknown fault 'cutt' (did you mean cut?)"),
        ("- after heal cut: ¦onlin > 99%", "did you mean online?"),
        ("- latency_s.up.p99 of group ¦hom < 5s", "unknown group 'hom' (did you mean home?)"),
        ("- latency_s.up.p99 of model ¦Sttaus < 5s", "unknown model 'Sttaus' (did you mean Status?)"),
        ("- ¦after heal cut: online > 99% within 3s", "shorter than the timeline's interval, 10s"),
        ("- ¦from 10h: online > 99%", "begins after the run's end, 1h5m at most"),
        ("- {expr: converged_after_s < 5m, abort: ¦true}", "known only at the end"),
        ("- {expr: counts.connects > 5, abort: ¦true}", "known only at the end"),
        ("- {expr: counts.reboots of group home < 5, abort: ¦true}", "only for its latencies"),
        ("- {expr: wall_s < 5m, abort: ¦true}", "no run can be stopped for wall_s"),
        ("- {expr: counts.connects < 5, abort: ¦maybe}", "expected true or false"),
        ("- {expr: counts.connects < 5, ¦abrt: true}", "did you mean abort?"),
        ("- ¦{abort: true}", "key expr is missing"),
        ("- ¦5", "expected a mapping"),
    ],
)
def test_a_mistake_in_a_scenario_is_told_at_its_character(tmp_path: Path, line: str, words: str) -> None:
    column = line.index("¦") + 5
    text = with_thresholds(line.replace("¦", ""), "- converged_after_s < 5x")  # one mistake does not hide another
    found = problems(tmp_path, text)
    place = (text.count("\n") - 1, column)
    assert any((one.line, one.column) == place and words in str(one) for one in found), "\n".join(map(str, found))
    assert any(one.line == place[0] + 1 and "expected a duration" in str(one) for one in found)


def test_an_expression_over_several_lines_is_told_where_it_begins(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, with_thresholds("- >-", "  latency_s.up.p99", "  < 5x"))
    assert (problem.column, problem.message[:19]) == (7, "expected a duration")


def test_a_window_needs_no_quotes_and_the_effective_scenario_says_the_same(tmp_path: Path) -> None:
    text = with_thresholds(
        "- converged_after_s < 5m", "- during cut: online > 1", "  abort: true", "- from 5m: online > 1"
    )
    plan = build_plan(loaded(tmp_path, text))
    assert plan.thresholds == ["converged_after_s < 5m", "during cut: online > 1", "from 5m: online > 1"]
    assert plan.aborts == ["during cut: online > 1"]
    again = build_plan(loaded(tmp_path, effective_yaml(loaded(tmp_path, text))))
    assert (again.thresholds, again.aborts) == (plan.thresholds, plan.aborts)


# ---------------------------------------------------------------- what becomes of it

SUMMARY: dict[str, Any] = {
    "counts": {"reboots": 3, "messages_up": 200, "connects": 600},
    "converged_after_s": None,
    "latency_s": {"up": {"count": 0, "p99": 0.0}, "down": {"count": 5, "p99": 2.5}},
    "probes": {"a.b": 2},
    "groups": {"home": {"counts": {"reboots": 1}, "latency_s": {"down": {"count": 2, "p99": 0.5}}}},
}
ONLINE = (10, 10, 2, 0, 6, 10, 10)
ROWS: list[Row] = [
    {"t_s": 10.0 * n, "online": online, "connects": n, "messages_up": 20, "messages_lost": n // 3, "up_p99_s": 0.1 * n}
    for n, online in enumerate(ONLINE)
]
del ROWS[3]["up_p99_s"]
FAULTS = [
    FaultWindow(name="cut", kind="link-down", start_s=20, end_s=40, healed_s=40, recovered_s=52.5),
    FaultWindow(name="open", kind="link-down", start_s=60, end_s=65),
    FaultWindow(name="short", kind="link-down", start_s=21, end_s=29, healed_s=29),
]


def measured(rows: list[Row], now_s: float = 70.0, is_over: bool = True) -> Measured:
    return Measured(from_summary(SUMMARY), rows, FAULTS, 10.0, now_s, 10, is_over)


@pytest.mark.parametrize(
    ("expr", "status", "actual", "detail"),
    [
        ("counts.reboots == 3", "pass", 3, "is 3"),
        ("counts.reboots < 3", "fail", 3, "is 3"),
        ("counts.reboots <= 3", "pass", 3, "is 3"),
        ("counts.reboots > 3", "fail", 3, "is 3"),
        ("counts.reboots >= 3", "pass", 3, "is 3"),
        ("counts.reboots of group home < 2", "pass", 1, "is 1"),
        ("counts.connects < 10/s", "pass", 600 / 70, "is 8.571/s (600 in 1m 10s)"),
        ("counts.reboots < 1% of counts.messages_up", "fail", 0.015, "is 1.5 % (3 of 200)"),
        ("counts.reboots < 1% of probes.never", "unknown", None, "probes.never is 0: a share of nothing"),
        ("converged_after_s < 5m", "unknown", None, "did not converge"),
        ("latency_s.up.p99 < 5s", "unknown", None, "nothing was synced that way"),
        ("latency_s.up.count == 0", "pass", 0, "is 0"),
        ("latency_s.down.p99 < 2s", "fail", 2.5, "is 2.50 s"),
        ("latency_s.down.p99 of group home < 2s", "pass", 0.5, "is 500 ms"),
        ("latency_s.up.p99 of group home < 2s", "unknown", None, "nothing was synced of group home that way"),
        ("latency_s.up.p99 of model Status < 2s", "unknown", None, "nothing was synced of model Status that way"),
        ("probes.a.b == 2", "pass", 2, "is 2"),
        ("probes.never == 0", "pass", 0, "is 0"),
        ("during cut: online < 5", "pass", 2, "highest 2 at 30s"),
        ("during cut: online > 10%", "fail", 0, "lowest 0 % at 40s"),
        ("during cut: online == 0", "fail", 2, "furthest 2 at 30s"),
        ("during cut: connects == 5", "pass", 5, "is 5"),
        ("during cut: connects < 1/s", "pass", 0.25, "is 0.25/s (5 in 20s)"),
        ("during cut: messages_lost < 1% of messages_up", "fail", 0.025, "is 2.5 % (1 of 40)"),
        ("during cut: latency_s.up.p99 < 1s", "pass", 0.2, "highest 200 ms at 30s"),
        ("during cut: latency_s.down.p99 < 1s", "unknown", None, "nothing was measured in that window"),
        ("during cut: snapshots == 0", "unknown", None, "nothing was measured in that window"),
        ("during cut: messages_lost < 1% of duplicates", "unknown", None, "nothing was measured in that window"),
        ("during short: online < 5", "unknown", None, "no interval of the timeline (10s) lies in that window"),
        ("during short: connects < 5", "unknown", None, "no interval of the timeline (10s) lies in that window"),
        ("during gone: online < 5", "unknown", None, "gone never acted"),
        ("after heal open: online < 5", "unknown", None, "open never healed"),
        ("after heal cut: online > 99% within 30s", "pass", 1.0, "is 100 % 20s after the heal"),
        ("after heal cut: online > 99% within 10s", "fail", 0.6, "60 % at best within 10s"),
        ("after heal cut: online > 5", "pass", 6, "lowest 6 at 50s"),
        ("after heal cut: recovered_s < 10s", "fail", 12.5, "is 12.5 s after cut healed"),
        ("after heal short: recovered_s < 10s", "unknown", None, "not seen in step after short"),
        ("from 0s to 20s: online == 10", "pass", 10, "furthest 10 at 10s"),
        ("from 55s: connects < 7", "pass", 6, "is 6"),
        ("from 2m: online > 1", "unknown", None, "the run ended at 1m 10s"),
    ],
)
def test_a_threshold_passes_fails_or_has_nothing_to_measure(
    expr: str, status: str, actual: float | None, detail: str
) -> None:
    found = evaluate(parse_threshold(expr), measured(ROWS))
    assert (found.status, found.detail) == (status, detail)
    assert found.actual == (None if actual is None else pytest.approx(actual))


@pytest.mark.parametrize(
    ("expr", "now_s", "fails"),
    [
        ("latency_s.down.p99 < 2s", 10, True),  # by what was measured up to there
        ("counts.reboots < 3", 10, True),  # it only grows
        ("counts.reboots == 2", 10, True),
        ("counts.reboots == 4", 10, False),  # may still come
        ("counts.connects > 5/s", 1000, True),
        ("during cut: online > 1", 30, False),
        ("during cut: online > 1", 40, True),
        ("during cut: connects < 5", 30, False),
        ("during cut: connects < 5", 40, True),
        ("during cut: connects > 9", 40, False),  # the window is not past
        ("during cut: connects > 9", 50, True),
        ("after heal cut: online > 99% within 20s", 50, False),
        ("after heal cut: online == 3 within 20s", 60, True),
        ("after heal cut: online == 10 within 20s", 60, False),
        ("from 0s to 30s: connects > 1/s", 20, False),
        ("from 0s to 30s: connects > 1/s", 30, True),
    ],
)
def test_a_run_is_stopped_only_for_what_is_decided(expr: str, now_s: float, fails: bool) -> None:
    rows = [row for row in ROWS if row["t_s"] < now_s]
    found = evaluate(parse_threshold(expr), measured(rows, now_s, is_over=False))
    assert (found.status == "fail") == fails, found
