"""What a run leaves behind is given back before its report is drawn."""

from __future__ import annotations

import ctypes
import gc
import weakref
from typing import Any

import pytest

from fleet.native import heap


class Node:
    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("library", ["as it is", "without malloc_trim"])
def test_cycles_are_gone_wherever_it_runs(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(_: Any) -> object:
        return object()

    if library != "as it is":
        monkeypatch.setattr(ctypes, "CDLL", no_library)
    gc.disable()
    try:
        left = weakref.ref(Node())
        assert left() is not None
        heap.give_back()
        assert left() is None
    finally:
        gc.enable()
