"""Emulators of the cloud's parts for tests: the DynamoDB of moto and of ministack, each in a process of its own.

On loopback and a free port; none outlives the tests, however these end (fleet.live.processes). Used by tests through
the fixtures of conftest.py, and by commands that capture what other programs store; run as a program it is ministack's
server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from fleet.live.parts import MotoServer, address_of
from fleet.live.processes import Part, Processes

REGION: Final = "us-east-1"
KEY_ID: Final = "test"  # emulators look at no signature
SECRET: Final = "test"


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """The address of a new, empty DynamoDB: `http://127.0.0.1:PORT`. Tables live as long as the context."""
    with tempfile.TemporaryDirectory() as folder, Processes() as processes:
        server = MotoServer(processes, Path(folder))
        server.start()
        yield server.url


@contextlib.contextmanager
def ministack_server() -> Iterator[str]:
    """The same by ministack, whose stream records are those of the service; it takes longer to start."""
    command = [sys.executable, str(Path(__file__).resolve())]
    quiet = {"PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as folder, Processes() as processes:
        place = Path(folder)
        server = Part(processes, "ministack", command, folder=place, ready=address_of, environment=quiet)
        server.start()
        yield str(address_of(server))


def client(address: str, service: str = "dynamodb") -> Any:
    """boto3's client of a service (also `dynamodbstreams`), talking to the server at `address` alone."""
    import boto3  # slow to import, and most tests have no use for it
    from botocore.config import Config

    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET}
    # Else botocore makes up an address of its own for streams.
    config = Config(account_id_endpoint_mode="disabled", retries={"total_max_attempts": 1})
    return boto3.client(service, endpoint_url=address, region_name=REGION, config=config, **keys)


def table_names(client: Any) -> list[str]:
    """All of them: one answer names a hundred, and a server that many tests share has more."""
    pages = client.get_paginator("list_tables").paginate()
    return [name for page in pages for name in page["TableNames"]]


def serve_ministack() -> None:
    """Says the address on standard output, and serves until it is killed. Its own command would listen on all
    interfaces; here it is given a socket."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    os.environ["GATEWAY_PORT"] = str(port)  # read on import
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a line for each request, which nobody reads
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    config = Config()
    config.bind = [f"fd://{listening.fileno()}"]
    config.accesslog = config.errorlog = None

    async def for_ever() -> None:
        print(f"http://127.0.0.1:{port}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve(app, config, shutdown_trigger=for_ever))


if __name__ == "__main__":
    serve_ministack()
