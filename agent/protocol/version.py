"""The version of the release: one place, for `--version`, the package's metadata and what a run records.

Not the version of messages: that is `agent.protocol.messages.VERSION`. Read by the build (which wants the line just as
it is) and by every command line.
"""

__version__ = "0.1.0"
