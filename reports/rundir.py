"""The run directory: written whole or not at all, and read back.

All files are first written under temporary names; only when every byte is on disk are they renamed, `summary.json`
last: whoever sees a summary sees a complete run. Called by `fleet run`, `replay` and `report`. Reads no clock: the time
in a directory's name is the caller's.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, TypeVar

import msgspec

from reports import html, junit, tables
from reports.result import Checkpoint, FaultWindow, LatencyPhase, LatencySlot, RunResult, StoryEvent, Violation
from reports.summary import EXIT_HARNESS, EXIT_INPUT, Summary
from reports.text import printable, printable_lines

SCENARIO: Final = "scenario.effective.yaml"
PLAN: Final = "plan.json"
SUMMARY: Final = "summary.json"
JUNIT: Final = "junit.xml"
TIMELINE: Final = "timeline.csv"
DEVICES: Final = "devices.csv"
HTML: Final = "report.html"
TRACE: Final = "trace.jsonl.gz"
LOG: Final = "log.txt"
CHECKPOINTS: Final = "checkpoints.json"
FIGURES: Final = "figures.json"
SKETCHES: Final = ("plan.min.svg", "plan.when.svg")  # of `fleet shrink`
_TEMPORARY: Final = ".part"
_FILE_BYTES_MAX: Final = 1 << 30  # of a file that is read back whole

T = TypeVar("T")
Write = Callable[[IO[bytes]], None]


class RunDirError(Exception):
    """A run directory cannot be written or read. The text is for people; `exit_code` is what a command ends with."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class _SummaryFile(Summary, kw_only=True):
    """`summary.json` as it lies on disk: the summary, and what went wrong when."""

    faults: list[FaultWindow] = msgspec.field(default_factory=list)
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    violations: list[Violation] = msgspec.field(default_factory=list)


class _Figures(msgspec.Struct, kw_only=True):
    """`figures.json`: what only the report draws."""

    phases: list[LatencyPhase] = []
    slots: list[LatencySlot] = []
    story: list[StoryEvent] = []


def default_directory(root: Path, scenario: str, seed: int, now: datetime) -> Path:
    """`ROOT/<scenario>-s<seed>-<UTC time>`, with a number behind it when that exists. `now` must know its time zone."""
    if now.tzinfo is None:
        raise ValueError("a time without time zone")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", scenario).strip("-.")[:60] or "run"
    path = root / f"{name}-s{seed}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def check_out(directory: Path) -> None:
    """Refuses a directory that holds something, before a run is started for it. Raises RunDirError (exit code 2)."""
    try:
        if directory.is_dir():
            taken = next(directory.iterdir(), None)
            if taken is not None:
                hint = "choose another --out, or remove it first"
                raise RunDirError(f"{directory}: not empty (holds {printable(taken.name, 60)}): {hint}", EXIT_INPUT)
        elif directory.exists() or directory.is_symlink():
            raise RunDirError(f"{directory}: exists and is not a directory: choose another --out", EXIT_INPUT)
    except OSError as error:
        raise RunDirError(f"{directory}: {error.strerror or error}", EXIT_INPUT) from error


def write_run(result: RunResult, directory: Path, trace_lines: Iterable[bytes] | None = None) -> Path:
    """Writes the whole run directory; `trace_lines` are the events, one JSON object each, without line ends.

    Raises RunDirError: exit code 2 when the directory holds something, 4 when it cannot be written; then nothing that
    was written is left."""
    check_out(directory)
    values = _values(result)
    files = [(name, _bytes(data)) for name, data in values.items() if name != SUMMARY]
    files += _derived(_result(values.__getitem__))
    if trace_lines is not None:
        files.append((TRACE, _gzip(trace_lines)))
    files.append((SUMMARY, _bytes(values[SUMMARY])))
    _write_all(directory, files, fresh=True)
    return directory


