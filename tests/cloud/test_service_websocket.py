"""The relay's WebSocket listener on loopback: who is let in, what is heard by whom, and how connections end.

Hostile clients have tests/cloud/test_service_websocket_hostile.py. Time is the test's own. Called by pytest only.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
from trio_websocket import WebSocketConnection
from websocket_rig import Site, certificates, closing, handshake, later, received, run, token_for

from agent.protocol import websocket
from agent.protocol.messages import MESSAGE_BYTES_MAX
from agent.protocol.topics import to_account, to_all, to_device
from cloud.credentials import digest_of
from cloud.listener_config import ListenerConfig
from cloud.registry import TOKEN
from cloud.table import Publish, Throttled


async def hears(client: WebSocketConnection) -> str | bytes:
    with trio.fail_after(60):
        return await client.get_message()


# Let in, and served.


def test_a_device_is_who_its_token_says_and_messages_go_both_ways() -> None:
    async def test(site: Site) -> None:
        async with site.client("home-1") as client:
            assert client.subprotocol == websocket.SUBPROTOCOL
            for sent, payload in (("{}", b"{}"), (b"\x81\xa1t\xa1x", b"\x81\xa1t\xa1x"), ("é", "é".encode())):
                await client.send_message(sent)
                message = await site.next()
                assert (message.device, message.payload) == ("home-1", payload)
                await message.publish(Publish(to_device("home-1"), payload, 1))
                assert await hears(client) == (payload if payload[:1] != b"{" else "{}")
        await site.until(lambda: not site.listener.connections)
        assert site.counters["websocket_connected"] == site.counters["websocket_closed_device"] == 1
        assert site.counters["websocket_messages_in"] == site.counters["websocket_messages_out"] == 3
        assert site.counters["publish_taken"] == 3 and site.counters["websocket_bytes_in"] > 200
        assert not site.lines  # nothing of that is worth a line

    run(test)


def test_a_push_goes_to_whom_its_topic_is_for() -> None:
    async def test(site: Site) -> None:
        async with site.client("home-1") as first, site.client("home-2") as second, site.client("away-1") as away:
            for topic in (to_device("home-1"), to_account("main"), to_all(), to_device("nobody"), to_account("none")):
                site.listener.push(Publish(topic, b'{"to": "' + topic.encode() + b'"}', 0))
            site.listener.push(Publish("elsewhere/device/home-1/sync", b"{}", 0))
            site.listener.push(Publish(to_all(), b"the end", 0))
            heard = {}
            for name, client in (("first", first), ("second", second), ("away", away)):
                messages = []
                while (message := await hears(client)) != b"the end":
                    messages.append(str(message).split("/")[1:3])
                heard[name] = messages
        assert heard["first"] == [["device", "home-1"], ["account", "main"], ["account", "all"]]
        assert heard["second"] == [["account", "main"], ["account", "all"]]
        assert heard["away"] == [["account", "all"]]

    run(test)


def test_an_answer_to_a_device_that_has_gone_is_lost_and_counted() -> None:
    async def test(site: Site) -> None:
        async with site.client("home-1") as client:
            await client.send_message("{}")
            message = await site.next()
        await site.until(lambda: not site.listener.connections)
        await message.publish(Publish(to_device("home-1"), b"{}", 1))
        assert site.counters["publish_lost"] == 1

    run(test)


def test_the_second_connection_of_a_device_takes_the_place_of_the_first() -> None:
    async def test(site: Site) -> None:
        async with site.client("home-1") as old, site.client("home-1") as new:
            assert await closing(old) == websocket.REPLACED
            site.listener.push(Publish(to_account("main"), b"{}", 0))
            assert await hears(new) == "{}"
            await new.send_message("{}")
            assert (await site.next()).device == "home-1"
            assert len(site.listener.connections) == 1
        assert site.counters["websocket_closed_replaced"] == 1
        assert len(site.told("websocket-closed", "replaced")) == 1

    run(test)


# Not let in.


@pytest.mark.parametrize(
    ("device", "token", "path", "subprotocol", "status", "reason"),
    [
        ("home-1", "", None, "fleet.v1", 401, "credentials"),
        ("home-1", "wrong", None, "fleet.v1", 401, "credentials"),
        ("home-1", token_for("home-2"), None, "fleet.v1", 401, "credentials"),
        ("home-1", "x" * (websocket.TOKEN_CHARS_MAX + 1), None, "fleet.v1", 401, "credentials"),
        ("stranger", None, None, "fleet.v1", 401, "credentials"),
        ("bare", None, None, "fleet.v1", 401, "credentials"),
        ("home-1", None, "/", "fleet.v1", 404, "path"),
        ("home-1", None, "/v2/home-1", "fleet.v1", 404, "path"),
        ("home-1", None, "/v1/home-1/x", "fleet.v1", 404, "path"),
        ("home-1", None, "/v1/home-1?token=x", "fleet.v1", 404, "path"),
        ("all", None, None, "fleet.v1", 404, "path"),
        ("home-1", None, None, "fleet.v9", 400, "subprotocol"),
        ("home-1", None, None, "", 400, "subprotocol"),
    ],
)
def test_who_is_refused_is_told_why_counted_and_logged_once(
    device: str, token: str | None, path: str | None, subprotocol: str, status: int, reason: str
) -> None:
    async def test(site: Site) -> None:
        for _ in range(5):
            found, _ = await site.refused(device, token=token, path=path, subprotocol=subprotocol)
            assert found == status
        assert site.counters[f"websocket_refused_{reason}"] == 5
        assert len(site.told("websocket-refused", reason)) == 1
        async with site.client("home-1"):
            assert list(site.listener.connections) == ["home-1"]

    run(test)


def test_two_authorizations_are_none() -> None:
    async def test(site: Site) -> None:
        value = websocket.bearer(token_for("home-1")).encode()
        status, _ = await site.refused(headers=[(b"Authorization", value), (b"Authorization", value)])
        assert status == 401

    run(test)


def test_an_unknown_device_one_without_a_token_and_a_wrong_token_cost_the_same_time_to_the_instant() -> None:
    async def test(site: Site) -> None:
        config = site.listener.config
        for device, token in (("home-1", "wrong"), ("stranger", None), ("bare", None), ("home-1", "")):
            _, took_s = await site.refused(device, token=token)
            assert took_s == pytest.approx(config.refusal_ms / 1000, abs=0.02)
        async with site.client("home-1"):  # who is right does not wait
            pass

    run(test)


def test_a_table_that_does_not_answer_refuses_nobody_for_good() -> None:
    async def test(site: Site) -> None:
        site.registry.failing = Throttled("busy")
        assert (await site.refused("home-1"))[0] == 503
        assert site.counters["websocket_refused_table_throttled"] == 1
        site.registry.failing = None
        async with site.client("home-1"):
            site.registry.failing = Throttled("busy")
        async with site.client("home-1"):  # its token was right a moment ago
            pass

    run(test)


def test_over_the_limit_a_new_device_is_told_to_come_later_and_one_that_is_there_may_come_again() -> None:
    async def test(site: Site) -> None:
        async with site.client("home-1") as first, site.client("home-2"):
            assert (await site.refused("away-1"))[0] == 503
            assert site.counters["websocket_refused_full"] == 1
            async with site.client("home-1"):
                assert await closing(first) == websocket.REPLACED
        await site.until(lambda: not site.listener.connections)
        async with site.client("away-1"):
            pass

    run(test, ListenerConfig(connections=2))


# Time.


def test_a_device_that_says_nothing_stays_for_as_long_as_it_answers_pings() -> None:
    async def test(site: Site) -> None:
        async with site.client("home-1") as client:
            await later(site.listener.config.idle_ms / 1000 * 10)
            site.listener.push(Publish(to_all(), b"{}", 0))
            assert await hears(client) == "{}"

    run(test)


def test_one_that_answers_no_ping_is_closed() -> None:
    async def test(site: Site) -> None:
        began = trio.current_time()
        async with site.raw("home-1") as stream:
            assert b"\x88" in await received(stream)  # a close frame is among what came
        config = site.listener.config
        assert config.idle_ms <= (trio.current_time() - began) * 1000 < config.idle_ms + 3 * config.ping_ms
        await site.until(lambda: site.counters["websocket_closed_idle"] == 1)

    run(test)


def test_an_open_connection_ends_when_its_token_is_another_and_goes_with_its_device_to_another_account() -> None:
    async def test(site: Site) -> None:
        recheck_s = site.listener.config.recheck_ms / 1000
        async with site.client("home-1") as one, site.client("home-2") as two:
            site.registry.failing = Throttled("busy")
            await later(2 * recheck_s)
            assert len(site.listener.connections) == 2  # a table that does not answer says nothing of them
            site.registry.failing = None
            site.registry.items["home-2"] = {**site.registry.items["home-2"], "account": "other"}
            site.registry.items["home-1"] = {**site.registry.items["home-1"], TOKEN: digest_of("another")}
            assert await closing(one) == websocket.REVOKED
            await later(recheck_s)
            site.listener.push(Publish(to_account("main"), b"{main}", 0))
            site.listener.push(Publish(to_account("other"), b"{other}", 0))
            assert await hears(two) == "{other}"
        assert (await site.refused("home-1"))[0] == 401
        async with site.client("home-1", token="another"):
            pass

    run(test)


# Flow.


def test_while_the_inbox_is_full_nothing_is_read_and_nothing_is_lost() -> None:
    async def test(site: Site) -> None:
        async with site.client("home-1") as first, site.client("home-2") as second:
            for number in range(5):  # more than are read ahead
                await first.send_message(f"{{{number}}}")
                await second.send_message(f"{{{number}}}")
            await site.until(lambda: site.counters["inbox_full"] >= 2)
            assert site.intake.waiting == 2
            await later(site.listener.config.idle_ms / 1000 * 3)
            assert len(site.listener.connections) == 2  # they are not silent: nobody listens
            got = [await site.next() for _ in range(10)]
        for device in ("home-1", "home-2"):
            assert [each.payload for each in got if each.device == device] == [b"{0}", b"{1}", b"{2}", b"{3}", b"{4}"]

    run(test, inbox=2)


def test_a_device_that_floods_is_refused_beyond_its_places_and_harms_no_other() -> None:
    async def test(site: Site) -> None:
        async with site.client("home-1") as first, site.client("home-2") as second:
            for number in range(50):
                await first.send_message(f"{{{number}}}")
            await second.send_message("{}")
            await site.until(lambda: site.counters["message_received"] == 51)
            assert site.counters["message_refused_flood"] == 41
            assert len(site.told("device-floods")) == 1
            assert {(await site.next()).device for _ in range(2)} == {"home-1", "home-2"}

    run(test)


def test_a_relay_that_stops_sends_what_waits_and_sends_devices_away() -> None:
    async def test(site: Site) -> None:
        async with site.client("home-1") as one, site.client("home-2") as two:
            await one.send_message("{}")
            message = await site.next()
            site.listener.stop()
            await two.send_message("{late}")
            with pytest.raises((BaseExceptionGroup, OSError)):
                async with site.client("away-1"):
                    pass
            await message.publish(Publish(to_device("home-1"), b"{answer}", 1))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.listener.finish)
                assert await hears(one) == "{answer}"
                assert [await closing(each) for each in (one, two)] == [websocket.GOING_AWAY] * 2
        assert site.intake.waiting == 0 and site.counters["websocket_closed_stopping"] == 2

    run(test)


# TLS.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    certificates(made, "server", "home-1", "stranger")
    return made


def server_side(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def device_side(folder: Path, name: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def test_over_tls_a_certificate_of_its_name_is_as_good_as_a_token(folder: Path) -> None:
    async def test(site: Site) -> None:
        for name, token in (("home-1", ""), ("", token_for("home-1")), ("stranger", token_for("home-1"))):
            async with site.client("home-1", token=token, tls=device_side(folder, name)) as client:
                await client.send_message("{" + "x" * (MESSAGE_BYTES_MAX - 2) + "}")
                assert len((await site.next()).payload) == MESSAGE_BYTES_MAX
        for device, name in (("home-1", "stranger"), ("home-2", "home-1"), ("stranger", "stranger"), ("home-1", "")):
            assert (await site.refused(device, token="", tls=device_side(folder, name)))[0] == 401
        assert site.counters["websocket_refused_credentials"] == 4

    run(test, tls=server_side(folder))


def test_where_all_devices_have_one_account_a_certificate_needs_no_registration(folder: Path) -> None:
    async def test(site: Site) -> None:
        async with site.client("stranger", token="", tls=device_side(folder, "stranger")) as client:
            site.listener.push(Publish(to_account("one"), b"{}", 0))
            assert await hears(client) == "{}"

    run(test, tls=server_side(folder), every="one")


def test_plain_words_on_a_port_with_tls_and_a_foreign_certificate_are_refused(folder: Path, tmp_path: Path) -> None:
    certificates(tmp_path, "home-1")
    foreign = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    foreign.load_cert_chain(tmp_path / "home-1.pem", tmp_path / "home-1.key")

    async def test(site: Site) -> None:
        async with site.raw(request=handshake("home-1")) as stream:
            assert b"HTTP" not in await received(stream)
        with pytest.raises(BaseExceptionGroup):
            async with site.client("home-1", token="", tls=foreign):
                pass
        await site.until(lambda: site.counters["websocket_refused_tls"] == 2)
        async with site.client("home-1", tls=device_side(folder)):
            pass

    run(test, tls=server_side(folder))
