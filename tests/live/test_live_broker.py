"""`fleet live --broker` with brokers that want TLS, certificates of the clients, or a WebSocket; and with those that
cannot be used, which is said before anything is started.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_rig import Mosquitto, free_port, mosquitto
from live_run_rig import SHORT, failed, plan_of, run
from websocket_rig import certificates

from agent.protocol.errors import InputError
from cloud.access import mosquitto_acl
from fleet.live.processes import Processes
from fleet.live.setup import Asked, Cloud, checked

DEVICES = ("home-0001", "home-0002", "shop-0001")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of an authority: for a broker that is called localhost and nothing else, and for each client."""
    folder = tmp_path_factory.mktemp("pem")
    certificates(folder, "server", "relay", *DEVICES, host="DNS:localhost")
    for file in folder.iterdir():
        file.chmod(0o600)
    return folder


@pytest.fixture
def strict(tmp_path: Path, pem: Path, mosquitto_is_there: None) -> Iterator[Mosquitto]:
    """It knows its clients by their certificates, and lets each have its own topics alone."""
    rules = tmp_path / "acl"
    rules.write_text(mosquitto_acl({name: "acme" if "home" in name else "beta" for name in DEVICES}, "relay", "ioto"))
    rules.chmod(0o600)
    lines = [f"cafile {pem}/ca.pem", f"certfile {pem}/server.pem", f"keyfile {pem}/server.key", f"acl_file {rules}"]
    with mosquitto(tmp_path, *lines, "require_certificate true", "use_identity_as_username true") as broker:
        yield broker


def asked_of(broker: Mosquitto, pem: Path) -> dict[str, Any]:
    files = {"ca": "ca.pem", "cert": "{device}.pem", "key": "{device}.key"}
    return {
        "broker": f"mqtts://localhost:{broker.port}",
        **{name: f"{pem}/{file}" for name, file in files.items()},
    }


def test_a_broker_with_certificates_of_both_sides(tmp_path: Path, strict: Mosquitto, pem: Path) -> None:
    result = run(tmp_path, SHORT, **asked_of(strict, pem))
    assert result.summary.verdict == "pass", failed(result)
    assert result.summary.counts.connects >= len(DEVICES)
    for name in DEVICES:
        config = (tmp_path / "live" / f"{name}.toml").read_text()
        assert f"{name}.pem" in config and "mqtts://127.0.0.1" in config, "the agent speaks TLS, through the proxy"
    assert strict.alive and strict.starts == 1


def test_a_broker_behind_a_websocket(tmp_path: Path, mosquitto_is_there: None) -> None:
    web = free_port()
    folder = tmp_path / "web"
    folder.mkdir()
    with mosquitto(folder, f"listener {web} 127.0.0.1", "protocol websockets"):
        result = run(tmp_path, SHORT, broker=f"ws://127.0.0.1:{web}")
    assert result.summary.verdict == "pass", failed(result)
    assert "mqtt+ws://127.0.0.1" in (tmp_path / "live" / "home-0001.toml").read_text()


def refusal(folder: Path, asked: Asked) -> str:
    """What is said of the broker, before anything is started."""
    plan = plan_of(folder, SHORT)
    with pytest.raises(InputError) as refused, Processes() as processes:
        Cloud(processes, folder, plan, folder, checked(asked, plan)[0]).start(0)
    assert not processes.parts
    (problem,) = refused.value.problems
    assert problem.file == "--broker"
    return str(problem)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ca": "{pem}/server.pem"}, "not issued by an authority"),
        ({"cert": "", "key": ""}, "may not accept"),
        ({"broker": "mqtts://127.0.0.1:{port}"}, "certificate is another host's"),
        ({"broker": "mqtt://127.0.0.1:{port}", "ca": "", "cert": "", "key": ""}, "may want TLS"),
    ],
)
def test_a_broker_that_does_not_fit_is_refused_with_the_reason(
    tmp_path: Path, strict: Mosquitto, pem: Path, change: dict[str, str], said: str
) -> None:
    given = asked_of(strict, pem)
    given.update({name: value.format(pem=pem, port=strict.port) for name, value in change.items()})
    assert said in refusal(tmp_path, Asked(**given))


def test_a_broker_that_is_not_there_or_wants_a_password_is_said(tmp_path: Path, mosquitto_is_there: None) -> None:
    assert "connection refused" in refusal(tmp_path, Asked(broker=f"mqtt://127.0.0.1:{free_port()}"))
    with mosquitto(tmp_path, "allow_anonymous false") as closed:
        said = refusal(tmp_path, Asked(broker=closed.url.replace("127", "me:secret@127", 1)))
    assert "refuses the relay: Not authorized" in said and "user:password@host" in said
    assert "secret" not in said
