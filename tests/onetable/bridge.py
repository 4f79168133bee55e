"""Runs the JavaScript OneTable library in Node, for this folder and tests/live: install it, start it, talk to it.

The packages go into node_modules beside this file, which git ignores, once per change of package.json; npm fetches them
from wherever the machine's npm is set up to. Node is given an address on loopback and talks to nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from onetable.values import Raw, canonical, settled, to_tagged

HERE: Final = Path(__file__).resolve().parent
_INSTALL: Final = "install --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel=error"


class Missing(Exception):
    """Node or npm is not on this machine; the text says which, and what to do."""


class LibraryError(Exception):
    """What the library (or the server behind it) threw. `name`, `code` and `message` are its own."""

    def __init__(self, name: str, code: str | None, message: str) -> None:
        super().__init__(f"{name} {code}: {message}")
        self.name = name
        self.code = code
        self.message = message


def node() -> str:
    """Node's path, with the packages installed. Raises Missing; RuntimeError when npm fails."""
    programs = {name: shutil.which(name) for name in ("node", "npm")}
    absent = ", ".join(name for name, path in programs.items() if path is None)
    if absent:
        raise Missing(f"missing: {absent} (Debian: apt install nodejs npm). The JavaScript library was not run")
    wanted = hashlib.sha256((HERE / "package.json").read_bytes()).hexdigest()
    modules = HERE / "node_modules"
    modules.mkdir(exist_ok=True)
    stamp = modules / ".installed-for"
    with (modules / ".lock").open("w") as lock:  # test processes that run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            command = [str(programs["npm"]), *_INSTALL.split()]
            done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                raise RuntimeError(f"npm could not install tests/onetable/package.json: {done.stderr[-2000:]}")
            stamp.write_text(wanted)
    return str(programs["node"])


@dataclass(frozen=True)
class Bridge:
    """A running library. Every method raises LibraryError for what it throws, RuntimeError when Node has died."""

    process: subprocess.Popen[str]
    log: IO[str]

    def ask(self, do: str, **members: Any) -> Any:
        """One command, one answer; see `commands` in bridge.mjs. Values are tagged (onetable.values)."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps({"do": do, **members}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"Node has ended during {do!r}: {self.log.read()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise LibraryError(**answer["error"])
        return answer["ok"]

    def open(self, table: str, schema: Mapping[str, Any], context: Mapping[str, Any], *, create: bool = True) -> None:
        """Makes the table, indexes included, unless it is there (`create=False`)."""
        self.ask("open", table=table, schema=schema, context=context, create=create)

    def call(self, table: str, model: str, verb: str, props: Mapping[str, Any], now_ms: int = 0, **params: Any) -> Any:
        """`model.verb(props, params)`; its answer is tagged and settled. `now_ms` is the library's time."""
        members = {"table": table, "model": model, "verb": verb, "now_ms": now_ms}
        return settled(self.ask("call", properties=to_tagged(props), params=to_tagged(params), **members))

    def raw(self, table: str) -> list[Raw]:
        """Every item as it is stored, canonical, in the order of the keys."""
        return sorted(map(canonical, self.ask("raw", table=table)), key=lambda item: (item["pk"]["S"], item["sk"]["S"]))


@contextlib.contextmanager
def library(endpoint: str) -> Iterator[Bridge]:
    """The library, talking to the DynamoDB at `endpoint`. Raises as `node` does."""
    command = [node(), str(HERE / "bridge.mjs"), endpoint]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdin
        try:
            yield Bridge(process, log)
        finally:
            process.stdin.close()
            process.wait(20)
