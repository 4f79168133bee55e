"""Remote commands on a simulated device: drives the agent's commander, and has the handlers that it asks for.

Tells the oracle of everything that is really done, whatever the agent's records say of it. Made at each boot by the
simulated device; used only in a world whose schema has results of commands.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agent.events import DISCONNECTED, ONLINE
from agent.remote.events import LOOK, CommandConfig, Effect, Event, Reboot, Reconnect, Run, WakeAt
from agent.remote.handlers import Handlers, perform
from fleet.rng import rng
from fleet.scenario.plan import CommandPlan
from fleet.world import disk, fuse

if TYPE_CHECKING:
    from fleet.world.device import SimDevice

_LARGE: Final = "x" * 2048
_QUICK_US: Final = 1_000_000  # what ends at once takes up to so long
_REBOOT_US: Final = (5_000_000, 20_000_000)


class Blink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    times: int


class Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seconds: int


def _fails(_: Any) -> None:
    raise RuntimeError("the device's hardware does not answer")


def config_of(plan: CommandPlan) -> CommandConfig:
    """What a device of a run allows."""
    return CommandConfig(
        allow_reboot=True,
        running_max=2,
        result_bytes_max=1024,
        keep_ms=plan.keep_us // 1000,
        reboot_spacing_ms=plan.spacing_us // 1000,
        settle_ms=plan.settle_us // 1000,
    )


def handlers_of(status: Callable[[], dict[str, Any]], work: Callable[[Work], object]) -> Handlers:
    """What the application on a device of a run can do. `work`: called while a command of that name is done."""

    def works(wanted: Work) -> dict[str, Any]:
        work(wanted)
        return {"seconds": wanted.seconds}

    handlers = Handlers()
    handlers.add("blink", lambda blink: {"times": blink.times}, Blink)
    handlers.add("work", works, Work)
    handlers.add("fail", _fails)
    handlers.add("large", lambda _: {"text": _LARGE})
    handlers.add("status", lambda _: status())
    return handlers


def _at_once(_: Work) -> None:
    """Virtual time passes when the handler has returned."""


class Executor:
    """Of one device, from a boot until its power goes."""

    __slots__ = ("_device", "_do", "_handlers", "_second_us", "_stream", "_tie", "commander")

    def __init__(self, device: SimDevice, boot: int, next_rev: Callable[[], int]) -> None:
        world = device.world
        assert device.database is not None
        self._device = device
        self._tie = device.tie
        self._stream = rng(world.seed, device.device_id, f"commands/{boot}")
        self._second_us = world.commands.second_us
        self._handlers = handlers_of(lambda: {"waiting": device.outbox_rows(), "reboots": device.reboots}, _at_once)
        self.commander = world.types.commander(
            device.database,
            self._handlers,
            config_of(world.commands),
            boot_id=str(boot),
            probes=world.probes,
            extra=lambda: {"rev": next_rev()},
        )
        self._do: Final[dict[type[Effect], Callable[[Any], None]]] = {
            Run: self._run,
            Reboot: self._reboot,
            Reconnect: self._reconnect,
            WakeAt: self._wake_at,
        }

    @property
    def is_on(self) -> bool:
        return self._device.executor is self

    def look(self) -> None:
        """After each event of the session."""
        self.give(LOOK)

    def give(self, event: Event) -> None:
        """One event into the commander, its effects carried out. Nothing happens when the power is off by then."""
        device = self._device
        if not self.is_on:
            return
        try:
            effects = self.commander.receive(event, device.monotonic_ms())
        except fuse.PowerCutError:
            if self.is_on:
                device.cut()
            return
        except sqlite3.OperationalError as error:
            disk.failed(device, error)  # the commander keeps what it was given
            return
        for effect in effects:
            if self.is_on:
                self._do[type(effect)](effect)

    def _ran(self, command_id: str, name: str) -> None:
        world = self._device.world
        world.trace("ran", self._device.device_id, f"{command_id} {name}")
        world.orders.command_ran(world.clock._now, self._device.device_id, command_id, name)

    def _run(self, run: Run) -> None:
        self._ran(run.id, run.name)
        ended = perform(self._handlers, run.id, run.name, run.arguments)
        work_us = run.arguments.seconds * self._second_us if isinstance(run.arguments, Work) else 0
        takes_us = work_us + self._stream.below(_QUICK_US)
        self._device.world.clock.post_in(takes_us, self._tie, self.give, ended)

    def _reboot(self, reboot: Reboot) -> None:
        self._ran(reboot.id, "reboot")
        device = self._device
        device.stop()
        device.world.clock.post_in(self._stream.between(*_REBOOT_US), self._tie, device.boot, None)

    def _reconnect(self, reconnect: Reconnect) -> None:
        self._ran(reconnect.id, "resync")
        device = self._device
        if device.session is not None and device.session.state in ONLINE:
            device.world.broker.disconnect(device)
            device.feed(DISCONNECTED)

    def _wake_at(self, wake: WakeAt) -> None:
        device = self._device
        device.world.clock.post_at(device.when_us(wake.at_ms), self._tie, self.give, LOOK)
