"""The running JavaScript library, for the tests of this folder."""

from __future__ import annotations

import pytest
from onetable.bridge import Bridge
from onetable.capture import Library, connect


@pytest.fixture(scope="session")
def live(javascript: Bridge, moto: str) -> Library:
    """The library in Node, over moto's DynamoDB, with boto3 beside it."""
    return connect(javascript, moto)