def write_report(directory: Path) -> RunResult:
    """Builds again, from the values of a run directory alone, what people and other programs read: report.html,
    junit.xml and the tables. Byte for byte what the run has written. Raises RunDirError."""
    result = load_run(directory)
    csv = [
        (TIMELINE, _text(tables.timeline_csv(result.timeline))),
        (DEVICES, _text(tables.devices_csv(result.devices))),
    ]
    _write_all(directory, [*csv, *_derived(result)], fresh=False)
    return result


def write_pngs(result: RunResult, directory: Path) -> None:
    """Every plot of the report as a file of its own. Raises RunDirError (exit code 4)."""
    _write_all(directory, [(f"{name}.png", _bytes(data)) for name, data in html.pngs(result)], fresh=False)


def _values(result: RunResult) -> dict[str, bytes]:
    """The files that hold a run's values: everything else is made from these, so that it can be made again."""
    figures = _Figures(phases=result.phases, slots=result.slots, story=result.story)
    return {
        SCENARIO: _encoded(printable_lines(result.scenario_yaml)),
        PLAN: result.plan_json,
        TIMELINE: _encoded(tables.timeline_csv(result.timeline)),
        DEVICES: _encoded(tables.devices_csv(result.devices)),
        LOG: _encoded("".join(f"{printable(line)}\n" for line in result.log)),
        CHECKPOINTS: msgspec.json.encode(result.checkpoints),
        FIGURES: msgspec.json.encode(_speakable(msgspec.to_builtins(figures))),
        SUMMARY: summary_json(result),
    }


def write_trace(directory: Path, trace_lines: Iterable[bytes]) -> Path:
    """Adds the trace to a run directory: a failed run is traced when it is run again."""
    _write_all(directory, [(TRACE, _gzip(trace_lines))], fresh=False)
    return directory / TRACE


def summary_json(result: RunResult) -> bytes:
    """`summary.json`: the summary's keys as documented, then `faults`, `versions` and `violations`."""
    values = {name: getattr(result.summary, name) for name in Summary.__struct_fields__}
    whole = _SummaryFile(**values, faults=result.faults, versions=result.versions, violations=result.violations)
    return msgspec.json.format(msgspec.json.encode(_speakable(msgspec.to_builtins(whole))), indent=2) + b"\n"


