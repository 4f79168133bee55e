"""Carries out remote commands where the agent runs: the commander's effects, handlers in threads, the machine's reboot.

The commander decides (agent.remote.commander); it is asked after every event of the session, in the same thread. Called
by agent.runtime.driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from agent.protocol.log import Log
from agent.remote.commander import NEVER, Commander
from agent.remote.events import LOOK, Effect, Event, Failed, Reboot, Reconnect, Run, WakeAt
from agent.remote.handlers import perform

_REBOOT_S: Final = 60.0  # for the machine to take this process down, once it has agreed


class Executor:
    """`reboot` restarts the machine: it returns why that was refused, "" when the machine is about to go down."""

    def __init__(self, commander: Commander, reboot: Callable[[], Awaitable[str]], log: Log) -> None:
        self.commander = commander
        self.wake_at_ms = NEVER
        self.ended: deque[Event] = deque()  # handlers that have, and the commander does not know it
        self.reconnects = False  # the connection is to be made anew
        self._reboot = reboot
        self._log = log
        self._threads = trio.CapacityLimiter(commander.config.running_max)

    def due(self, now_ms: int) -> Event | None:
        """What the commander is to be given now."""
        if self.ended:
            return self.ended.popleft()  # the commander keeps it, also where the disk fails
        if now_ms >= self.wake_at_ms:
            self.wake_at_ms = NEVER
            return LOOK
        return None

    def carry_out(self, effects: list[Effect], nursery: trio.Nursery, wake: Callable[[], None]) -> None:
        """`nursery` outlives the session; `wake`: something has ended."""
        for effect in effects:
            if isinstance(effect, Run):
                nursery.start_soon(self._run, effect, wake)
            elif isinstance(effect, Reboot):
                nursery.start_soon(self._restart, effect, wake)
            elif isinstance(effect, Reconnect):
                self.reconnects = True
            elif isinstance(effect, WakeAt):
                self.wake_at_ms = effect.at_ms

    async def _run(self, run: Run, wake: Callable[[], None]) -> None:
        self._log.event("command", id=run.id, name=run.name)
        ended = await trio.to_thread.run_sync(self.perform, run, limiter=self._threads, abandon_on_cancel=True)
        if isinstance(ended, Failed):
            self._log.event("command-failed", "warning", id=run.id, name=run.name, reason=ended.message)
        self.ended.append(ended)
        wake()

    def perform(self, run: Run) -> Event:
        """Calls the handler; in a thread of its own."""
        return perform(self.commander.handlers, run.id, run.name, run.arguments)

    async def _restart(self, reboot: Reboot, wake: Callable[[], None]) -> None:
        self._log.event("command", id=reboot.id, name="reboot")
        refused = await self._reboot()
        if not refused:
            await trio.sleep(_REBOOT_S)
            refused = f"the machine still runs after {_REBOOT_S:.0f} s"
        self._log.event("command-failed", "warning", id=reboot.id, name="reboot", reason=refused)
        self.ended.append(Failed(reboot.id, refused))
        wake()
