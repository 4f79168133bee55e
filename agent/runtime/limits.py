"""How many files a process may have open: raised as far as it goes, or said clearly which limit is in the way.

Called by whoever runs many agents in one process, and by agent.runtime.daemon.
"""

from __future__ import annotations

import resource
from typing import Final

FILES_OF_AGENT: Final = 4  # its connection; its database, the log and the lock beside it
FILES_SPARE: Final = 64  # of the process itself


class LimitError(Exception):
    """The system allows too few."""


def allow_open_files(wanted: int) -> int:
    """Raises the soft limit to `wanted`, if it is lower. Returns the limit. Raises LimitError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise LimitError(
            f"{wanted} open files are needed, and the hard limit is {hard}: raise it (`ulimit -Hn {wanted}` as root, "
            f"LimitNOFILE={wanted} in a unit of systemd, `nofile` in /etc/security/limits.conf)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def allow_agents(count: int, *, files: bool) -> int:
    """The same for so many agents. `files`: their databases are files, not memory."""
    return allow_open_files(FILES_SPARE + count * (FILES_OF_AGENT if files else 1))
