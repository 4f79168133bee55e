"""`install-service`: a unit of systemd for the agent, hardened, with a watchdog and restarts.

Writes the unit, and nothing else: systemd itself is asked by whoever installs it. Called by agent.cli.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import sys
from pathlib import Path
from typing import Final

from agent.protocol.commands.failure import OK, CommandError
from agent.runtime.settings import Settings, load

SYSTEM_FOLDER: Final = Path("/etc/systemd/system")
_NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,100}")
_OPEN_FILES: Final = 1_024

_UNIT: Final = """\
# Made by `fleet-agent install-service`.
[Unit]
Description=Fleet agent of {device}
Wants=network-online.target
After=network-online.target time-sync.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} run --config {config}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=5
TimeoutStopSec=30
WatchdogSec=60
KillSignal=SIGTERM
LimitNOFILE={files}
UMask=0077
{user}
[Install]
WantedBy={target}
"""
# What a system's manager can take away from the agent; a user's manager has no right to.
_HARDENED: Final = """\
User={user}
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={folders}
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
AmbientCapabilities=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""
_OF_USER: Final = """\
NoNewPrivileges=yes
"""


def install(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config)
    if not _NAME.fullmatch(arguments.name):
        raise CommandError(f"--name {arguments.name!r}", "letters, digits and _.@-")
    text = unit_of(settings, program=_program(), user=arguments.run_as or _user(), of_user=arguments.user)
    if arguments.print:
        print(text, end="")
        return OK
    folder = Path.home() / ".config/systemd/user" if arguments.user else SYSTEM_FOLDER
    path = folder / f"{arguments.name}.service"
    if path.exists() and path.read_text("utf-8") != text and not arguments.yes:
        raise CommandError(f"{path}: exists already, and is another", "--yes writes over it")
    if arguments.user:
        folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    who = "systemctl --user" if arguments.user else "systemctl"
    print(f"{path}: written")
    print(f"  {who} daemon-reload && {who} enable --now {arguments.name}")
    return OK


def unit_of(settings: Settings, *, program: str, user: str, of_user: bool) -> str:
    """The text of the unit. `of_user`: for a user's own manager."""
    folders = [Path(settings.database).parent]
    if settings.socket:
        api = Path(settings.socket).parent
        folders.append(api if api.exists() else api.parent)
    if of_user:
        rights = _OF_USER
    else:
        kept = " ".join(dict.fromkeys(_word(str(folder)) for folder in folders))
        places = [str(place) for place in (*folders, settings.place, program)]
        inside = any(place.startswith(("/home/", "/root/", "/run/user/")) for place in places)
        rights = _HARDENED.format(user=user, folders=kept, home="read-only" if inside else "yes")
    return _UNIT.format(
        device=settings.device,
        program=_word(program),
        config=_word(os.path.abspath(settings.place)),
        files=_OPEN_FILES,
        user=rights,
        target="default.target" if of_user else "multi-user.target",
    )


def _word(text: str) -> str:
    """A path as one word of a unit: systemd expands `%`, splits at blanks and takes away quotes."""
    safe = text.replace("%", "%%")
    if re.search(r"[\s\"'\\;$]", safe):
        quoted = safe.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
        return f'"{quoted}"'
    return safe


def _program() -> str:
    beside = Path(sys.executable).with_name("fleet-agent")
    if beside.exists():
        return str(beside)
    raise CommandError(f"{beside}: no such program", "install fleet-sync into the environment that runs this command")


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
