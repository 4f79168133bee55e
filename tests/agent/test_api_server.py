"""The agent's socket: requests and answers, watching, clients that mean harm or are broken. Called by pytest only."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from relay_rig import FILE, NOW_MS

from agent.api import requests as api
from agent.api.client import Client, NoAgent, remote
from agent.api.server import CLIENTS_MAX, Server, SocketError, listen
from agent.api.serving import Serving
from agent.database import Database
from agent.files import open_memory
from agent.protocol.commands.failure import CommandError
from agent.protocol.errors import ModelError
from agent.protocol.log import Log
from agent.protocol.schema import Context, Schema
from fleet.rng import rng

LIMIT_S = 30.0


@contextmanager
def serving(folder: Path, schema: Path = FILE) -> Iterator[tuple[str, Database, list[dict[str, Any]]]]:
    """A server in a thread of its own: the path of its socket, its database, the events of its log."""
    database = Database(
        open_memory(), Schema.load(schema), Context("home-1", "main"), monotonic_ms=lambda: 0, wall_ms=lambda: NOW_MS,
        random=rng(1, "api", "ids"),
    )  # fmt: skip
    said: list[dict[str, Any]] = []
    log = Log(lambda line: said.append(json.loads(line)), wall_ms=lambda: NOW_MS, monotonic_ms=lambda: 0)
    path = str(folder / "api" / "socket")
    listening = listen(path)
    server = Server(
        Serving(database, lambda: {"state": "idle"}, {"schema": str(schema), "database": "x"}), log, lambda: NOW_MS
    )
    started = threading.Event()
    ending: list[Callable[[], None]] = []

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            ending.append(lambda: token.run_sync_soon(scope.cancel))
            started.set()
            await server.run(listening, path)

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert started.wait(LIMIT_S)
    try:
        yield path, database, said
    finally:
        ending[0]()
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert not os.path.exists(path), "the socket goes with the server"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Database, list[dict[str, Any]]]]:
    with serving(tmp_path) as made:
        yield made


def raw(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(LIMIT_S)
    made.connect(path)
    return made


def line(stream: socket.socket) -> dict[str, Any]:
    held = b""
    while not held.endswith(b"\n"):
        data = stream.recv(1)
        assert data, f"closed after {held!r}"
        held += data
    found: dict[str, Any] = json.loads(held)
    return found


def works(path: str) -> None:
    """Somebody else is served as ever."""
    with Client(path, LIMIT_S) as client:
        assert client.ask("status")["status"] == {"state": "idle"}


def test_all_that_can_be_asked(served: tuple[str, Database, list[Any]]) -> None:
    path, database, _ = served
    with Client(path, LIMIT_S) as client:
        assert client.ask("hello", id=7)["id"] == 7
        made = client.ask("create", model="Setting", item={"name": "a", "rev": 1})["item"]
        assert made["deviceId"] == "home-1" and made["updated"].endswith("Z")
        assert client.ask("update", model="Setting", item={"name": "a", "rev": 2})["item"]["rev"] == 2
        assert client.ask("upsert", model="Setting", item={"name": "b", "rev": 3})["item"]["rev"] == 3
        assert client.ask("get", model="Setting", item={"name": "a"})["item"]["rev"] == 2
        assert client.ask("get", model="Setting", item={"name": "x"})["item"] is None
        found = client.ask("find", model="Setting", limit=1)
        assert [item["name"] for item in found["items"]] == ["a"] and found["more"] is True
        found = client.ask("find", model="Setting", after=found["items"][0])
        assert [item["name"] for item in found["items"]] == ["b"] and found["more"] is False
        again = client.ask("upsert", model="Setting", item=made)["item"]  # what was read goes in as it is
        assert again["rev"] == 1
        assert client.ask("remove", model="Setting", item={"name": "a"})["removed"] is True
        assert client.ask("remove", model="Setting", item={"name": "a"})["removed"] is False
        assert client.ask("rejected")["letters"] == []
        assert client.ask("settle", n=5, how="drop")["done"] is False
    assert [item["name"] for item in database.find("Setting")] == ["b"]


def test_the_whole_file_can_be_asked_for(tmp_path: Path, served: tuple[str, Database, list[Any]]) -> None:
    path, database, _ = served
    database.create("Setting", {"name": "a", "rev": 1})
    with Client(path, LIMIT_S) as client:
        made = tmp_path / "copy.db"
        assert client.ask("backup", file=str(made))["bytes"] == made.stat().st_size
        for name, text in ((str(made), "exists already"), ("copy.db", "no absolute path")):
            with pytest.raises(CommandError, match=text):
                client.ask("backup", file=name)
        sizes = client.ask("compact")
        assert sizes["bytes_before"] >= sizes["bytes"] > 0


def test_lines_of_a_file_are_imported_all_or_what_can_be(
    tmp_path: Path, served: tuple[str, Database, list[Any]]
) -> None:
    path, database, _ = served
    database.create("Setting", {"name": "a", "rev": 1})
    (row,) = database.export_items()
    lines = tmp_path / "lines.jsonl"
    text = json.dumps(row).replace("setting#a", "setting#b").replace('"name": "a"', '"name": "b"')
    lines.write_text(f"{text}\n" + "no JSON\n" * (api.REFUSED_MAX + 5))
    waiting = database.pending()
    with Client(path, LIMIT_S) as client:
        done = client.ask("import", file=str(lines))["imported"]
        assert (done["created"], done["undone"], done["refused_count"]) == (0, True, api.REFUSED_MAX + 5)
        assert len(done["refused"]) == api.REFUSED_MAX and done["refused"][0][0] == 2
        assert database.pending() == waiting and database.get("Setting", {"name": "b"}) is None
        done = client.ask("import", file=str(lines), partial=True)["imported"]
        assert (done["created"], done["undone"]) == (1, False)
        assert database.pending() == waiting + 1, "it is an own write, which goes to the cloud"
        for name, said in ((str(tmp_path / "none"), "no such file"), ("lines.jsonl", "no absolute path")):
            with pytest.raises(CommandError, match=said):
                client.ask("import", file=name)


def test_every_request_has_a_test_above() -> None:
    text = Path(__file__).read_text()
    for request in api.REQUESTS:
        assert f'ask("{request.__struct_config__.tag}"' in text


def test_a_remote_database_is_as_the_database(served: tuple[str, Database, list[Any]]) -> None:
    path, database, _ = served
    far = remote(path)
    for i in range(30):
        far.create("Setting", {"name": f"s{i:02}", "rev": i})
    assert list(far.find("Setting", {})) == list(database.find("Setting"))
    assert len(list(far.find("Setting", {}, limit=7, reverse=True))) == 7
    assert far.get("Setting", {"name": "s03"}) == database.get("Setting", {"name": "s03"})
    with pytest.raises(ModelError) as caught:
        far.create("Setting", {"name": "s03", "rev": 1})
    assert caught.value.code == "exists"
    far.client.close()


@pytest.mark.parametrize(
    ("request_", "kind", "code"),
    [
        ({"do": "create", "model": "Setting", "item": {"name": "a"}}, "model", "required"),
        ({"do": "create", "model": "Nothing", "item": {}}, "model", "model"),
        ({"do": "create", "model": "Config", "item": {"rev": 1}}, "model", "direction"),
        ({"do": "create", "model": "Setting", "item": {"name": "a", "rev": 1, "x": 1}}, "request", "value"),
        ({"do": "create", "model": "Setting", "item": {"name": "a", "deviceId": "b"}}, "request", "value"),
        ({"do": "create", "model": "Setting", "item": [1]}, "request", "value"),
        ({"do": "find", "model": "Setting", "index": "no"}, "request", "value"),
        ({"do": "update", "model": "Setting", "item": {"name": "a", "rev": 1}}, "model", "missing"),
        ({"do": "dance"}, "request", "malformed"),
        ({"do": "get"}, "request", "malformed"),
        ({"do": "status", "more": 1}, "request", "malformed"),
        ([], "request", "malformed"),
        ({"do": "watch", "models": ["Nothing"]}, "model", "model"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_connection_goes_on(
    served: tuple[str, Database, list[Any]], request_: Any, kind: str, code: str
) -> None:
    path, _, said = served
    with raw(path) as stream:
        stream.sendall(json.dumps(request_).encode() + b"\n")
        answer = line(stream)
        assert answer["ok"] is False and (answer["error"]["kind"], answer["error"]["code"]) == (kind, code), answer
        stream.sendall(b'{"do":"status"}\n')
        assert line(stream)["ok"] is True
    assert not said


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff\xfe\n", b"{" * 100_000 + b"\n", b"[" * 100_000 + b"]" * 100_000 + b"\n", b'{"do":\n', b"null\n", b"\0\n"],
)
def test_nonsense_is_refused(served: tuple[str, Database, list[Any]], nonsense: bytes) -> None:
    path, _, said = served
    with raw(path) as stream:
        stream.sendall(nonsense)
        assert line(stream)["error"]["code"] == "malformed"
        works(path)
    assert not said


@pytest.mark.parametrize("nested", ['{"a":' * 50_000 + "1" + "}" * 50_000, "[" * 90_000 + "]" * 90_000])
def test_an_item_that_is_nested_too_deep_is_refused(served: tuple[str, Database, list[Any]], nested: str) -> None:
    path, _, said = served
    with raw(path) as stream:
        stream.sendall(f'{{"do":"create","model":"Setting","item":{nested}}}\n'.encode())
        assert line(stream)["ok"] is False
        works(path)
    assert not said


def test_a_line_without_end_is_cut_off(served: tuple[str, Database, list[Any]]) -> None:
    path, _, said = served
    with raw(path) as stream:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(1_000):
                stream.sendall(b"x" * 65_536)
        works(path)
    with raw(path) as stream:
        stream.sendall(b"x" * (api.LINE_BYTES_MAX + 1))
        assert line(stream)["error"]["code"] == "line"
        assert stream.recv(1) == b""
    assert not said


def test_who_goes_in_the_middle_or_says_nothing_harms_nobody(served: tuple[str, Database, list[Any]]) -> None:
    path, _, said = served
    silent = raw(path)
    for text in (b"", b'{"do":"sta', b'{"do":"find","model":"Setting"}\n' * 50):
        with raw(path) as stream:
            stream.sendall(text)
    works(path)
    silent.close()
    assert not said


def test_too_many_at_once_are_turned_away(served: tuple[str, Database, list[Any]]) -> None:
    path, _, _ = served
    held = [raw(path) for _ in range(CLIENTS_MAX)]
    for stream in held:
        stream.sendall(b'{"do":"status"}\n')
        assert line(stream)["ok"]
    with raw(path) as stream:
        assert line(stream)["error"]["code"] == "busy"
        assert stream.recv(1) == b""
    held.pop().close()
    for stream in held:
        stream.close()
    with Client(path, LIMIT_S) as client:  # there is room again, as soon as the server has seen it
        while True:
            try:
                client.ask("status")
                break
            except CommandError:
                client = Client(path, LIMIT_S)


def test_a_watcher_hears_what_happens(served: tuple[str, Database, list[Any]]) -> None:
    path, database, _ = served
    with Client(path, LIMIT_S) as watcher:
        watcher.ask("watch", models=["Setting"])
        database.upsert("Setting", {"name": "a", "rev": 1})
        database.upsert("Status", {"rev": 1})  # of another model
        database.upsert("Setting", {"name": "a", "rev": 2})
        database.remove("Setting", {"name": "a"})
        told = [watcher.line()["event"] for _ in range(3)]
        assert [event["event"] for event in told] == ["created", "updated", "removed"]
        assert told[1]["before"]["rev"] == 1 and told[1]["item"]["rev"] == 2 and told[2]["item"] is None
        with pytest.raises(CommandError, match="watches already"):
            watcher.ask("watch")
        assert watcher.ask("status")["ok"]


def test_a_watcher_that_never_reads_is_cut_off_and_no_write_waits_for_it(
    served: tuple[str, Database, list[Any]],
) -> None:
    path, database, said = served
    with raw(path) as watcher:
        watcher.sendall(b'{"do":"watch"}\n')
        assert line(watcher)["ok"]
        for i in range(api.WATCH_WAITING_MAX * 2):
            database.upsert("Setting", {"name": f"s{i}", "rev": i, "padding": "x" * 500})
        works(path)
        last = b""
        while data := watcher.recv(65_536):
            last = (last + data)[-2_000:]
        assert b'"behind"' in last.splitlines()[-1]
    assert not said


def test_the_socket_is_its_users_alone(tmp_path: Path) -> None:
    with serving(tmp_path) as (path, _, _):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
        with pytest.raises(SocketError, match="another agent serves it"):
            listen(path)
        works(path)


def test_a_socket_that_nobody_serves_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    folder = tmp_path / "api"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(folder / "socket"))
    with pytest.raises(NoAgent):
        Client(str(folder / "socket"))
    with serving(tmp_path) as (path, _, _):
        works(path)
    (folder / "socket").write_text("precious")
    with pytest.raises(SocketError, match="is no socket"):
        listen(str(folder / "socket"))
    folder.chmod(0o755)
    with pytest.raises(SocketError, match=r"others may enter it.*chmod 700"):
        listen(str(folder / "other"))
    with pytest.raises(SocketError, match="too long"):
        listen(str(tmp_path / ("x" * 120)))
    with pytest.raises(NoAgent):
        Client(str(tmp_path / "nowhere"))
