"""Tokens of devices against the registry, and how often an address may be wrong. Called by pytest only."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.credentials import KNOWN_MS, Credentials, digest_of
from cloud.failures import Failures, network_of
from cloud.listener_config import ListenerConfig
from cloud.registry import TOKEN, device_key, registration, with_token
from cloud.table import Item, Put, Throttled


class Desk:
    """The check, the items that it finds, and the reads that it took."""

    def __init__(self, every: str = "") -> None:
        self.ms = 0
        self.reads = 0
        self.items: dict[Any, Item] = {
            device_key("a"): {"account": "main", TOKEN: digest_of("right")},
            device_key("bare"): {"account": "main"},
            device_key("odd"): {"account": 7, TOKEN: digest_of("right")},
        }
        self.credentials = Credentials(lambda: self.ms, every)

    def check(self, device: str, token: str | None, again: bool = False) -> str | None:
        work = self.credentials.check(device, None if token is None else digest_of(token), again)
        try:
            request: Any = next(work)
            while True:
                self.reads += 1
                request = work.send(self.items.get(request.key))
        except StopIteration as end:
            found: str | None = end.value
            return found


def test_a_token_is_right_for_its_device_alone() -> None:
    desk = Desk()
    assert desk.check("a", "right") == "main"
    for device, token in (("a", "wrong"), ("bare", "right"), ("bare", ""), ("stranger", "right"), ("odd", "right")):
        assert desk.check(device, token) is None
    assert desk.check("a", None) == desk.check("bare", None) == "main"  # by certificate
    assert desk.check("stranger", None) is None


def test_what_was_proved_costs_no_read_for_a_while_and_a_new_token_counts_at_once() -> None:
    desk = Desk()
    assert desk.check("a", "right") == desk.check("a", "right") == "main" and desk.reads == 1
    desk.items[device_key("a")] = {"account": "other", TOKEN: digest_of("new")}
    assert desk.check("a", "new") == "other" and desk.reads == 2
    assert desk.check("a", "right") is None
    desk.items[device_key("a")] = {"account": "main", TOKEN: digest_of("newer")}
    assert desk.check("a", "new") == "other"  # remembered still
    assert desk.check("a", "new", again=True) is None
    assert not desk.credentials.was_proved("a", digest_of("new"))
    assert desk.check("a", "newer") == "main" and desk.credentials.was_proved("a", digest_of("newer"))
    reads = desk.reads
    desk.ms += KNOWN_MS
    assert desk.check("a", "newer") == "main" and desk.reads == reads + 1


def test_one_account_for_all_still_wants_a_token_or_a_certificate() -> None:
    desk = Desk("one")
    assert desk.check("a", "right") == desk.check("stranger", None) == "one"
    assert desk.check("a", "wrong") is None and desk.check("stranger", "right") is None


def test_errors_of_the_table_are_the_callers() -> None:
    work = Desk().credentials.check("a", digest_of("right"))
    next(work)
    with pytest.raises(Throttled):
        work.throw(Throttled("busy"))


def test_the_registry_keeps_a_hash_and_only_of_the_accounts_own_device() -> None:
    made = registration("a", "main", 1)
    assert isinstance(made.actions[0], Put) and TOKEN not in made.actions[0].item
    update = with_token("a", digest_of("secret"), "main")
    assert update.set == {TOKEN: digest_of("secret")} and update.condition == (("eq", "account", "main"),)
    assert "secret" not in repr(update)


def test_failures_are_counted_for_each_address_and_forgiven_in_time() -> None:
    now = [0]
    failures = Failures(3, 6, lambda: now[0])
    for _ in range(3):
        assert not failures.too_many("a")
        failures.add("a")
    assert failures.too_many("a") and not failures.too_many("b")
    now[0] += 10_000
    assert not failures.too_many("a")
    failures.add("a")
    assert failures.too_many("a")
    now[0] += 60_000
    for _ in range(3):
        assert not failures.too_many("a")
        failures.add("a")
    assert failures.too_many("a")


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    failures = Failures(1, 1, lambda: 0)
    for number in range(12_000):
        failures.add(str(number))
    assert not failures.too_many("0") and failures.too_many("11999")


def test_an_address_of_ipv6_counts_with_its_neighbours() -> None:
    assert network_of("192.0.2.7") == network_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert network_of("2001:db8::1") == network_of("2001:db8::2") == "2001:db8::/64"
    assert network_of("2001:db8:0:1::1") == "2001:db8:0:1::/64" and network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("odd") == "odd"


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"connections": 0}, "connections 0: at least 1"),
        ({"queue_bytes": 1_000}, "one message"),
        ({"ping_ms": 60_000}, "must be less than idle_ms"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        ListenerConfig(**wrong)
