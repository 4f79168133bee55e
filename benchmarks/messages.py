"""Messages a second through encode and decode, for both encodings, and their sizes. No transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from agent.protocol.messages import (
    Ack,
    HeadMark,
    Row,
    Rows,
    Up,
    decode_from_device,
    decode_to_device,
    encode,
    encode_image,
)
from benchmarks.ground import EPOCH, OP_ID, START_MS, Ground
from benchmarks.measure import Effort, Result, Work, rates

QUESTION = "what do messages cost at each end?"


def _encodes(message: Any, compact: bool) -> Work:
    def work(n: int) -> None:
        for _ in range(n):
            encode(message, compact=compact)

    return work


def _decodes(decode: Callable[[bytes], object], payload: bytes) -> Work:
    def work(n: int) -> None:
        for _ in range(n):
            decode(payload)

    return work


def _samples(ground: Ground) -> dict[str, Any]:
    key, image = ground.image("Config", 7)
    row = Row(key, msgspec.Raw(encode_image(image)), HeadMark(EPOCH, 7, OP_ID))
    feed = f"{START_MS:013d}0123456789abcdef"
    return {
        "up, one operation": ground.up(8),
        "up, 98 operations": ground.up(8, 98),
        "rows, one row": Rows(feed="device", epoch=feed, a=6, b=7, last=7, rows=[row]),
        "ack": Ack(epoch=EPOCH, up=8, upid=OP_ID, now=START_MS),
    }


def run(effort: Effort) -> Result:
    result = Result("messages", QUESTION)
    for name, message in _samples(Ground()).items():
        decode: Callable[[bytes], object] = decode_from_device if isinstance(message, Up) else decode_to_device
        for encoding in ("JSON", "MessagePack"):
            compact = encoding == "MessagePack"
            payload = encode(message, compact=compact)
            size = f"{len(payload)} bytes"
            result.add(f"encode {name}, {encoding}", rates(_encodes(message, compact), effort), "1/s", size)
            result.add(f"decode {name}, {encoding}", rates(_decodes(decode, payload), effort), "1/s", size)
    return result
