"""`fleet-cloud` with a planted fault: the sequencer cannot work on the item whose sort key is `config#`.

Run as a program by test_relay_process.py, in the place of the real command: nothing that emulators accept is poison by
itself.
"""

from __future__ import annotations

import sys

from cloud.cli import main
from cloud.feed import Sequencer
from cloud.relay import Relay
from cloud.table import InvalidRequest, Record, Work


class Planted(Sequencer):
    def on_record(self, record: Record) -> Work:
        if record.key[1] == "config#":
            raise InvalidRequest("planted")
        yield from super().on_record(record)


if __name__ == "__main__":
    Relay.sequencer_type = Planted
    sys.exit(main())
