"""What the agent takes of a small device: room on its disk, time to start, memory. Real processes; Linux only (/proc).

The room is that of the base install besides Python itself: this distribution with its bytecode, as pip leaves it, and
what it depends on without extras, in blocks of 4 KB. Start and memory are those of `fleet-agent run` in an empty
folder: until its socket is served, and where mosquitto is installed, until it is connected to a broker here.
"""

from __future__ import annotations

import compileall
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

from agent.api.client import Client
from benchmarks.measure import Effort, Result
from fleet.live.parts import Mosquitto, NotInstalled
from fleet.live.processes import Processes

QUESTION: Final = "what does the agent take of a device?"
ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("agent", "cloud", "fleet", "reports", "scenarios")  # of the wheel
WRITES: Final = 1_000
WRITES_QUICK: Final = 20
NOWHERE: Final = "mqtt://127.0.0.1:9"
LIMIT_S: Final = 60.0
_BLOCK_BYTES: Final = 4_096
_MB: Final = 1 << 20


# Room.


def blocks(path: Path) -> int:
    """Bytes that a file takes."""
    return -(-path.stat().st_size // _BLOCK_BYTES) * _BLOCK_BYTES


def own_bytes() -> int:
    """Of this distribution, installed."""
    with tempfile.TemporaryDirectory(prefix="fleet-benchmark-") as folder:
        for name in PACKAGES:
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(folder, quiet=2)
        return sum(blocks(path) for path in Path(folder).rglob("*") if path.is_file())


def needed(name: str, found: dict[str, None]) -> dict[str, None]:
    """The names of what `name` depends on without extras, and what that depends on, here."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found[requirement.name] = None
            needed(requirement.name, found)
    return found


def installed_bytes(name: str) -> int:
    """Of another distribution, by the list of its files."""
    places = (Path(str(file.locate())) for file in distribution(name).files or ())
    return sum(blocks(place) for place in places if place.is_file())


# A process.


class Running:
    """`fleet-agent run` in a folder of its own. `began_s`: before it was started, on the clock on the wall."""

    def __init__(self, folder: Path, url: str) -> None:
        shutil.copy(ROOT / "scenarios/schemas/fleet.json5", folder / "schema.json5")
        config = folder / "agent.toml"
        config.touch(0o600)
        config.write_text(
            f'[device]\nid = "home-1"\naccount = "main"\n[connection]\nurl = "{url}"\n'
            '[session]\nboot_jitter = "0s"\n[log]\nformat = "json"\n'
        )
        self.socket = str(folder / "agent.db-api/socket")
        command = [sys.executable, "-m", "agent.cli", "run", "--config", str(config)]
        self.began_s = time.perf_counter()
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def until(self, event: str) -> float:
        """Seconds from the start of the process until it said so."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if json.loads(line)["event"] == event:
                return time.perf_counter() - self.began_s
        raise SystemExit(f"the agent ended without {event}")

    def memory_mb(self, name: str) -> float:
        """`VmRSS`, what it has now, or `VmHWM`, the most that it had."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=LIMIT_S)


@contextmanager
def running(url: str) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="fleet-benchmark-") as folder:
        agent = Running(Path(folder), url)
        try:
            yield agent
        finally:
            agent.end()


def measured(url: str, writes: int) -> dict[str, float]:
    """One life. `url`: of a broker, or NOWHERE."""
    found: dict[str, float] = {}
    with running(url) as agent:
        found["start, until it serves"] = agent.until("started")
        if url != NOWHERE:
            found["start, until it is connected"] = agent.until("connected")
        found["start, CPU"] = agent.cpu_s()
        found["resident, started"] = agent.memory_mb("VmRSS")
        with Client(agent.socket, LIMIT_S) as client:
            for number in range(writes):
                client.ask("upsert", model="Setting", item={"name": f"s{number % 100}", "rev": number})
        found["resident at most, after writes"] = agent.memory_mb("VmHWM")
    return found


def run(effort: Effort) -> Result:
    result = Result("agent", QUESTION)
    own = own_bytes()
    others = {name: installed_bytes(name) for name in needed("fleet-sync", {})}
    largest = ", ".join(sorted(others, key=others.__getitem__, reverse=True)[:4])
    result.add("base install", [(own + sum(others.values())) / _MB], "MB", "besides Python itself")
    result.add("base install, what it depends on", [sum(others.values()) / _MB], "MB", f"{len(others)}: {largest}, …")
    writes = WRITES_QUICK if effort.small else WRITES
    lives: list[dict[str, Any]] = []
    with ExitStack() as stack:
        url, note = NOWHERE, "without a broker: mosquitto is not installed"
        try:
            broker = Mosquitto(stack.enter_context(Processes()), Path(stack.enter_context(_folder())))
            broker.start()
            url, note = broker.url, "a broker on this machine"
        except NotInstalled:
            pass
        lives = [measured(url, writes) for _ in range(1 if effort.repeats < 3 else effort.repeats)]
    for name in lives[0]:
        unit = "MB" if name.startswith("resident") else "s CPU" if name.endswith("CPU") else "s wall"
        result.add(name, [life[name] for life in lives], unit, f"{writes} writes" if "writes" in name else note)
    return result


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fleet-benchmark-")
