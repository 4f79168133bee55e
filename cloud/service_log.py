"""The log that agent and relay share, under the name that the parts of the relay's service use."""

from __future__ import annotations

from agent.protocol.log import AGAIN_MS as AGAIN_MS
from agent.protocol.log import LEVELS as LEVELS
from agent.protocol.log import Log as Log
