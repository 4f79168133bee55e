"""Devices that join a live run by themselves: expected, followed as far as the table shows them, and reported.

A hello says where the device is in its feeds: it is heard at the broker, as the relay hears it; without a broker, the
relay's notes in the table tell of it. HEAD says which operations of the device are committed, and so acknowledged. More
the cloud does not see: what the device's applications read is for the device to show. Starts no device. Called by
fleet.live.run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from paho.mqtt import client as paho

from agent.protocol.messages import Key
from agent.protocol.schema import Schema
from agent.protocol.topics import from_device, sender
from cloud.head import head_device
from cloud.registry import device_key
from cloud.table import PRIVATE_PREFIX
from fleet.live.following import Following
from fleet.live.table import Commit
from fleet.oracle.wire import upward
from reports.live import Attached
from reports.summary import Check, Status

NAME: Final = "attached"


class _Seen:
    """What the table has shown of one device."""

    def __init__(self) -> None:
        self.hellos = 0
        self.batches = 0
        self.operations = 0
        self.feeds: Mapping[str, Any] = {}
        self.heard_us = -1  # when the last hello was seen


class Listener:
    """Hears what these devices publish, in a thread of paho's. Raises OSError where the broker is not there."""

    def __init__(self, host: str, port: int, client: paho.Client, devices: Iterable[str]) -> None:
        self.heard: deque[tuple[str, bytes]] = deque()
        self._topics = [(from_device(device), 0) for device in devices]
        self._client = client
        client.on_connect = self._subscribe
        client.on_message = self._hear
        client.connect(host, port)
        client.loop_start()

    def _subscribe(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(self._topics)

    def _hear(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        device = sender(message.topic)
        if device is not None:
            self.heard.append((device, bytes(message.payload)))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Attachments:
    """`accounts`: device -> account. `at_broker`: hellos are heard there, and notes in the table do not count."""

    def __init__(self, schema: Schema, accounts: Mapping[str, str], *, at_broker: bool) -> None:
        self._schema = schema
        self._at_broker = at_broker
        self._seen = {device: _Seen() for device in accounts}
        self._registered = {device_key(device): device for device in accounts}
        self.asked_us = -1  # when all were made to say where they are

    def __len__(self) -> int:
        return len(self._seen)

    def owner(self, key: Key) -> str | None:
        """The attached device that an item of the table belongs to."""
        place = self._schema.locate(key)
        device = place.device_id if place is not None else None
        return device if device in self._seen else None

    def take(self, commits: Iterable[Commit]) -> None:
        for commit in commits:
            if not commit.key[0].startswith(PRIVATE_PREFIX) or commit.new is None:
                continue
            device = self._registered.get(commit.key)
            if device is not None:
                self._heard(self._seen[device], commit)
                continue
            device = head_device(commit.key)
            if device in self._seen:
                self._moved(self._seen[device], commit)

    def _heard(self, seen: _Seen, commit: Commit) -> None:
        new, old = commit.new or {}, commit.old or {}
        if not self._at_broker and "seen" in new and new.get("seen") != old.get("seen"):
            seen.hellos += 1
            seen.feeds = new.get("feeds", {})
            seen.heard_us = commit.looked_us

    def listen(self, heard: deque[tuple[str, bytes]], now_us: int) -> None:
        """What the listener has heard since the last time."""
        while heard:
            device, payload = heard.popleft()
            message = upward(payload)
            if message is not None and message.t == "hello" and device in self._seen:
                seen = self._seen[device]
                seen.hellos += 1
                seen.feeds = {name: (cursor.epoch or "", cursor.seq) for name, cursor in message.feeds.items()}
                seen.heard_us = now_us

    def _moved(self, seen: _Seen, commit: Commit) -> None:
        new, old = commit.new or {}, commit.old or {}
        low = old.get("up", 0) if old.get("epoch") == new.get("epoch") else 0
        if new.get("up", 0) > low:
            seen.batches += 1
            seen.operations += new["up"] - low

    def behind(self, device: str, following: Following) -> list[str]:
        """Feeds of which it did not have all when it was last heard, with where it was and where the log ends."""
        found = []
        for feed, cursor in self._seen[device].feeds.items():
            tail = following.tail(device, feed)
            if tail is not None and (cursor[0], int(cursor[1])) != tail:
                found.append(f"{feed}:{int(cursor[1])}/{tail[1]}")
        return found

    def in_step(self, following: Following) -> bool:
        """All of them have said where they are since they were asked, and it is the end."""
        return all(
            seen.heard_us > self.asked_us >= 0 and not self.behind(device, following)
            for device, seen in self._seen.items()
        )

    def report(self, following: Following, items: Iterable[Mapping[str, Any]]) -> list[Attached]:
        """`items`: the table's, at the end."""
        counts = dict.fromkeys(self._seen, 0)
        for item in items:
            owner = self.owner((item["pk"], item["sk"]))
            if owner is not None:
                counts[owner] += 1
        found = []
        for device, seen in self._seen.items():
            status, detail = self._judged(device, following)
            found.append(
                Attached(
                    device=device,
                    status=status,
                    hellos=seen.hellos,
                    batches=seen.batches,
                    acks=seen.operations,
                    items=counts[device],
                    detail=detail,
                )
            )
        return found

    def _judged(self, device: str, following: Following) -> tuple[Status, str]:
        seen = self._seen[device]
        if not seen.hellos:
            return "fail", "it never came"
        behind = self.behind(device, following)
        if seen.heard_us <= self.asked_us or self.asked_us < 0:
            return "unknown", "it has not said where it is since writes stopped"
        if behind:
            return "fail", f"it does not have all: {' '.join(behind)}"
        return "pass", ""


def check_of(attached: list[Attached]) -> Check:
    """One check for all of them, which a run that expects devices requires."""
    failed = [one for one in attached if one.status == "fail"]
    unknown = [one for one in attached if one.status == "unknown"]
    status: Status = "fail" if failed else "unknown" if unknown else "pass"
    return Check(
        name=NAME,
        status=status,
        checked=len(attached) - len(unknown),
        detail="\n".join(f"device {one.device}: {one.detail}" for one in (*failed, *unknown)),
        failures=len(failed),
        required=True,
    )
