"""What device and relay agree on for a WebSocket: path, header, frames, topics, and the registration file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol import topics
from agent.protocol.errors import InputError
from agent.protocol.registration import Registration, registration_of, text_of
from agent.protocol.websocket import TOKEN_CHARS_MAX, bearer, device_of, framed, path_of, token_of, unframed


def test_a_path_names_its_device_and_nothing_else_does() -> None:
    assert path_of("home-1") == "/v1/home-1" and device_of(path_of("a:b_c.d-e")) == "a:b_c.d-e"
    for path in ("", "/", "/v1", "/v1/", "/v1/a/b", "/v2/a", "v1/a", "/v1/all", "/v1/a?b", "/v1/%61", "/v1/a\n"):
        assert device_of(path) is None


def test_a_header_holds_one_token() -> None:
    assert token_of(bearer("secret")) == "secret" and token_of("BEARER  x ") == "x"
    for value in ("", "secret", "Bearer", "Bearer ", "Basic x", "Bearer a b", "Bearer \xe9", "Bearer a\tb"):
        assert token_of(value) is None
    assert token_of(bearer("x" * TOKEN_CHARS_MAX)) and token_of(bearer("x" * (TOKEN_CHARS_MAX + 1))) is None


@given(st.binary(max_size=40))
def test_a_message_comes_out_of_its_frame_as_it_went_in(payload: bytes) -> None:
    assert unframed(framed(payload)) == payload
    assert isinstance(framed(b'{"t":"hello"}'), str) and isinstance(framed(b"\x81\xa1t"), bytes)


def test_a_topic_tells_who_hears_it() -> None:
    assert topics.audience(topics.to_device("a")) == ("device", "a")
    assert topics.audience(topics.to_account("a")) == ("account", "a")
    assert topics.audience(topics.to_all()) == ("account", topics.ALL)
    for topic in ("", topics.from_device("a"), "ioto/device/all/sync", "ioto/device//sync", "x/device/a/sync", "ioto"):
        assert topics.audience(topic) is None


def test_a_registration_is_read_as_it_was_written_and_newer_keys_are_left_alone() -> None:
    made = Registration(device="home-1", account="main", token="secret", url="wss://relay.example")
    assert registration_of(text_of(made), "f") == made
    assert registration_of('{"device": "a", "account": "b", "later": 1}', "f") == Registration(device="a", account="b")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["f: is no registration", "fleet-cloud register"]),
        ("[]", ["is no registration"]),
        ("\xff", ["is no registration"]),
        ('{"device": "a"}', ["account"]),
        ('{"device": 1, "account": "b"}', ["device"]),
        ('{"device": "a/b", "account": "all", "token": "\\u0000"}', ["'a/b' is no id", "'all' is no id", "f: token"]),
        ('{"device": "a", "account": "b", "fleet": 2}', ["version 2, expected 1"]),
    ],
)
def test_a_file_that_is_no_registration_is_refused_with_every_mistake(text: str, parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        registration_of(text.encode("latin-1"), "f")
    told = "\n".join(map(str, error.value.problems))
    for part in parts:
        assert part in told
