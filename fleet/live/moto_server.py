"""moto's DynamoDB as a process: says its address on standard output, and serves until it is killed.

Started by fleet.live.parts, as a file. It has a free port of loopback, and its tables are gone when it ends.
"""

from __future__ import annotations

import os
import threading


def main() -> None:
    from moto.server import ThreadedMotoServer

    from fleet.live.moto_mends import mend

    mend()
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a line for each request, which nobody reads
    print(f"http://{host}:{port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
