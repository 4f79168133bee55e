"""Dead letters as JSON values: what `fleet-agent rejected` and the socket tell of them.

Pure. Called by agent.api.serving and agent.commands.rejected.
"""

from __future__ import annotations

from typing import Any, Final

from agent.file_errors import stored_image
from agent.protocol.commands.typed import to_json
from agent.protocol.onetable.dates import iso_text
from agent.protocol.schema import Schema
from agent.records import ROW, DeadLetter

FROM_CLOUD: Final = "from the cloud"


def values(schema: Schema, letter: DeadLetter) -> dict[str, Any]:
    """`what`: the kind of the write, or FROM_CLOUD for a change that could not be applied."""
    key = (letter.pk, letter.sk)
    place = schema.locate(key)
    item = None
    if place is not None and letter.image is not None and letter.code != "malformed":
        item = to_json(place.model, place.model.read(key, stored_image(letter.image)))
    return {
        "n": letter.n,
        "at": iso_text(letter.at_ms),
        "what": FROM_CLOUD if letter.kind == ROW else letter.kind,
        "model": place.model.name if place is not None else None,
        "key": list(key),
        "item": item,
        "code": letter.code,
    }
