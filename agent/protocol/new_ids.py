"""What a schema's `generate` asks for: `ulid`, `uuid`, `uid` or `uid(N)`, from the randomness that is passed in.

Called by agent.ids and by the cloud's applications.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

_UID_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32


def generator(
    random_bytes: Callable[[int], bytes], now_ms: Callable[[], int], ulid_text: Callable[[bytes], str]
) -> Callable[[str], str]:
    """The function that is called with the kind. `ulid_text`: how 16 bytes are written as a ULID."""

    def generate(kind: str) -> str:
        if kind == "ulid":
            at_ms = max(now_ms(), 0)  # a clock may be set before 1970
            return ulid_text(at_ms.to_bytes(6, "big") + random_bytes(10))
        if kind == "uuid":
            return str(uuid.UUID(bytes=random_bytes(16), version=4))
        length = int(kind[4:-1]) if kind.startswith("uid(") else 10
        return "".join(_UID_ALPHABET[byte & 31] for byte in random_bytes(length))

    return generate
