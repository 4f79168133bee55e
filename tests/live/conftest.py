"""Real brokers and processes for the tests of this folder. In CI they must be there; elsewhere the tests say so."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_rig import Mosquitto, mosquitto

from fleet.live.parts import NotInstalled, program


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: agents have sockets below it, whose paths may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="f-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def mosquitto_is_there(ci: bool) -> None:
    """For tests of what starts a broker itself."""
    try:
        program("mosquitto")
    except NotInstalled as missing:
        if ci:
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture
def broker(tmp_path: Path, mosquitto_is_there: None) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path) as started:
        yield started
