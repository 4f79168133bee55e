"""When an item's life ends, by its `ttl` attribute, as the table's time to live reads it. Pure.

Called by the device's database, which drops what is over, and by digests, which leave it out.
"""

from __future__ import annotations

from typing import Final

from agent.protocol.messages import Image
from agent.protocol.onetable.model import Model

_END_S_MAX: Final = 1 << 53


def end_of_life_s(model: Model, image: Image) -> int | None:
    """In seconds since 1970; None: never, or the attribute holds something that is no time."""
    if model.ttl_attribute is None:
        return None
    end_s = image.get(model.ttl_attribute)
    return end_s if end_s.__class__ is int and 0 < end_s < _END_S_MAX else None
