"""The emulators start empty, on loopback, apart from each other, and are gone with their contexts."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from emulators import client, moto_server

from fleet.live import parts
from fleet.live.processes import NotReady

TABLE: Final[dict[str, Any]] = {
    "TableName": "mine",
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
    "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
}


def test_two_servers_are_on_loopback_and_share_nothing() -> None:
    with moto_server() as one, moto_server() as other:
        assert urlsplit(one).hostname == urlsplit(other).hostname == "127.0.0.1"
        client(one).create_table(**TABLE)
        assert client(one).list_tables()["TableNames"] == ["mine"]
        assert client(other).list_tables()["TableNames"] == []


@pytest.mark.parametrize("kind", ["moto", "ministack"])
def test_streams_are_served_at_the_same_address(kind: str, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue(kind)
    assert urlsplit(address).hostname == "127.0.0.1"
    client(address).create_table(**{**TABLE, "TableName": "streamed"})
    client(address).put_item(TableName="streamed", Item={"pk": {"S": "a"}})
    streams = client(address, "dynamodbstreams")
    (stream,) = streams.list_streams(TableName="streamed")["Streams"]
    assert streams.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]["Shards"]
    client(address).delete_table(TableName="streamed")


def test_a_server_is_gone_with_its_context_even_after_an_error() -> None:
    from botocore.exceptions import EndpointConnectionError

    with pytest.raises(ZeroDivisionError), moto_server() as address:
        client(address).list_tables()
        raise ZeroDivisionError
    with pytest.raises(EndpointConnectionError):
        client(address).list_tables()


def test_a_server_that_does_not_start_is_an_error_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_PROGRAM", "no-such-program.py")
    with pytest.raises(NotReady, match=r"(?s)moto is not ready: .*no-such-program\.py"), moto_server():
        pass
