"""The text of an image: a pure function of the number of the write that made it.

So "nothing appears that no application wrote" needs no list of what was written: whoever sees a text computes it again
from the `rev` beside it. Workloads call `text_for` when they write, the oracle when it sees. No state but a bounded
memo.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

REV: Final = "rev"
TEXT: Final = "text"
_DIGITS: Final = 64


@lru_cache(maxsize=1024)  # a write is looked at several times, within a second or so; a run of days must not grow
def text_for(rev: int, size: int) -> str:
    """`size` ASCII characters that depend on every bit of `rev` and of `size` (so that a cut text is seen)."""
    digest = hashlib.blake2b(b"%d:%d" % (rev, size), digest_size=_DIGITS // 2).hexdigest()
    return (digest * (size // _DIGITS + 1))[:size]


def is_genuine(rev: Any, text: Any) -> bool:
    """Whether `text` is what a workload writes under `rev`. An image without a text says nothing and passes."""
    if type(rev) is int and type(text) is str:
        return text == text_for(rev, len(text))
    return text is None
