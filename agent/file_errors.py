"""What can be wrong with a device's file, in words that a person can act on.

Opens and reads nothing. Used by Store, Database and agent.files.
"""

from __future__ import annotations

from typing import Final

from agent.protocol.errors import MessageError
from agent.protocol.messages import Image, decode_image

DAMAGED_HINT: Final = "keep a copy, then start with a backup or without the file"


class StoreError(Exception):
    """The file cannot be used, or could not be written: another's, of a newer version, damaged, in use, full. What was
    being written is undone. `hint`: what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} ({hint})" if hint else message)

    def at(self, path: str) -> StoreError:
        """The same error, naming the file."""
        return self if self.message.startswith(f"{path}: ") else type(self)(f"{path}: {self.message}", self.hint)


class FileInUseError(StoreError):
    """A command or an agent has the file: it lets go some time."""


def other_application() -> StoreError:
    return StoreError("the database of another application", "it is left as it was; name another file")


def newer_version(version: int, known: int) -> StoreError:
    return StoreError(
        f"database of version {version}, this agent knows {known}",
        "it is left as it was; install the agent that wrote it, or a newer one",
    )


def stored_image(data: bytes) -> Image:
    """The image of an item as the file has it. Raises StoreError when it is none: the file is damaged."""
    try:
        return decode_image(data)
    except (MessageError, TypeError) as error:
        raise StoreError(f"damaged: an item that begins with {data!r:.60}: {error}", DAMAGED_HINT) from None
