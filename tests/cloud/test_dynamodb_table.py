"""The way to a table: every mistake of a person is told with its next step, and only our own tables are touched."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import CredentialRetrievalError
from dynamo_rig import adapter, moto_in_process
from emulators import KEY_ID, SECRET
from emulators import client as emulator_client

from cloud import dynamodb_table
from cloud.dynamodb_errors import Unusable, unusable
from cloud.dynamodb_table import Timeouts, connect, create_table, definition, open_table
from cloud.table import MARKER_KEY, Get, Put

READS = {"describe_table", "describe_time_to_live", "get_item"}


@pytest.fixture
def clients() -> Iterator[Callable[[str], Any]]:
    with moto_in_process() as made:
        yield made


@pytest.fixture(autouse=True)
def nobodys_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No credentials, region or files of whoever runs the tests; no look at a cloud machine's own credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


class Watched:
    """A client that notes which operations it is asked for."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.meta = client.meta
        self.asked: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.asked.add(name)
        return getattr(self.client, name)


# Connecting


def test_a_client_has_no_retries_of_its_own_and_keeps_to_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(region="eu-west-1", endpoint_url="http://127.0.0.1:1", timeouts=Timeouts(1.5, 2.5))
    assert client.meta.config.retries["total_max_attempts"] == 1
    assert client.meta.config.account_id_endpoint_mode == "disabled"
    assert (client.meta.config.connect_timeout, client.meta.config.read_timeout) == (1.5, 2.5)
    assert client.meta.endpoint_url == "http://127.0.0.1:1"
    assert connect(region="eu-west-1").meta.endpoint_url == "https://dynamodb.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "No region.*AWS_REGION"),
        ({"region": "eu west 1"}, "such as eu-west-1"),
        ({"region": "eu-west-1", "profile": "nobody"}, "nobody.*AWS_PROFILE"),
        ({"region": "eu-west-1", "endpoint_url": "127.0.0.1"}, r"127\.0\.0\.1.*--endpoint-url"),
    ],
)
def test_what_is_wrong_before_anything_is_sent_has_its_next_step(given: dict[str, str], words: str) -> None:
    with pytest.raises(Unusable, match=f"(?s){words}"):
        connect(**given)  # type: ignore[arg-type]


def test_missing_credentials_are_told_at_the_first_question() -> None:
    client = connect(region="eu-west-1", endpoint_url="http://127.0.0.1:1")
    with pytest.raises(Unusable, match=r"credentials.*AWS_ACCESS_KEY_ID"):
        open_table(client, "mine")
    with pytest.raises(Unusable, match=r"credentials.*AWS_ACCESS_KEY_ID"):
        adapter(client, "mine").execute(Get(("p", "s")))
    told = unusable(CredentialRetrievalError(provider="sso", error_msg="no token"))
    assert "no token" in told.problem


def test_an_address_where_nobody_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = connect(region="eu-west-1", endpoint_url=f"http://127.0.0.1:{port}")
    with pytest.raises(Unusable, match=f"(?s)'mine'.*127.0.0.1:{port}.*Check the endpoint"):
        open_table(client, "mine")


# The table


def make(client: Any, **changed: Any) -> Any:
    client.create_table(**{**definition("mine"), **changed})
    return client


def marked(client: Any) -> Any:
    adapter(client, "mine").execute(Put({"pk": MARKER_KEY[0], "sk": MARKER_KEY[1]}))
    return client


def lasting(client: Any, attribute: str = "ttl") -> Any:
    wanted = {"Enabled": True, "AttributeName": attribute}
    client.update_time_to_live(TableName="mine", TimeToLiveSpecification=wanted)
    return client


def test_a_table_of_ours_is_opened_by_reading_alone(clients: Callable[[str], Any]) -> None:
    client = Watched(lasting(marked(make(clients("dynamodb")))))
    assert open_table(client, "mine").endswith(client.describe_table(TableName="mine")["Table"]["LatestStreamLabel"])
    assert client.asked == READS


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"StreamSpecification": {"StreamEnabled": False}}, "no stream.*NEW_AND_OLD_IMAGES"),
        (
            {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}},
            "KEYS_ONLY.*NEW_AND_OLD_IMAGES",
        ),
        (
            {
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            },
            r"id \(HASH, S\).*pk \(HASH, S\) and sk \(RANGE, S\).*another table",
        ),
        (
            {
                "AttributeDefinitions": [
                    {"AttributeName": "pk", "AttributeType": "S"},
                    {"AttributeName": "sk", "AttributeType": "N"},
                ]
            },
            r"sk \(RANGE, N\)",
        ),
        ({}, "not Fleet's.*Nothing was changed"),
    ],
)
def test_a_table_that_is_not_fit_or_not_ours_is_refused_and_left_alone(
    clients: Callable[[str], Any], changed: dict[str, Any], words: str
) -> None:
    client = Watched(make(clients("dynamodb"), **changed))
    before = client.client.describe_table(TableName="mine")["Table"]
    with pytest.raises(Unusable, match=f"(?s){words}"):
        open_table(client, "mine")
    assert client.asked <= READS
    assert client.client.describe_table(TableName="mine")["Table"] == before


