"""Whether a policy of AWS IoT, or an ACL file of mosquitto, allows something: as their documents say.

Only for what we write ourselves.

A policy: https://docs.aws.amazon.com/iot/latest/developerguide/pub-sub-policy.html: `*` and `?` stand for anything, the
wildcards of MQTT for themselves. Used by tests that hold the two against each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_ACTIONS: Final = {"connect": "iot:Connect", "publish": "iot:Publish", "subscribe": "iot:Subscribe"}
_KINDS: Final = {
    "iot:Connect": "client",
    "iot:Publish": "topic",
    "iot:Subscribe": "topicfilter",
    "iot:Receive": "topic",
}
_BEFORE: Final = "arn:aws:iot:eu-west-1:123456789012:"


def policy_allows(document: Mapping[str, Any], thing: str | None, account: str, action: str, name: str) -> bool:
    """`thing`: the one that the connection's certificate is attached to. `action`: an IoT action, or its short word."""
    wanted = _ACTIONS.get(action, action)
    variables = {
        "iot:Connection.Thing.ThingName": thing or "",
        "iot:Connection.Thing.Attributes[account]": account if thing else "",
    }
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow"
        attached = statement["Condition"]["Bool"]["iot:Connection.Thing.IsAttached"] == ["true"]
        if statement["Action"] != wanted or (attached and thing is None):
            continue
        for resource in statement["Resource"]:
            if _matches(resource, variables, f"{_BEFORE}{_KINDS[wanted]}/{name}"):
                return True
    return False


def _matches(resource: str, variables: Mapping[str, str], arn: str) -> bool:
    """Wildcards of the policy's own text count; those of a variable's value do not; an empty one matches nothing."""
    pattern = ""
    for part in re.split(r"(\$\{[^}]*\})", resource):
        if part.startswith("${"):
            value = variables[part[2:-1]]
            if not value:
                return False
            pattern += re.escape(value)
        else:
            pattern += re.escape(part).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, arn, re.S) is not None


def acl_allows(text: str, user: str, action: str, topic: str) -> bool:
    """`topic`: to publish to, or to get messages from."""
    word = {"publish": "write", "subscribe": "read"}[action]
    current = ""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "user":
            current = rest
        elif kind == "topic" and current == user:
            right, _, rule = rest.partition(" ")
            if right == word and filter_matches(rule, topic):
                return True
    return False


def filter_matches(rule: str, topic: str) -> bool:
    """MQTT's own matching of a topic, or of a filter that is no wider."""
    wanted, given = rule.split("/"), topic.split("/")
    return len(wanted) == len(given) and all(
        level == part or (level == "+" and part not in ("+", "#")) for level, part in zip(wanted, given, strict=True)
    )
