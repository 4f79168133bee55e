"""Remote commands of a real device: the commander made ready, with the machine's boot and the way to restart it.

Called by agent.runtime.daemon.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import trio

from agent.database import Database
from agent.protocol.log import Log
from agent.protocol.remote import check_models, has_commands
from agent.remote.commander import Commander
from agent.remote.events import CommandConfig
from agent.remote.handlers import Handlers
from agent.runtime.executor import Executor
from agent.runtime.settings import Settings

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_REBOOT: Final = ("systemctl", "reboot")


def executor_of(
    settings: Settings, database: Database, handlers: Handlers, status: Callable[[], Mapping[str, Any]], log: Log
) -> Executor | None:
    """None for a schema without results of commands. `handlers`: the application's. Raises InputError when the schema's
    models for commands are not as they must be."""
    schema = database.schema
    if not has_commands(schema):
        return None
    check_models(schema)
    if handlers.get("status") is None:
        handlers.add("status", lambda _: status())
    config = CommandConfig(
        allow_reboot=settings.allow_reboot,
        reboot_spacing_ms=settings.reboot_spacing_ms,
        keep_ms=max(CommandConfig().keep_ms, settings.reboot_spacing_ms),
    )
    boot_id = _BOOT_ID.read_text("ascii").strip()
    commander = Commander(database, handlers, config, boot_id=boot_id, probes=Counter())
    return Executor(commander, reboot, log)


async def reboot() -> str:
    """Asks systemd, which ends this process in good order. Why it was refused, else ""."""
    try:
        done = await trio.run_process(_REBOOT, check=False, capture_stderr=True, stdout=subprocess.DEVNULL)
    except OSError as error:
        return f"{' '.join(_REBOOT)}: {(error.strerror or str(error)).lower()}"
    said = done.stderr.decode("utf-8", "replace").strip()
    return "" if done.returncode == 0 else f"{' '.join(_REBOOT)}: {said or f'exit {done.returncode}'}"
