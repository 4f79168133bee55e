"""How these tests stay the same from run to run, and what enforces it. Read by pytest before any test.

- Time: no test sleeps or waits for the clock on the wall. Virtual time is driven by the test; a real process is waited
  for by what it says or does, within pytest's limit (`timeout` in pyproject.toml). No test asserts a speed: machines
  differ. Ratios measured in the same process (linear or not) are fine; figures belong to `make bench`.
- Chance: seeds are written in the test. Hypothesis explores on a developer's machine and is derandomised where CI is
  set, so that a change is judged by its own content. What exploring finds becomes an explicit example.
- Network: loopback only, and port 0, so that two runs on one machine never meet. A connection to anywhere else fails
  the test that tried it.
- Files: under `tmp_path` only. A test leaves nothing behind, and reads nothing that another test wrote. What npm
  installs, once, is kept in tests/onetable/node_modules.
- Real parts: a browser, a broker, the JavaScript library. With CI=true a missing one is a failure, never a skip.
- Tiers: the fast tier (`make test`) is seconds; what needs minutes is marked `slow` (`make slow`) and has hours.

test_tidy.py scans for the traps that can be seen in the source: sleeping, unseeded chance, skipped tests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import botocore.session
import pytest
from botocore.loaders import create_loader
from emulators import ministack_server, moto_server
from hypothesis import HealthCheck, settings
from onetable.bridge import Bridge, Missing, library, node

CI: Final = os.environ.get("CI", "").lower() in ("1", "true", "yes")

# Generating may be slow on a loaded machine, which says nothing about the code: no deadline, no check of speed.
_common = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", _common, max_examples=60)
settings.register_profile("ci", _common, max_examples=100, derandomize=True, database=None)
settings.register_profile("deep", _common, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if CI else "dev"))

# A test makes many sessions of botocore, and each would read its descriptions of the services anew: megabytes of JSON.
botocore.session.create_loader = cache(create_loader)

_SLOW_LIMIT_S: Final = 7_200  # of a slow test that names none: it guards against one that hangs, not against load
_LOOPBACK: Final = ("127.", "::1", "localhost")


def _refuse_the_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    address = arguments[1]
    if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
        raise PermissionError(f"a test tried to connect to {address[0]}:{address[1]}; tests use loopback only")


sys.addaudithook(_refuse_the_network)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SLOW_LIMIT_S))


@pytest.fixture(scope="session")
def ci() -> bool:
    """Whether a missing real part must fail the test."""
    return CI


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the source tree."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of moto's DynamoDB. Whoever uses it makes tables of their own names, and removes them."""
    with moto_server() as address:
        yield address


@pytest.fixture(scope="session")
def ministack() -> Iterator[str]:
    """The address of ministack's DynamoDB, under the same rule."""
    with ministack_server() as address:
        yield address


@pytest.fixture(scope="session")
def javascript(request: pytest.FixtureRequest, ci: bool) -> Iterator[Bridge]:
    """The JavaScript OneTable library in Node, over moto's DynamoDB; tables as for `moto`."""
    try:
        node()
    except Missing as missing:
        if ci:
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with library(request.getfixturevalue("moto")) as bridge:
        yield bridge
