"""The relay's figures for Prometheus, and its health, on a local port.

The relay counts in plain counters; here they get their names and types when somebody asks. GET /metrics gives the
figures, GET /health 200 when all is well and 503 with the reasons otherwise. A thread of its own answers, so that a
busy relay answers too. Called by cloud.service.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Histogram, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Beginning of a counter's name -> metric, label, meaning. The rest of the name is the label's value.
FAMILIES: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("message_refused_", "fleet_relay_messages_refused", "reason", "messages of devices that were refused"),
    ("message_", "fleet_relay_messages", "event", "messages of devices: received, done, failed"),
    ("publish_", "fleet_relay_publishes", "result", "messages to devices, by what became of them"),
    ("stream_record_", "fleet_relay_records", "result", "records of the table's stream, by what became of them"),
    ("stream_", "fleet_relay_stream_events", "event", "what happened while the stream was read"),
    ("lease_", "fleet_relay_lease_events", "event", "leases of shards taken, given up, lost"),
    ("websocket_refused_", "fleet_relay_websocket_refused", "reason", "connections that were not let in"),
    ("websocket_closed_", "fleet_relay_websocket_closed", "reason", "connections of devices that ended, by why"),
    ("websocket_messages_", "fleet_relay_websocket_messages", "direction", "WebSocket messages from and to devices"),
    ("websocket_bytes_", "fleet_relay_websocket_bytes", "direction", "bytes of WebSockets from and to devices"),
    (
        "websocket_",
        "fleet_relay_websocket_events",
        "event",
        "connections made, pushes queued, faults of the relay's own",
    ),
    ("broker_", "fleet_relay_broker_events", "event", "connections to the broker made and lost"),
    ("call_", "fleet_relay_table_calls", "operation", "calls of the table that were answered or not"),
    ("fault_", "fleet_relay_table_faults", "verdict", "calls of the table that failed"),
    ("digest_", "fleet_relay_digests", "result", "comparisons of digests, by model and by what became of them"),
    ("", "fleet_relay_events", "event", "what the relay's logic counts: conflicts, verdicts, feed epochs"),
)
UNITS: Final = "read and write units, as the table tells"
Gauges = Callable[[], dict[str, tuple[str, float]]]  # metric -> its meaning and value


class Figures:
    """`gauges` gives what has a value now; `health` the reasons why all is not well."""

    def __init__(self, counters: Counter[str], units: Counter[str], gauges: Gauges, health: Callable[[], list[str]]):
        self._counters = counters
        self._units = units
        self._gauges = gauges
        self._health = health
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.message_seconds = Histogram(
            "fleet_relay_message_seconds",
            "from the start of the work on a message to its end",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.record_seconds = Histogram(
            "fleet_relay_record_seconds",
            "work on the records of one feed of a batch",
            buckets=_SECONDS,
            registry=self.registry,
        )

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks a collector for."""
        families: dict[str, Metric] = {}
        for name, count in sorted(dict(self._counters).items()):
            beginning, metric, label, meaning = next(each for each in FAMILIES if name.startswith(each[0]))
            family = families.get(metric)
            if family is None:
                family = families[metric] = CounterMetricFamily(metric, meaning, labels=[label])
            assert isinstance(family, CounterMetricFamily)
            family.add_metric([name[len(beginning) :]], count)
        units = CounterMetricFamily("fleet_relay_table_units", UNITS, labels=["operation"])
        for operation, count in sorted(dict(self._units).items()):
            units.add_metric([operation], count)
        families["units"] = units
        for name, (meaning, value) in self._gauges().items():
            families[name] = GaugeMetricFamily(name, meaning, value=value)
        yield from families.values()

    def application(self) -> Callable[..., Iterable[bytes]]:
        """For a WSGI server."""
        metrics = make_wsgi_app(self.registry)

        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "/")
            if path == "/metrics":
                return list(metrics(environ, start_response))
            if path == "/health":
                problems = self._health()
                body = json.dumps({"status": "failing" if problems else "ok", "problems": problems}).encode()
                start_response(
                    "503 Service Unavailable" if problems else "200 OK", [("Content-Type", "application/json")]
                )
                return [body + b"\n"]
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics or /health\n"]

        return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: each scrape would be a line."""


def serve(figures: Figures, host: str, port: int) -> tuple[WSGIServer, int]:
    """Answers from now on; gives the server and its port (that of the system's choice for 0). Raises OSError."""
    server = make_server(host, port, figures.application(), _Server, _Quiet)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server, server.server_port
