"""Tables, JUnit and terminal: what people and other programs read. Any text at all is harmless in each."""

from __future__ import annotations

import csv
import io
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from reports.junit import junit_xml
from reports.result import DeviceRow, RunResult
from reports.summary import Check, Summary, Threshold
from reports.tables import devices_csv, parse_devices, parse_timeline, timeline_csv
from reports.terminal import print_summary, summary_text, to_ascii
from reports.text import bytes_text, clock_text, number_text, printable, seconds_text

Sample = Callable[..., RunResult]
ANY_TEXT = st.text(st.characters(), max_size=60)


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
)
def test_a_timeline_is_read_back_exactly(rows: list[dict[str, int | float]]) -> None:
    assert parse_timeline(timeline_csv(rows)) == rows


def test_columns_that_come_late_and_values_that_are_none_are_blank_cells() -> None:
    text = timeline_csv([{"online": 1, "t_s": 0.5}, {"t_s": 1.0, "late": float("nan")}])
    assert text == "t_s,online,late\n0.5,1,\n1.0,,\n"


@given(ANY_TEXT, ANY_TEXT)
def test_no_cell_of_a_table_is_a_formula(device: str, reason: str) -> None:
    row = DeviceRow(device=device, reason=reason, outbox=-3)
    cells = list(csv.reader(io.StringIO(devices_csv([row]), newline="")))[1]
    for cell in (cells[0], cells[2]):
        assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r"))
    back = parse_devices(devices_csv([row]))[0]
    assert back.device == printable(device) and back.reason == printable(reason) and back.outbox == -3


def test_junit_has_a_case_for_each_check_and_threshold() -> None:
    checks = [
        Check(name="good", status="pass"),
        Check(name="bad", status="fail", checked=9, failures=2, detail="device home-1"),
        Check(name="idle", status="unknown"),
        Check(name="missing", status="unknown", required=True),
    ]
    thresholds = [
        Threshold(expr="a < 1", status="pass", actual=0.5),
        Threshold(expr="b < 1", status="fail", actual=2.0),
        Threshold(expr="c < 1", status="unknown"),
    ]
    summary = Summary(scenario="s", seed=3, verdict="fail", checks=checks, thresholds=thresholds)
    suite = ET.fromstring(junit_xml(summary).encode())[0]
    found = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert found == {
        "good": [], "bad": ["failure"], "idle": ["skipped"], "missing": ["error"],
        "a < 1": [], "b < 1": ["failure"], "c < 1": ["error"],
    }  # fmt: skip
    assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["7", "2", "2", "1"]
    failure = suite.find(".//testcase[@name='bad']/failure")
    assert failure is not None and failure.text == "device home-1"
    assert failure.get("message") == "2 of 9 evaluations failed"


@given(ANY_TEXT)
def test_junit_takes_any_text(text: str) -> None:
    checks = [Check(name=text, status="fail", detail=text)]
    summary = Summary(scenario=text, seed=1, verdict="fail", checks=checks, reproduce=text)
    root = ET.fromstring(junit_xml(summary).encode("utf-8"))
    assert root.find(".//testcase") is not None


def widest(text: str) -> int:
    return max(cell_len(line) for line in text.splitlines())


def test_the_terminal_shows_verdict_then_checks_then_thresholds_then_the_rest(sample: Sample) -> None:
    text = summary_text(sample(failing=True))
    marks = (
        "FAIL", "CHECKS", "✗ no-acked-write-lost", "✓ convergence", "? no-epoch-change", "THRESHOLDS",
        "✗ converged_after_s < 120", "LATENCY", "COUNTS", "FAULTS", "region down", "in step +49.0 s", "DEVICES NOT",
        "     home-0417 ", "PROBES", "fleet run scenarios/outage.yaml --seed 7",
    )  # fmt: skip
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "device home-0417, item (device#home-0417, setting#heat): expected revision 9123" in text


def test_no_line_of_an_ordinary_summary_is_broken_at_100_columns(sample: Sample) -> None:
    assert widest(summary_text(sample())) <= 100
    assert summary_text(sample()) == summary_text(sample(), width=400)


