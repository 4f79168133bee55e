"""The running JavaScript library, for the tests of this folder. In CI it must be there; elsewhere the tests say so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from onetable.bridge import Missing, library, node
from onetable.capture import Library, connect


@pytest.fixture(scope="session")
def live(request: pytest.FixtureRequest, ci: bool) -> Iterator[Library]:
    """The library in Node, over moto's DynamoDB, with boto3 beside it."""
    try:
        node()
    except Missing as missing:
        if ci:
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    address = request.getfixturevalue("moto")
    with library(address) as bridge:
        yield connect(bridge, address)
