"""The checks `digest-heals` and `no-false-alarm`. Called when a silent damage is over, when a device is told of a
difference, and at the end."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check


class DigestHeals(Check):
    __slots__ = ()

    name = "digest-heals"
    statement = (
        "What was damaged silently, on the device's disk or in the table, is found and healed: device and table agree "
        "about the item again within a bound. The bound counts the time that the device is online, from its last boot "
        "on, since a difference is remembered in memory, and from when the other faults are healed: two periods of the "
        "digests, three times what a stream record and its worker live, the least time between two heals, and eight "
        "retries; where there are other faults or quotas, the time between two hellos, since they may lose a push, and "
        "nothing is compared while the row of an own write is to come; under the quotas of a cloud, for each question "
        "that got no answer, or none about all models, a period and a half more and two retries; and twice the time "
        "for which the relay has told the device to be quiet."
    )

    def healed(self, t_us: int, device: str, key: Key, waited_us: int, bound_us: int) -> None:
        """`waited_us`: how long the device was online with the damage."""
        self.checked += 1
        if waited_us > bound_us:
            expected = f"the damage healed within {bound_us / 1e6:g} s online"
            self.fail(t_us, device, key, expected, f"it took {waited_us / 1e6:g} s")

    def lasts(self, t_us: int, device: str, key: Key) -> None:
        self.checked += 1
        self.fail(t_us, device, key, "device and table to agree again after a silent damage", "they differ at the end")


class NoFalseAlarm(Check):
    __slots__ = ()

    name = "no-false-alarm"
    statement = (
        "A device is told that it differs from the table for good, which makes it ask for a snapshot or restate a "
        "model, only where an item of this model is, or a moment ago was, damaged behind everybody's back. Two "
        "exceptions, counted: a change of such an item has had no row for longer than a stream keeps a record and a "
        "worker lives; a real stream would have lost it. And the table was put back, which a device that has said no "
        "hello since does not know: it does differ."
    )
    excuse = "alarms about changes whose rows came later than a record lives, or about a table that was put back"

    def compared(self) -> None:
        """A device was told what became of a comparison."""
        self.checked += 1

    def alarm(self, t_us: int, device: str, model: str) -> None:
        """`model` differs for good, it says, and nothing of it was damaged."""
        self.fail(t_us, device, (model, "*"), "no alarm: nothing of this model was damaged", "one")
