"""Has `import` take the compiled modules, all of them or none.

Called by the commands that simulate, before they import what they run. FLEET_INTERPRETED=1 in the environment says no.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

from fleet.native import place

SWITCH: Final = "FLEET_INTERPRETED"
SHARED: Final = "__mypyc"  # how the name of the library that all compiled modules share ends


class Finder(MetaPathFinder):
    """Finds `modules` (dotted names) below `folder`."""

    def __init__(self, folder: Path, modules: Sequence[str]) -> None:
        self._files = {name: folder.joinpath(*name.split(".")) for name in modules}
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        stem = self._files.get(name)
        if stem is None:
            if not name.endswith(SHARED):
                return None
            stem = self._folder / name
        file = f"{stem}{EXTENSION_SUFFIXES[0]}"
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))


def compiled() -> bool:
    """Whether this process runs compiled."""
    return any(isinstance(finder, Finder) for finder in sys.meta_path)


def use() -> bool:
    """Whether this process runs compiled from now on. All or nothing: not if one of the modules is imported already."""
    if compiled():
        return True
    if os.environ.get(SWITCH, "") not in ("", "0"):
        return False
    folder = place.folder()
    modules = place.read_manifest(folder)
    if modules is None or any(name in sys.modules for name in modules):
        return False
    sys.meta_path.insert(0, Finder(folder, modules))
    return True
