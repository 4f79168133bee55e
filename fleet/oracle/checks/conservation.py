"""The check `conservation`. Called at the end, once for each link and direction."""

from __future__ import annotations

from fleet.oracle.check import Check


class Conservation(Check):
    __slots__ = ("duplicates",)

    name = "conservation"
    statement = (
        "No message disappears or appears by itself: on every link and in each direction, sent = delivered + dropped + "
        "in flight. Deliveries of a message beyond its first are duplicates, counted apart."
    )

    def __init__(self) -> None:
        super().__init__()
        self.duplicates = 0

    def link(
        self, link: str, direction: str, *, sent: int, delivered: int, dropped: int, in_flight: int, duplicates: int
    ) -> None:
        self.checked += 1
        self.duplicates += duplicates
        if sent != delivered + dropped + in_flight or min(sent, delivered, dropped, in_flight, duplicates) < 0:
            found = f"{delivered} delivered + {dropped} dropped + {in_flight} in flight, {duplicates} duplicates"
            self.fail(0, link, None, f"{sent} messages sent {direction} to be accounted for", found)
