"""Where compiled modules lie, and what they were compiled from.

<site-packages>/fleet_native/ holds the extension modules in the folders of their packages, and manifest.json:
`{"python": cache tag, "source": hex digest of all sources, "modules": [dotted names]}`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from pathlib import Path
from typing import Final

ROOMS: Final = ("agent", "cloud", "fleet", "reports")
ROOT: Final = Path(__file__).resolve().parent.parent.parent
MANIFEST: Final = "manifest.json"
DIGEST_BYTES: Final = 16


def folder() -> Path:
    """Of this interpreter: a new environment begins without."""
    return Path(sysconfig.get_path("platlib")) / "fleet_native"


def source_digest(root: Path = ROOT) -> str:
    """Of every source: a compiled module holds constants of modules that are not compiled. 32 hex digits."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            text = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(text)}\0".encode())
            digest.update(text)
    return digest.hexdigest()


def write_manifest(place: Path, source: str, modules: list[str]) -> None:
    manifest = {"python": sys.implementation.cache_tag, "source": source, "modules": modules}
    (place / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def read_manifest(place: Path) -> list[str] | None:
    """The modules that lie there, if they were compiled from this very source by this Python; else None."""
    try:
        manifest = json.loads((place / MANIFEST).read_text())
        if manifest["python"] != sys.implementation.cache_tag or manifest["source"] != source_digest():
            return None
        return [str(name) for name in manifest["modules"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
