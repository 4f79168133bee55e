"""Link profiles: the numbers behind `link: lte`, each with where it comes from.

Values only; no draws, no I/O. Used by the scenario's models (`link:`) and shown by the documentation.
Marks: (v) the vendor's or measurer's own text · (2) a second-hand copy · (a) an assumption.
"""

from __future__ import annotations

from typing import Any, Final

# Keys are those of `link:` in a scenario. Delay is one way; loss is the mean share of packets lost, `burst` at a time
# on average. `offline`: breaks of the link itself, lognormal from median and 99th percentile.
LINKS: Final[dict[str, dict[str, Any]]] = {
    "ethernet": {  # (a) all values; breaks are too rare to model
        "delay": "10ms", "jitter": "2ms", "rate_up": "100M", "rate_down": "100M", "loss": "0%",
    },
    "home-wifi": {  # (a) all values
        "delay": "20ms", "jitter": "5ms", "rate_up": "10M", "rate_down": "30M", "loss": "1%", "burst": 2,
        "offline": {"every": "24h", "median": "30s", "p99": "2h"},
    },
    "wifi-poor": {  # (a) all values
        "delay": "15ms", "jitter": "10ms", "rate_up": "2M", "rate_down": "5M", "loss": "5%", "burst": 2,
        "offline": {"every": "2h", "median": "20s", "p99": "3m"},
    },
    "lte": {  # (a) all values; breaks: 95 % under 60 s, so sigma = ln(6) / 1.645 and p99 = 10 s * e^(2.326 sigma)
        "delay": "40ms", "jitter": "15ms", "rate_up": "5M", "rate_down": "20M", "loss": "0.5%", "burst": 2,
        "offline": {"every": "4h", "median": "10s", "p99": "126s"},
    },
    "lte-m": {  # delay: 50 to 100 ms measured (2); the rest (a)
        "delay": "75ms", "jitter": "30ms", "rate_up": "375k", "rate_down": "1M", "loss": "1%", "burst": 2,
        "offline": {"every": "6h", "median": "30s", "p99": "5m"},
    },
    "nb-iot": {  # delay: median near the 837 ms measured on a UK campus (2), lognormal; the rest (a)
        "delay": "800ms", "delay_p99": "8s", "rate_up": "20k", "rate_down": "25k", "loss": "2%", "burst": 3,
        "offline": {"every": "12h", "median": "2m", "p99": "20m"},
    },
    "cellular-bloated": {  # Pantheon's calibrated emulator: 130 ms / 3.04 Mbit/s / queue of 426 packets (2); breaks (a)
        "delay": "130ms", "rate_up": "3.04M", "rate_down": "3.04M", "loss": "0%", "queue": 426,
        "offline": {"every": "4h", "median": "10s", "p99": "126s"},
    },
    "rural-lossy": {  # Pantheon's calibrated emulator: 28 ms / 0.57 Mbit/s / 4.77 % (2); breaks (a)
        "delay": "28ms", "rate_up": "570k", "rate_down": "570k", "loss": "4.8%",
        "offline": {"every": "1h", "median": "5m", "p99": "40m"},
    },
    "leo-sat": {  # round trip of 60 to 65 ms (2); the rest (a)
        "delay": "32ms", "jitter": "10ms", "rate_up": "10M", "rate_down": "150M", "loss": "1%", "burst": 3,
        "offline": {"every": "15m", "median": "2s", "p99": "5s"},
    },
}  # fmt: skip
