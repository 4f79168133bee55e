"""What systemd is told: ready, stopping, reloading, and that the agent lives. Plain datagrams; nothing without systemd.

See sd_notify(3). The environment is given. Called by agent.runtime.daemon.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping


class Notifier:
    """`environment`: the process's."""

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path  # @: of the abstract namespace
        interval = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", "") in ("", str(pid))
        self.watchdog_s = int(interval) / 1_000_000 if interval.isdigit() and ours else 0.0  # 0: nobody watches

    def tell(self, *lines: str) -> None:
        """`READY=1`, `STATUS=...` and so on. A manager that does not listen is no harm."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1.0)
            sender.sendto("\n".join(lines).encode(), self._address)
