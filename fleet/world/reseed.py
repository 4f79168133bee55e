"""Draws everything anew from a moment on: every stream and every tie of a world goes on with other numbers.

For finding the moment from which on a failure cannot be avoided. What was drawn before is as it was, and so is what was
decided by it and lies ahead: a message on its way arrives when it was to. Streams are found by following the references
from the world, not by a register: a run that is never drawn anew pays nothing for it, and none can be forgotten.
Called by fleet.world.world, in runs whose plan says so.
"""

from __future__ import annotations

import gc
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Final

from fleet.rng import Stream, digest64
from fleet.world.clock import Tie

_NOT_FOLLOWED: Final = (type, ModuleType, CodeType, str, bytes, int, float, bool, type(None))
_SEEDS: Final = ("seed", "_seed")  # from which parts of a world name the streams that they open on the way


def reseed(world: Any, seed: int, number: int) -> None:
    """All that the world draws from now on. `seed`: of its plan; streams opened later are of another one."""
    other = digest64(seed, "reseed", number) >> 1
    for part in _parts(world):
        if isinstance(part, Stream | Tie):
            part.reseed(number)
        elif type(part).__module__.startswith("fleet.world."):
            for name in _SEEDS:
                if getattr(part, name, None) == seed:
                    setattr(part, name, other)


def _parts(root: object) -> list[Any]:
    """Everything that can be reached, once each. A function leads to what it has closed over, never to its module."""
    seen: dict[int, Any] = {id(root): root}
    waiting: list[Any] = [root]
    while waiting:
        for part in _referents(waiting.pop()):
            if id(part) not in seen and not isinstance(part, _NOT_FOLLOWED):
                seen[id(part)] = part
                waiting.append(part)
    return list(seen.values())


def _referents(part: Any) -> list[Any]:
    if isinstance(part, FunctionType):
        return list(part.__closure__ or ())
    if isinstance(part, BuiltinFunctionType):
        return [part.__self__]
    return gc.get_referents(part)
