"""The version of the release: one place, for `--version`, the package's metadata and what a run records.

Not the version of messages: that is `agent.protocol.messages.VERSION`. Read by the build and by every command line.
"""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