def test_a_long_command_can_be_copied_to_a_shell() -> None:
    command = (
        "fleet run scenarios/outage.yaml --seed 1 --devices 10 --set 'devices.home.count=5 ' --set 'faults=[]' --out x"
    )
    text = summary_text(RunResult(summary=Summary(scenario="s", seed=1, verdict="pass", reproduce=command)), 80)
    typed = text[text.index("reproduce") + len("reproduce") :]
    assert widest(text) <= 80 and typed.count("\\\n") == 1
    assert shlex.split(typed.replace("\\\n", "")) == shlex.split(command)


def test_probes_with_long_names_are_whole_and_in_columns() -> None:
    probes = {f"killed_between_two_requests_{i}": 1_000 + i for i in range(5)} | {"never": 0}
    text = summary_text(RunResult(summary=Summary(scenario="s", seed=1, verdict="pass", probes=probes)))
    rows = text[text.index("PROBES") :].splitlines()[1:4]
    assert [row.split()[::2] for row in rows] == [
        [f"killed_between_two_requests_{i}", f"killed_between_two_requests_{i + 3}" if i < 2 else "never"]
        for i in range(3)
    ]
    assert len({row.index("killed") for row in rows}) == 1 and widest(text) <= 100


@pytest.mark.parametrize("width", [60, 100])
def test_no_line_of_a_hostile_summary_is_wider_than_asked(hostile: RunResult, width: int) -> None:
    text = summary_text(hostile, width)
    assert widest(text) <= width
    assert "\x1b" not in text and "\u202e" not in text


@settings(max_examples=60, deadline=None)
@given(ANY_TEXT)
def test_any_text_fits_the_terminal(text: str) -> None:
    checks = [Check(name=text, status="fail", detail=text, checked=1)]
    summary = Summary(scenario=text, seed=1, verdict="fail", checks=checks, reproduce=text, probes={text: 1})
    said = summary_text(RunResult(summary=summary, devices=[DeviceRow(device=text, reason=text)]))
    assert widest(said) <= 100
    said.encode()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Latin(io.StringIO):
    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "latin-1"


def test_colours_only_on_a_terminal(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    plain, terminal = io.StringIO(), Terminal()
    print_summary(sample(), plain)
    print_summary(sample(), terminal)
    assert "\x1b[" not in plain.getvalue() and plain.getvalue() == summary_text(sample())
    assert "\x1b[" in terminal.getvalue() and "✓" in terminal.getvalue()


def test_an_output_without_unicode_gets_ascii(sample: Sample) -> None:
    out = Latin()
    print_summary(sample(failing=True), out)
    assert out.getvalue().isascii() and "x no-acked-write-lost" in out.getvalue()
    assert to_ascii("✓ 名 µ") == "+ ? u"


def test_an_empty_run_is_shown_without_tables() -> None:
    text = summary_text(RunResult(summary=Summary(scenario="s", seed=1, verdict="unknown")))
    assert "UNKNOWN" in text and "none" in text and "FAULTS" not in text and "did not converge" in text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "0"), (0.000_02, "20.0 µs"), (0.000_999_6, "1.00 ms"), (0.0123, "12.3 ms"), (0.9996, "1.00 s"),
        (9.994, "9.99 s"), (99.96, "100 s"), (125, "2m 5s"), (5400, "1h 30m"), (None, "–"), (-1, "-1.00 s"),
    ],
)  # fmt: skip
def test_measured_times_have_three_digits(value_s: float | None, text: str) -> None:
    assert seconds_text(value_s) == text


def test_numbers_and_sizes_are_readable() -> None:
    assert [number_text(value) for value in (1234567, 0.125, 98.6, 1e300, None)] == [
        "1,234,567", "0.125", "98.6", "1e+300", "–",
    ]  # fmt: skip
    assert [bytes_text(size) for size in (0, 812, 4_096, 93_200_000, 10**13)] == [
        "0 B", "812 B", "4.10 kB", "93.2 MB", "10.0 TB",
    ]  # fmt: skip
    assert [clock_text(value) for value in (0, 0.25, 59.9, 600, 187_200)] == ["0s", "0.25s", "59.9s", "10m", "2d 4h"]
