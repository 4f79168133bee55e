"""`fleet-cloud register --iot`: thing, certificate, policy and files, on moto's AWS IoT; again, cut short, and refused.

Called by pytest only.
"""

from __future__ import annotations

import json
import stat
import uuid
from pathlib import Path
from typing import Any

import pytest
from cloud_shell import CloudShell
from emulators import client

from cloud.access import device_policy, policy_arns
from cloud.dynamodb_errors import Unusable
from cloud.iot_things import Things, check_names


class Iot:
    """moto's server is shared: every test has names of its own."""

    def __init__(self, address: str, test: str) -> None:
        self.client = client(address, "iot")
        own = uuid.uuid5(uuid.NAMESPACE_URL, test).hex[:8]
        self.policy, self.device = f"devices-{own}", f"home-{own}"
        self.client.create_policy(policyName=self.policy, policyDocument=json.dumps({"Statement": []}))

    def words(self, *more: str) -> list[str]:
        return ["register", self.device, "--account", "main", "--iot", self.policy, "--certificates", "keys", *more]

    def principals(self) -> list[str]:
        found: list[str] = self.client.list_thing_principals(thingName=self.device)["principals"]
        return found

    def state(self) -> Any:
        names = [thing["thingName"] for thing in self.client.list_things()["things"]]
        certificates = [each["certificateId"] for each in self.client.list_certificates()["certificates"]]
        return names, certificates


@pytest.fixture
def iot(moto: str, request: pytest.FixtureRequest) -> Iot:
    return Iot(moto, request.node.nodeid)


def test_a_device_gets_its_thing_its_certificate_and_the_policy(shell: CloudShell, iot: Iot) -> None:
    said = shell.ok(*iot.words("--json")).row
    thing = iot.client.describe_thing(thingName=iot.device)
    assert thing["attributes"] == {"account": "main"}
    (arn,) = iot.principals()
    assert said["iot"]["certificates"] == [arn] and said["iot"]["new"] and said["iot"]["endpoint"]
    told = iot.client.describe_certificate(certificateId=arn.rpartition("/")[2])["certificateDescription"]
    certificate, key = (Path(path) for path in said["iot"]["files"])
    assert told["status"] == "ACTIVE" and told["certificatePem"] == certificate.read_text()
    attached = iot.client.list_attached_policies(target=arn)["policies"]
    assert [each["policyName"] for each in attached] == [iot.policy]
    for path in (certificate, key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path("keys").stat().st_mode) == 0o700
    assert "PRIVATE KEY" in key.read_text()


def test_again_it_makes_nothing_and_mends_what_is_missing(shell: CloudShell, iot: Iot) -> None:
    shell.ok(*iot.words())
    files = {path.name: path.read_text() for path in Path("keys").iterdir()}
    (arn,) = iot.principals()
    before = iot.state()
    said = shell.ok(*iot.words("--json")).row
    assert said["was"] == "registered already" and said["iot"]["certificates"] == [arn]
    assert not said["iot"]["new"] and said["iot"]["files"] == []
    assert {path.name: path.read_text() for path in Path("keys").iterdir()} == files and iot.state() == before
    iot.client.detach_policy(policyName=iot.policy, target=arn)
    assert "was there, and stays" in shell.ok(*iot.words()).out
    assert len(iot.client.list_attached_policies(target=arn)["policies"]) == 1


def test_a_device_is_moved_only_with_yes(shell: CloudShell, iot: Iot) -> None:
    shell.ok(*iot.words())
    words = [word if word != "main" else "other" for word in iot.words()]
    assert "has another account" in shell.refused(*words)
    assert iot.client.describe_thing(thingName=iot.device)["attributes"] == {"account": "main"}
    shell.ok(*words, "--yes")
    assert iot.client.describe_thing(thingName=iot.device)["attributes"] == {"account": "other"}


def test_what_stands_in_the_way_is_told_before_anything_is_changed(shell: CloudShell, iot: Iot) -> None:
    before, table = iot.state(), shell.state()
    words = iot.words()
    assert "has no policy 'nobodys'" in shell.refused(*[word if word != iot.policy else "nobodys" for word in words])
    assert "go together" in shell.refused(*words[:-2])
    assert "go together" in shell.refused("register", iot.device, "--account", "main", "--certificates", "keys")
    assert "cannot be the name of a thing" in shell.refused(*[word if word != iot.device else "a.b" for word in words])
    Path("keys").mkdir()
    (Path("keys") / f"{iot.device}.key.pem").write_text("mine")
    assert "is there already" in shell.refused(*words)
    (Path("keys") / f"{iot.device}.key.pem").unlink()
    Path("file").write_text("")
    assert "cannot be written" in shell.refused(*[word if word != "keys" else "file/keys" for word in words])
    assert iot.state() == before and shell.state() == table


def test_what_is_cut_short_leaves_a_certificate_that_cannot_connect(shell: CloudShell, iot: Iot) -> None:
    def full(certificate: str, key: str) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Things(iot.client, iot.policy).register(iot.device, "main", full)
    assert iot.principals() == []
    newest = iot.client.list_certificates()["certificates"][-1]
    assert newest["status"] == "INACTIVE"
    shell.ok(*iot.words())
    assert len(iot.principals()) == 1


def test_the_policy_reads_the_account_where_it_is_put() -> None:
    assert "${iot:Connection.Thing.Attributes[account]}" in json.dumps(
        device_policy("ioto", policy_arns("aws", "*", "*"))
    )
    with pytest.raises(Unusable, match="attribute of a thing"):
        check_names("home-1", "a b")
