"""Comparisons: what is worse, what is noise, what is said of runs that do not compare, and hostile or broken input."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from compare_rig import FIVE, UP, YAML, group, run_of, seeds, whole

from reports.compare import RUNS_MIN, Comparison, Row, Rule, compare, noise
from reports.compare_html import comparison_html
from reports.compare_metrics import METRICS, SECTIONS, metrics_of
from reports.compare_runs import Group, PlanHead, differences, load_group
from reports.compare_text import COLUMNS, comparison_csv, print_comparison
from reports.result import FaultWindow, RunResult
from reports.rundir import RunDirError, write_run
from reports.summary import Counts, Latency, Percentiles

Sample = Callable[..., RunResult]


def row_of(comparison: Comparison, name: str) -> Row:
    return next(row for row in comparison.rows if row.name == name)


# ---------------------------------------------------------------- metrics


def test_every_number_of_a_run_is_compared_and_one_table_knows_what_is_worse() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    assert {f"counts.{name}" for name in Counts.__struct_fields__} <= set(names)
    assert {f"latency_s.{way}.{name}" for way in ("up", "down") for name in Percentiles.__struct_fields__[1:]} <= set(
        names
    )
    assert [metric.name for metric in METRICS if not metric.decides] == ["wall_s", "cpu_s", "rss_mb_max"]
    assert all(metric.worse == "more" for metric in METRICS if metric.name.startswith("latency_s."))
    assert {metric.section for metric in METRICS} <= set(SECTIONS)


def test_a_time_that_never_came_is_endless_and_what_was_not_measured_is_missing() -> None:
    run = run_of(converged_after_s=None, latency_s=Latency())
    faults = [FaultWindow(name="cut", kind="link-down", start_s=1, end_s=2, healed_s=2)]
    found = metrics_of(run.summary, faults)
    assert found["converged_after_s"][1] == found["recovered_s of fault cut"][1] == math.inf
    assert found[UP][1] is None


# ---------------------------------------------------------------- noise


def test_noise_is_robust() -> None:
    assert noise([1.0, 2.0, 3.0]) == pytest.approx(1.4826 * 1.495)
    assert noise([1.0, 1.0, 1.0]) == 0
    calm, wild = noise([1.0, 1.1, 0.9, 1.05, 0.95]), noise([1.0, 1.1, 0.9, 1.05, 95.0])
    assert wild < 2 * calm + 0.1


def test_more_of_the_same_is_noise_and_a_slowdown_is_a_regression() -> None:
    same = compare(seeds("a", *FIVE), seeds("b", 1.02, 0.97, 1.08, 0.93, 1.12))
    assert (same.verdict, same.exit_code, row_of(same, UP).status) == ("passed", 0, "noise")
    slow = compare(seeds("a", *FIVE), seeds("b", *(2 * one for one in FIVE)))
    assert (slow.verdict, slow.exit_code, row_of(slow, UP).status) == ("regression", 1, "worse")
    assert UP in slow.regressions and "worse than noise" in slow.reason
    fast = compare(seeds("a", *FIVE), seeds("b", *(one / 2 for one in FIVE)))
    assert (fast.verdict, row_of(fast, UP).status) == ("passed", "better") and UP in fast.improvements
    row = row_of(slow, UP)
    assert (row.base, row.new, row.change_percent) == (1.0, 2.0, 100.0)
    assert row.low is not None and row.high is not None and row.low < 0.9 and 1.1 < row.high < 2


def test_one_new_run_is_judged_by_the_noise_of_the_group() -> None:
    base = seeds("a", *FIVE)
    assert compare(base, seeds("b", 1.2)).verdict == "passed"
    assert compare(base, seeds("b", 9.0)).verdict == "regression"


def test_a_band_needs_three_runs_on_a_side() -> None:
    two = compare(seeds("a", 1.0, 1.1), seeds("b", 9.0, 9.1))
    assert (two.verdict, two.exit_code, two.has_band) == ("not judged", 0, False)
    assert row_of(two, UP).status == "changed" and str(RUNS_MIN) in two.reason
    three = compare(seeds("a", 1.0), seeds("b", 9.0, 9.1, 9.2))
    assert (three.verdict, three.has_band) == ("regression", True)


def test_runs_that_are_all_alike_leave_a_band_of_one_percent() -> None:
    base = seeds("a", 1.0, 1.0, 1.0)
    assert compare(base, seeds("b", 1.009, 1.009, 1.009)).verdict == "passed"
    assert compare(base, seeds("b", 1.02, 1.02, 1.02)).verdict == "regression"
    few = compare(base, seeds("b", 1.0, 1.0, 1.0, counts=Counts(updates_synced=100, retransmits=3)))
    assert row_of(few, "counts.retransmits").status == "noise"
    assert row_of(few, "counts.messages_up").status == "better"


def test_figures_of_the_machine_and_of_chance_decide_nothing() -> None:
    base = seeds("a", *FIVE, wall_s=1.0)
    new = seeds(
        "b", *FIVE, wall_s=9.0, counts=Counts(updates_synced=100, messages_up=1000, messages_down=2000, reboots=99)
    )
    result = compare(base, new)
    assert result.verdict == "passed"
    assert (row_of(result, "wall_s").status, row_of(result, "counts.reboots").status) == ("worse", "changed")
    assert compare(base, new, [Rule("wall_s > +50%", "wall_s", ">", 50, "percent")]).verdict == "regression"


def test_never_is_worse_than_any_time() -> None:
    result = compare(seeds("a", *FIVE), seeds("b", *FIVE, converged_after_s=None))
    row = row_of(result, "converged_after_s")
    assert (row.status, row.never, row.new, row.change) == ("worse", "new", None, None)
    back = row_of(compare(seeds("a", *FIVE, converged_after_s=None), seeds("b", *FIVE)), "converged_after_s")
    assert back.never == "base" and back.status == "changed"  # there is no band around never


def test_a_run_that_fails_where_none_did_is_a_regression_without_any_noise() -> None:
    result = compare(seeds("a", 1.0), seeds("b", 1.0, verdict="fail"))
    assert (result.verdict, result.regressions) == ("regression", ["verdict"])
    assert compare(seeds("a", 1.0, verdict="fail"), seeds("b", 1.0, verdict="fail")).verdict == "not judged"


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        (Rule("", UP, ">", 10, "percent"), "fail"),
        (Rule("", UP, ">", 60, "percent"), "pass"),
        (Rule("", UP, ">", 0.4, "change"), "fail"),
        (Rule("", UP, ">", 1.6, "value"), "pass"),
        (Rule("", UP, "<=", 1.5, "value"), "fail"),
        (Rule("", "counts.messages_up", ">", 0, "percent"), "pass"),
        (Rule("", "counts.retransmits", ">", 500, "percent"), "fail"),  # from none to one
        (Rule("", "converged_after_s", ">", 120, "value"), "fail"),  # never
        (Rule("", "converged_after_s", ">", 10, "percent"), "fail"),
        (Rule("", "probes.gone", ">", 0, "value"), "unknown"),
        (Rule("", "latency_s.down.p99", ">", 10, "percent"), "unknown"),
    ],
)
def test_rules_decide_also_for_single_runs(rule: Rule, status: str) -> None:
    up = Percentiles(count=9, p99=1.5)
    counts = Counts(updates_synced=100, messages_up=1000, messages_down=2000, retransmits=1)
    new = seeds("b", 1.5, converged_after_s=None, latency_s=Latency(up=up), counts=counts)
    result = compare(seeds("a", 1.0), new, [rule])
    assert result.rules[0].status == status
    assert result.exit_code == {"fail": 1, "pass": 0, "unknown": 3}[status]


# ---------------------------------------------------------------- what does not compare


def test_nothing_to_compare_with_is_no_pass(tmp_path: Path) -> None:
    result = compare(load_group(tmp_path / "gone"), seeds("b", 1.0))
    assert (result.verdict, result.exit_code, result.rows) == ("no baseline", 3, [])
    assert "no such directory" in result.notes[0]
    half = compare(group("a", run_of(interrupted=True)), seeds("b", 1.0))
    assert half.verdict == "no baseline"
    stopped = compare(seeds("a", 1.0), group("b", run_of(aborted="x < 1", verdict="fail")))
    assert (stopped.verdict, stopped.regressions) == ("regression", ["verdict"])
    assert compare(seeds("a", 1.0), group("b", run_of(interrupted=True, verdict="unknown"))).exit_code == 3


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"scenario": "calm"}, "scenario"),
        ({"devices": 20}, "devices"),
        ({"backend": "moto"}, "backend"),
        ({"plan": PlanHead(duration_us=60_000_000)}, "duration"),
    ],
)
def test_what_must_be_the_same_is_said_and_refused(changes: dict[str, Any], key: str) -> None:
    base, new = seeds("a", *FIVE), seeds("b", *FIVE, **changes)
    found = differences(base, new)
    assert [one.key for one in found if one.forbids] == [key]
    result = compare(base, new, (), found)
    assert (result.verdict, result.exit_code, result.rows) == ("not comparable", 2, []) and key in result.reason
    assert compare(base, new, (), found, across=True).verdict == "passed"
    mixed = group("b", *seeds("b", 1.0).runs, *new.runs)
    assert f"{key}, within new" in [one.key for one in differences(base, mixed)]


def test_what_may_differ_is_said_by_its_key() -> None:
    other = YAML.replace("workers: 2", "workers: 3").replace("delay: 5ms", "delay: 9ms")
    new = seeds("b", 1.0, yaml=f"seed: 7\n{other}", versions={"fleet": "2"}, plant="echo")
    found = differences(seeds("a", 1.0), new)
    assert [(one.key, one.base, one.new) for one in found] == [
        ("cloud.workers", "2", "3"),
        ("devices.home.link.delay", "5ms", "9ms"),
        ("plant", "none", "echo"),
        ("version of fleet", "1", "2"),
    ]
    assert not any(one.forbids for one in found)


@pytest.mark.parametrize("yaml", ["{", "a: &x [*x]", "- " * 5000, "&a [1, 2]", "a: " + "[" * 3000, "x" * 2_000_000])
def test_a_scenario_that_nobody_can_read_is_no_traceback(yaml: str) -> None:
    found = differences(seeds("a", 1.0), seeds("b", 1.0, yaml=yaml))
    assert found and not any(one.forbids for one in found)


def test_a_growing_alias_does_not_fill_the_memory() -> None:
    lines = ["a0: &a0 {x: 1, y: 2}"] + [f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, 60)]
    (found,) = differences(seeds("a", 1.0), seeds("b", 1.0, yaml="\n".join(lines)))
    assert found.base == "cannot be read"


# ---------------------------------------------------------------- directories


def test_a_group_is_a_directory_of_runs(sample: Sample, tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        write_run(sample(rows=5), tmp_path / "base" / name)
    (tmp_path / "base" / "half").mkdir()
    (tmp_path / "base" / "notes.txt").write_text("mine")
    found = load_group(tmp_path / "base")
    assert [run.path.name for run in found.runs] == ["s1", "s2"] and len(found.runs[0].timeline) == 5
    assert found.notes == ["half: no summary.json, not a finished run"]
    assert len(load_group(tmp_path / "base" / "s1").runs) == 1
    assert load_group(tmp_path / "base" / "half").runs == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("summary.json", b"{", "summary.json"),
        ("summary.json", b'{"verdict": "maybe"}', "summary.json"),
        ("summary.json", b"[1, 2]", "summary.json"),
        ("timeline.csv", b"t_s,online\n1", "timeline.csv"),
        ("plan.json", b'{"duration_us": "long"}', "plan.json"),
        ("scenario.effective.yaml", b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_broken_run_is_named(sample: Sample, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    write_run(sample(rows=5), tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    for path in (tmp_path / "run", tmp_path):
        with pytest.raises(RunDirError, match=re.escape(words)) as caught:
            load_group(path)
        assert caught.value.exit_code == 2


def test_a_file_is_no_group(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="not a directory"):
        load_group(tmp_path / "file")


def test_a_summary_of_another_release_is_compared_as_far_as_it_goes(sample: Sample, tmp_path: Path) -> None:
    for name in ("old", "new"):
        write_run(sample(rows=5), tmp_path / name)
    path = tmp_path / "old" / "summary.json"
    values = msgspec.json.decode(path.read_bytes())
    for key in ("groups", "models", "probes", "aborted"):
        values.pop(key)
    path.write_bytes(msgspec.json.encode({**values, "later": 1}))
    result = compare(load_group(tmp_path / "old"), load_group(tmp_path / "new"))
    assert result.verdict == "not judged" and row_of(result, UP).status == "same"


# ---------------------------------------------------------------- what people see


def text_of(comparison: Comparison, **options: Any) -> str:
    out = io.StringIO()
    print_comparison(comparison, out, **options)
    return out.getvalue()


def test_the_table_fits_a_terminal_and_names_what_is_worse() -> None:
    comparison, _, _ = whole()
    text = text_of(comparison)
    assert max(map(len, text.splitlines())) <= 100
    assert "REGRESSION" in text and re.search(r"✗ latency_s\.up\.p99 +1\.00 s +3\.00 s +\+2\.00 s \+200\.0 %", text)
    assert "✗ up > +10%" in text and "side: 5 runs, seeds 1, 2, 3, 4, 5; 5 pass" in text
    assert text_of(comparison, all_rows=True).count("\n") >= text.count("\n")


def test_an_output_without_such_letters_gets_ascii() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_comparison(whole()[0], out)
    out.seek(0)
    assert "x latency_s.up.p99" in out.read()


def test_csv_has_one_line_a_metric() -> None:
    comparison, _, _ = whole()
    rows = list(csv.DictReader(io.StringIO(comparison_csv(comparison))))
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(comparison.rows)
    up = next(row for row in rows if row["metric"] == UP)
    assert (up["base"], up["new"], up["status"], up["decides"]) == ("1", "3", "worse", "yes")


def test_the_page_overlays_both_timelines_and_asks_nothing_of_the_network() -> None:
    page = comparison_html(*whole())
    assert page.count('<svg class="plot"') == 3 and "BASE" in page and "Regression" in page
    assert "var(--a" in page and "var(--b" in page and "prefers-color-scheme: dark" in page
    assert "<script" not in page and not re.search(r"url\((?!#)", page)
    assert [url for url in re.findall(r'(?:src|href)="([^"]*)"', page) if not url.startswith(("#", "data:,"))] == []
    assert comparison_html(*whole()) == page


def test_hostile_names_are_harmless_everywhere(hostile: RunResult) -> None:
    comparison, base, new = whole(hostile=hostile)
    page = comparison_html(comparison, base, new)
    assert "<img" not in page and "\x1b" not in page and "\u202e" not in page
    text = text_of(comparison, all_rows=True)
    assert "\x1b" not in text and "\u202e" not in text and max(map(len, text.splitlines())) <= 120
    cells = [cell for row in csv.reader(io.StringIO(comparison_csv(comparison))) for cell in row]
    assert not any(cell.startswith(("=", "+", "@")) for cell in cells)
    msgspec.json.decode(msgspec.json.encode(comparison))


def test_a_comparison_without_rows_has_a_page_and_a_text() -> None:
    result = compare(Group("a", [], ["a: no such directory"]), seeds("b", 1.0))
    assert "No baseline" in comparison_html(result, [], []) and "NO BASELINE" in text_of(result)
