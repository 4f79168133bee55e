"""Emulators of the cloud's parts for tests: the DynamoDB of moto and of ministack, each in a process of its own.

On loopback and a free port. A process ends when its standard input does, so none outlives the tests, however these
end. Used by tests through the fixtures of conftest.py, and by commands that capture what other programs store; run as a
program it is the server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

REGION: Final = "us-east-1"
KEY_ID: Final = "test"  # emulators look at no signature
SECRET: Final = "test"


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """The address of a new, empty DynamoDB: `http://127.0.0.1:PORT`. Tables live as long as the context."""
    with _server("moto") as address:
        yield address


@contextlib.contextmanager
def ministack_server() -> Iterator[str]:
    """The same by ministack, whose stream records are those of the service; it takes longer to start."""
    with _server("ministack") as address:
        yield address


@contextlib.contextmanager
def _server(kind: str) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).resolve()), kind]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdin and server.stdout and server.stderr
        try:
            address = server.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"{kind}'s server did not start: {server.stderr.read()[-2000:]}")
            server.stderr.close()
            yield address
        finally:
            server.stdin.close()
            server.wait(20)


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


def serve_moto() -> None:
    """Says the address on standard output, and serves until standard input ends."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    _silence()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.read()
    server.stop()


def serve_ministack() -> None:
    """As `serve_moto`. Its own command would listen on all interfaces; here it is given a socket."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    os.environ["GATEWAY_PORT"] = str(port)  # read on import
    _silence()
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    config = Config()
    config.bind = [f"fd://{listening.fileno()}"]
    config.accesslog = config.errorlog = None

    async def until_the_end_of_input() -> None:
        print(f"http://127.0.0.1:{port}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    asyncio.run(serve(app, config, shutdown_trigger=until_the_end_of_input))


def _silence() -> None:
    """The log of requests, which nobody reads, would fill a pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


if __name__ == "__main__":
    {"moto": serve_moto, "ministack": serve_ministack}[sys.argv[1]]()
