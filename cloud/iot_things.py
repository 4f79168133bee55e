"""A device in AWS IoT: its thing with the account, its certificate, and the policy that binds topics to both.

Only adds: a thing, a certificate or an attachment that is there stays as it is, but for the account of a device that is
moved. A new certificate is inactive until its key has been kept and everything is attached, so that what is cut short
leaves nothing that could connect. Called by `fleet-cloud register`. Raises Unusable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloud.dynamodb_errors import RAISED, Unusable, fault_of

ACCOUNT: Final = "account"  # attribute of a thing, which the policy reads
_THING = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_ATTRIBUTE = re.compile(r"[a-zA-Z0-9_.,@/:#-]{1,800}")

Keep = Callable[[str, str], None]  # (certificate, private key), both PEM: puts them where they stay


@dataclass(frozen=True, slots=True)
class Thing:
    """`certificates`: their names (ARN). `is_new`: the certificate was made now, and its key kept."""

    name: str
    certificates: tuple[str, ...]
    is_new: bool
    endpoint: str


def check_names(device: str, account: str) -> None:
    """What AWS IoT takes is less than what Fleet does."""
    if _THING.fullmatch(device) is None:
        raise Unusable(f"{device!r} cannot be the name of a thing", "A thing's name has letters, digits, ':', '_', '-'")
    if _ATTRIBUTE.fullmatch(account) is None:
        raise Unusable(f"{account!r} cannot be an attribute of a thing", "Give the account another name")


class Things:
    """`client`: boto3's of `iot`. `policy`: the name of the policy for devices, which must be there."""

    def __init__(self, client: Any, policy: str) -> None:
        self._client = client
        self._policy = policy

    def check(self) -> None:
        """Whether the policy is there. Reads only."""
        if self._found(lambda: self._client.get_policy(policyName=self._policy)) is None:
            raise Unusable(
                f"{self._place()} has no policy {self._policy!r}",
                "Name the one that the stack has made (its output DevicePolicy), or make one of `fleet-cloud acl "
                "--iot-policy`",
            )

    def account_of(self, device: str) -> str | None:
        """Of a thing that is there; empty where it has none. Reads only."""
        found = self._found(lambda: self._client.describe_thing(thingName=device))
        return None if found is None else str(found.get("attributes", {}).get(ACCOUNT, ""))

    def register(self, device: str, account: str, keep: Keep) -> Thing:
        """What is missing is made. `keep` is called where the device gets its first certificate."""
        payload = {"attributes": {ACCOUNT: account}, "merge": True}
        before = self.account_of(device)
        if before is None:
            self._asked(lambda: self._client.create_thing(thingName=device, attributePayload=payload))
        elif before != account:
            self._asked(lambda: self._client.update_thing(thingName=device, attributePayload=payload))
        names = self.certificates(device)
        for name in names:
            self._attach_policy(name)
        if not names:
            names = (self._certify(device, keep),)
            is_new = True
        else:
            is_new = False
        endpoint = self._asked(lambda: self._client.describe_endpoint(endpointType="iot:Data-ATS"))["endpointAddress"]
        return Thing(device, names, is_new, str(endpoint))

    def certificates(self, device: str) -> tuple[str, ...]:
        """Of a thing; none where there is no such thing. Reads only."""
        found = self._found(lambda: self._client.list_thing_principals(thingName=device)) or {}
        return tuple(name for name in found.get("principals", ()) if ":cert/" in name)

    def _certify(self, device: str, keep: Keep) -> str:
        made = self._asked(lambda: self._client.create_keys_and_certificate(setAsActive=False))
        keep(made["certificatePem"], made["keyPair"]["PrivateKey"])
        name, id_ = str(made["certificateArn"]), made["certificateId"]
        self._attach_policy(name)
        self._asked(lambda: self._client.attach_thing_principal(thingName=device, principal=name))
        self._asked(lambda: self._client.update_certificate(certificateId=id_, newStatus="ACTIVE"))
        return name

    def _attach_policy(self, certificate: str) -> None:
        """Again is no harm."""
        self._asked(lambda: self._client.attach_policy(policyName=self._policy, target=certificate))

    def _place(self) -> str:
        return f"AWS IoT in {self._client.meta.region_name} at {self._client.meta.endpoint_url}"

    def _found(self, call: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any] | None:
        def asked() -> Mapping[str, Any]:
            try:
                return call()
            except self._client.exceptions.ResourceNotFoundException:
                return {}

        return self._asked(asked) or None

    def _asked(self, call: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        try:
            return call()
        except RAISED as error:
            found = fault_of(error).error
            if isinstance(found, Unusable):
                raise Unusable(f"{self._place()}: {found.problem}", found.hint) from None
            raise Unusable(
                f"{self._place()}: {found}", "Try again: what was done stays, and is not done twice"
            ) from None
