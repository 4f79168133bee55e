"""The numbers of the relay's WebSocket listener, with defaults. Pure values; made by whoever starts a relay."""

from __future__ import annotations

from dataclasses import dataclass, fields

from agent.protocol.messages import MESSAGE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """Raises ValueError when a number makes no sense."""

    connections: int = 5_000  # devices at once; one more is told to come later (503)
    handshakes: int = 256  # under way at once; more wait in the system's queue
    handshakes_per_address: int = 64  # more are closed at once
    handshake_ms: int = 10_000  # from a connection to the end of its handshake
    refusal_ms: int = 500  # from the request to the answer "no" (401), whatever the reason
    failures: int = 20  # wrong tokens that one address may offer at once
    failures_per_minute: int = 30  # and how fast it gets new chances
    ping_ms: int = 20_000  # between two pings
    idle_ms: int = 60_000  # nothing heard for so long, pongs included: closed
    queue_bytes: int = 4 * 1024 * 1024  # that wait for one device
    queues_bytes: int = 256 * 1024 * 1024  # that wait for all of them
    slow_ms: int = 45_000  # one message not written within that, or no place for an answer: closed
    recheck_ms: int = 300_000  # how often an open connection's token and account are looked up again

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} {getattr(self, field.name)}: at least 1")
        for name in ("queue_bytes", "queues_bytes"):
            if getattr(self, name) < MESSAGE_BYTES_MAX:
                raise ValueError(f"{name} {getattr(self, name)}: at least {MESSAGE_BYTES_MAX}, one message")
        if self.ping_ms >= self.idle_ms:
            raise ValueError(f"ping_ms {self.ping_ms} must be less than idle_ms {self.idle_ms}")