def _speakable(value: object) -> object:
    """The same without what JSON cannot say: lone surrogates in text."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_speakable(key): _speakable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_speakable(item) for item in value]
    return value


def _derived(result: RunResult) -> list[tuple[str, Write]]:
    return [(JUNIT, _text(junit.junit_xml(result.summary))), (HTML, _text(html.render(result)))]


def _bytes(data: bytes) -> Write:
    def write(file: IO[bytes]) -> None:
        file.write(data)

    return write


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _text(text: str) -> Write:
    return _bytes(_encoded(text))


def _gzip(lines: Iterable[bytes]) -> Write:
    """Streams: a trace may be larger than memory. No time in its header, so that equal traces are equal files."""

    def write(file: IO[bytes]) -> None:
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=5, mtime=0) as packed:
            for line in lines:
                packed.write(line + b"\n")

    return write


def _write_all(directory: Path, files: list[tuple[str, Write]], *, fresh: bool) -> None:
    """Every file under a temporary name, then all renames in this order. Raises RunDirError (exit code 4).

    `fresh`: the directory was empty or missing, so that everything in it may be taken back."""
    made: list[Path] = []
    parts: list[tuple[Path, Path]] = []
    try:
        made = _make(directory)
        for name, write in files:
            part = directory / f".{name}{_TEMPORARY}"
            parts.append((part, directory / name))
            _write_one(part, write)
        for part, path in parts:
            os.replace(part, path)
        _sync_directory(directory)
    except OSError as error:
        _remove(parts, made, fresh)
        why = error.strerror or str(error)
        after = "nothing was kept" if fresh else "it was left as it was"
        raise RunDirError(f"{directory}: cannot write the run directory: {why}; {after}", EXIT_HARNESS) from error
    except BaseException:
        _remove(parts, made, fresh)
        raise


def _make(directory: Path) -> list[Path]:
    """Makes the directory and its parents; returns those that were not there, the outermost first."""
    missing = [path for path in (*reversed(directory.parents), directory) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    return missing


def _write_one(path: Path, write: Write) -> None:
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())  # some file systems report that they are full only here


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(parts: list[tuple[Path, Path]], made: list[Path], fresh: bool) -> None:
    """Takes back what can be taken back; whatever goes wrong here is less than what went wrong before."""
    for part, path in parts:
        for leftover in (part, path) if fresh else (part,):
            try:
                leftover.unlink(missing_ok=True)
            except OSError:
                continue
    for directory in reversed(made):
        try:
            directory.rmdir()
        except OSError:
            return


def load_run(directory: Path) -> RunResult:
    """The run that a directory holds, without its trace. Raises RunDirError (exit code 2) naming the file and why."""
    if not directory.is_dir():
        raise RunDirError(f"{directory}: no such run directory", EXIT_INPUT)
    if not (directory / SUMMARY).is_file():
        raise RunDirError(f"{directory}: no {SUMMARY}: not the directory of a finished run", EXIT_INPUT)

    def read(name: str) -> bytes:
        path = directory / name
        if name in _LATER and not path.exists():
            return _LATER[name]
        return _read(path, bytes)

    result = _result(read, directory)
    for name in SKETCHES:
        if (directory / name).exists():
            result.sketches[name] = _read(directory / name, bytes)
    return result


_LATER: Final = {CHECKPOINTS: b"[]", FIGURES: b"{}"}  # files that runs of earlier releases do not have


def _result(read: Callable[[str], bytes], directory: Path = Path()) -> RunResult:
    """What the files of `_values` hold. Raises RunDirError naming the file in `directory`."""

    def parsed(name: str, parse: Callable[[bytes], T]) -> T:
        data = read(name)
        try:
            return parse(data)
        except (ValueError, RecursionError) as error:  # decoding errors are ValueErrors
            raise RunDirError(f"{directory / name}: {_reason(error)}", EXIT_INPUT) from error

    whole = parsed(SUMMARY, lambda data: msgspec.json.decode(data, type=_SummaryFile))
    figures = parsed(FIGURES, lambda data: msgspec.json.decode(data, type=_Figures))
    return RunResult(
        summary=Summary(**{name: getattr(whole, name) for name in Summary.__struct_fields__}),
        timeline=parsed(TIMELINE, lambda data: tables.parse_timeline(data.decode())),
        faults=whole.faults,
        devices=parsed(DEVICES, lambda data: tables.parse_devices(data.decode())),
        scenario_yaml=parsed(SCENARIO, bytes.decode),
        plan_json=parsed(PLAN, _checked_json),
        checkpoints=parsed(CHECKPOINTS, _checkpoints),
        log=parsed(LOG, lambda data: data.decode().split("\n")[:-1]),
        versions=whole.versions,
        violations=whole.violations,
        phases=figures.phases,
        slots=figures.slots,
        story=figures.story,
    )


def load_plan(path: Path) -> bytes:
    """The plan of a run directory, or of a plan's own file. Raises RunDirError (exit code 2)."""
    return _read(path / PLAN if path.is_dir() else path, _checked_json)


def read_trace(directory: Path) -> Iterable[bytes]:
    """The events of a traced run, one line each, as they are read. Raises RunDirError (exit code 2)."""
    path = directory / TRACE
    try:
        with gzip.open(path, "rb") as packed:
            for line in packed:
                yield line.rstrip(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise RunDirError(f"{path}: {_reason(error)}", EXIT_INPUT) from error


def _checked_json(data: bytes) -> bytes:
    msgspec.json.decode(data, type=msgspec.Raw)
    return data


def _checkpoints(data: bytes) -> list[Checkpoint]:
    return msgspec.json.decode(data, type=list[Checkpoint])


def _read(path: Path, parse: Callable[[bytes], T]) -> T:
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            raise RunDirError(f"{path}: larger than {_FILE_BYTES_MAX} bytes", EXIT_INPUT)
        return parse(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:  # decoding errors are ValueErrors
        raise RunDirError(f"{path}: {_reason(error)}", EXIT_INPUT) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return printable(str(error), 300)
