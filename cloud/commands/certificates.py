"""Where `register --iot` puts a device's certificate and key: two files that only their owner can read, never replaced.

Called by cloud.commands.devices.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from agent.protocol.commands.failure import CommandError

_PRIVATE: Final = 0o600


class Folder:
    """For one device. Raises CommandError."""

    def __init__(self, folder: str, device: str) -> None:
        self.certificate = Path(folder) / f"{device}.cert.pem"
        self.key = Path(folder) / f"{device}.key.pem"

    def check(self) -> None:
        """Whether both files can be made: asked before there is a key that must not be lost."""
        for path in (self.certificate, self.key):
            if path.exists():
                raise CommandError(
                    f"{path}: is there already", "nothing was changed; move it away, or name another --certificates"
                )
        try:
            self.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(self.key, "")
            self.key.unlink()
        except OSError as error:
            raise CommandError(
                f"{self.key}: cannot be written: {error.strerror}", "name another --certificates"
            ) from None

    def keep(self, certificate: str, key: str) -> None:
        """Both, durable before the certificate is made active."""
        self._write(self.key, key)
        self._write(self.certificate, certificate)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
