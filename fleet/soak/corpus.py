"""The corpus: plans that have failed, kept as files from night to night, one for each kind of failure.

`failing/` holds the plans that failed when they ran last; one that no longer does goes to `fixed/`, and comes back if
it fails again. A plan that this release cannot read goes to `unreadable/`, and is told. Each is a folder with
`plan.json`, `about.json` and, where it is known, the scenario. Called by fleet.soak.night; reads no clock.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from agent.protocol.errors import InputError, Problem
from fleet.scenario.plan import Plan
from fleet.sweep.attempt import Kind, Outcome

FAILING: Final = "failing"
FIXED: Final = "fixed"
UNREADABLE: Final = "unreadable"
ABOUT: Final = "about.json"
PLAN: Final = "plan.json"
SCENARIO: Final = "scenario.effective.yaml"
FIXED_EVERY_NIGHTS: Final = 7  # a fixed one is run again so often


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a kept plan. `found`: when, in UTC; `command`: what gave the run first; `first`: its failure in
    words; `failed`, `tried`: the number of the night in which it failed, and ran, last."""

    kind: Kind
    scenario: str
    seed: int
    command: str
    first: str
    release: str
    found: str
    failed: int
    tried: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept plan as something that can be run: holds the plan itself, so that no other process reads a file."""

    scenario: str
    seed: int
    data: bytes
    text: str  # the scenario, empty when it is not known
    shown: str
    first_command: str

    def plan(self) -> Plan:
        return Plan.decode(self.data, self.shown)

    def yaml(self) -> str:
        return self.text

    def command(self) -> str:
        return self.first_command


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder of the corpus."""

    folder: Path
    about: About

    @property
    def place(self) -> str:
        return self.folder.parent.name

    def kept(self) -> Kept:
        """Raises InputError when its files cannot be read."""
        about, scenario = self.about, self.folder / SCENARIO
        try:
            data = (self.folder / PLAN).read_bytes()
            text = scenario.read_text("utf-8") if scenario.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise _broken(self.folder, error) from None
        return Kept(about.scenario, about.seed, data, text, str(self.folder / PLAN), about.command)

    def is_readable(self) -> bool:
        """Whether this release can make a world of it."""
        try:
            self.kept().plan()
        except InputError:
            return False
        return True


class Corpus:
    """The folders under `directory`, which need not exist. Raises InputError for one that somebody has damaged."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def entries(self, place: str) -> list[Entry]:
        """Of `failing`, `fixed` or `unreadable`, in order of name."""
        folder = self.directory / place
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        return [Entry(path, _about(path)) for path in paths if path.is_dir() and not path.name.startswith(".")]

    def due(self, night: int) -> Iterator[Entry]:
        """What is to run again this night: all that fails, then the fixed ones whose turn it is."""
        yield from self.entries(FAILING)
        for entry in self.entries(FIXED):
            if night - entry.about.tried >= FIXED_EVERY_NIGHTS:
                yield entry

    def add(self, outcome: Outcome, night: int, found: str, release: str) -> Entry | None:
        """Keeps the plan of a failed run; None when one of its kind fails already, or when it has no plan."""
        kind = outcome.kind
        if kind is None or not outcome.plan:
            return None
        if any(entry.about.kind == kind for entry in self.entries(FAILING)):
            return None
        about = About(
            kind=kind,
            scenario=outcome.scenario,
            seed=outcome.seed,
            command=outcome.command,
            first=outcome.first,
            release=release,
            found=found,
            failed=night,
            tried=night,
        )
        folder = self.directory / FAILING / _name(about)
        files = {PLAN: outcome.plan, ABOUT: msgspec.json.format(msgspec.json.encode(about)) + b"\n"}
        if outcome.result is not None and outcome.result.scenario_yaml:
            files[SCENARIO] = outcome.result.scenario_yaml.encode()
        _write(folder, files)
        return Entry(folder, about)

    def settle(self, entry: Entry, outcome: Outcome, night: int) -> Entry:
        """Files an entry that has run again where it belongs now. A run that the harness failed says nothing: the entry
        stays what it was."""
        about = msgspec.structs.replace(entry.about, tried=night)
        place = entry.place
        if outcome.verdict == "error":
            if outcome.kind is not None and about.kind.check == outcome.kind.check:
                about = msgspec.structs.replace(about, failed=night)
        elif outcome.verdict == "fail" and outcome.kind is not None:
            about = msgspec.structs.replace(about, kind=outcome.kind, first=outcome.first, failed=night)
            place = FAILING
        else:
            place = FIXED
        return self._move(entry, about, place)

    def set_aside(self, entry: Entry) -> Entry:
        """An entry that this release cannot read."""
        return self._move(entry, entry.about, UNREADABLE)

    def _move(self, entry: Entry, about: About, place: str) -> Entry:
        data = msgspec.json.format(msgspec.json.encode(about)) + b"\n"
        _replace(entry.folder / ABOUT, data)
        target = self.directory / place / _name(about)
        if target != entry.folder:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():  # the same plan, kept before
                shutil.rmtree(target)
            entry.folder.rename(target)
        return Entry(target, about)


def _name(about: About) -> str:
    """Of a folder: the check, the kind, the run. The same for the same plan and kind."""
    check = re.sub(r"[^a-z0-9-]+", "-", about.kind.check.lower()).strip("-")[:40]
    scenario = re.sub(r"[^A-Za-z0-9._-]+", "-", about.scenario).strip("-.")[:40]
    key = "\x1f".join((about.kind.check, about.kind.shape, about.command))
    return f"{check}-{scenario}-s{about.seed}-{blake2b(key.encode(), digest_size=4).hexdigest()}"


def _about(folder: Path) -> About:
    try:
        return msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    except (OSError, ValueError) as error:
        raise _broken(folder, error) from None


def _broken(folder: Path, error: Exception) -> InputError:
    what = error.strerror if isinstance(error, OSError) else str(error)
    hint = "remove this folder, or put back what it held"
    return InputError([Problem(str(folder), 0, 0, "", f"a plan of the corpus that cannot be read: {what}", hint)])


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """All of it or nothing: what is not whole has another name."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, data in files.items():
        (part / name).write_bytes(data)
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)
