"""Runs one piece of relay work to its end, synchronously: for functions in the cloud, small services and tests.

Never retries and never swallows an error: what the relay's logic does not handle itself reaches the caller, who has the
message or the record and may run it again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from cloud.table import Publish, Request, TableError, TableRequest

Result = TypeVar("Result")


def run(
    work: Generator[Request, Any, Result],
    execute: Callable[[TableRequest], Any],
    publish: Callable[[Publish], None],
) -> Result:
    """What the work returns. Raises whatever `publish` raises, and TableError where the logic gave up."""
    try:
        request = next(work)
        while True:
            if isinstance(request, Publish):
                publish(request)
                request = work.send(None)
                continue
            try:
                answer = execute(request)
            except TableError as error:
                request = work.throw(error)
            else:
                request = work.send(answer)
    except StopIteration as end:
        result: Result = end.value
        return result