def test_a_time_to_live_that_is_off_or_elsewhere_is_refused(clients: Callable[[str], Any]) -> None:
    client = Watched(marked(make(clients("dynamodb"))))
    with pytest.raises(Unusable, match=r"(?s)time to live of table 'mine'.*DISABLED.*provision.*--yes"):
        open_table(client, "mine")
    lasting(client.client, "expires")
    assert open_table(client, "mine") == open_table(client, "mine", "expires")
    with pytest.raises(Unusable, match=r"(?s)in 'expires'.*'ttl'.*one attribute.*ttl_attribute"):
        open_table(client, "mine", "ttl")
    assert client.asked <= READS


def test_a_table_that_is_not_there_is_named_with_region_and_address(clients: Callable[[str], Any]) -> None:
    make(clients("dynamodb"))
    with pytest.raises(Unusable, match=r"'other' in us-east-1 at .*dynamodb.*region.*fleet-cloud provision"):
        open_table(clients("dynamodb"), "other")


def test_a_table_of_another_region_is_not_found(clients: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    make(clients("dynamodb"))
    known(monkeypatch)
    with pytest.raises(Unusable, match=r"'mine' in eu-west-1.*region"):
        open_table(connect(region="eu-west-1"), "mine")


def test_a_table_that_is_being_made_is_waited_for_by_the_person() -> None:
    with pytest.raises(Unusable, match=r"CREATING.*Wait"):
        dynamodb_table.check_description({"TableStatus": "CREATING"}, "table 'mine'")


def test_a_table_that_went_away_is_told_to_every_request(clients: Callable[[str], Any]) -> None:
    client = make(clients("dynamodb"))
    client.delete_table(TableName="mine")
    for request in (Get(("p", "s")), Put({"pk": "p", "sk": "s"})):
        with pytest.raises(Unusable, match=r"not there.*Check the table's name"):
            adapter(client, "mine").execute(request)


# Making one


@pytest.mark.parametrize("kind", ["moto", "ministack"])
def test_an_emulator_gets_a_table_that_can_be_opened(kind: str, request: pytest.FixtureRequest) -> None:
    client = emulator_client(request.getfixturevalue(kind))
    assert create_table(client, "made") == open_table(client, "made")
    client.delete_table(TableName="made")


def test_a_table_that_exists_is_left_as_it_is(moto: str) -> None:
    client = emulator_client(moto)
    make(client)
    adapter(client, "mine").execute(Put({"pk": "p", "sk": "s"}))
    with pytest.raises(Unusable, match=r"already.*left as it is"):
        create_table(client, "mine")
    assert [item["pk"]["S"] for item in client.scan(TableName="mine")["Items"]] == ["p"]
    client.delete_table(TableName="mine")


@pytest.mark.parametrize(
    "host",
    [
        "dynamodb.eu-west-1.amazonaws.com",
        "127.0.0.1.example",
        "localhost.example:8000",
        "10.0.0.1:8000",
        "127.0.0.1@10.0.0.1",
        "not an address",
    ],
)
def test_no_table_is_made_anywhere_but_on_this_machine(clients: Callable[[str], Any], host: str) -> None:
    class Meta:
        endpoint_url = f"http://{host}"
        region_name = "eu-west-1"

    client = Watched(clients("dynamodb"))
    client.meta = Meta()
    with pytest.raises(Unusable, match=r"no emulator on this machine.*provision"):
        create_table(client, "mine")
    assert not client.asked


@pytest.mark.parametrize("host", ["localhost:8000", "127.8.9.1:8000", "[::1]:8000"])
def test_this_machine_is_known_by_its_names(clients: Callable[[str], Any], host: str) -> None:
    class Meta:
        endpoint_url = f"http://{host}"
        region_name = "eu-west-1"

    client = Watched(clients("dynamodb"))
    client.meta = Meta()
    create_table(client, "mine")
    assert client.asked == {"create_table", "update_time_to_live", "put_item"}
