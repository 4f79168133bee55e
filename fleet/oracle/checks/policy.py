"""The check `conflict-policy`. Called where an operation on a both model's item takes effect, and where one is lost."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown


class ConflictPolicy(Check):
    __slots__ = ()

    name = "conflict-policy"
    statement = (
        "Where both sides wrote an item, the policy of its model decides, against the very state that is replaced: "
        "with `latest` an operation takes effect only over an older stamp (a tie is the cloud's), with `cloud` only "
        "over what a device wrote. With `latest` no device loses to what it wrote itself in the same epoch. One "
        "exception, counted: a device whose disk has lost that item knows no stamp to go beyond, and its clock may "
        "have gone back."
    )
    excuse = "operations lost to what the device's disk had lost"

    def replaced(
        self, t_us: int, device: str, key: Key, policy: str, u: int, stamps_ms: tuple[int, int], over_cloud: bool
    ) -> None:
        """Operation u took effect. `stamps_ms`: of the state before and of the operation; `over_cloud`: that state was
        put there by a cloud application."""
        self.checked += 1
        before_ms, after_ms = stamps_ms
        if policy == "latest" and after_ms <= before_ms:
            expected = f"the newer state, stamped {before_ms}, to stay"
            self.fail(t_us, device, key, expected, f"operation {u}, stamped {after_ms}, in its place")
        elif policy == "cloud" and over_cloud:
            self.fail(t_us, device, key, "what the cloud wrote to stay", f"operation {u} in its place")

    def lost(self, t_us: int, device: str, key: Key, u: int, to_itself: bool, present: int | None) -> None:
        """Operation u was lost."""
        self.checked += 1
        if to_itself:
            self.fail(t_us, device, key, f"operation {u} over the device's own {shown(present)}", "the verdict lost")
