"""Which table a run is on, and the way to it: what may be asked for, a table of the run's own, and its end.

moto runs within this process, behind boto3's clients. Another emulator is reached at its address, which must be on this
machine; there, the credentials of the environment are never used. The table is made for the run under a name that no
other has, and deleted at its end. Only where a person names a table of AWS, and says so in as many words, AWS is talked
to (fleet.backends.given). Called by fleet.run and by `fleet run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING, Final

from agent.protocol.errors import InputError, Problem
from cloud.system import pause, random_hex
from fleet.scenario.plan import CloudPlan, Plan
from fleet.world.table import WorldTable, retain_ms

if TYPE_CHECKING:
    from cloud.dynamodb_errors import Unusable

REGION: Final = "us-east-1"
KEYS: Final = ("fleet", "fleet")  # emulators look at no signature
KINDS: Final = ("memory", "moto", "dynamodb")


@dataclass(frozen=True, slots=True)
class Backend:
    """What was asked for."""

    kind: str  # one of KINDS
    endpoint_url: str = ""
    table: str = ""  # in AWS, made by a person


MEMORY: Final = Backend("memory")


def check(kind: str, endpoint_url: str, table: str = "", *, yes_aws: bool = False) -> Backend:
    """What a person asked for, if it can be had. Sends nothing. Raises InputError."""
    if kind not in KINDS:
        raise _refused("--backend", kind, f"no such backend; one of {', '.join(KINDS)}")
    if table or yes_aws:
        return _in_aws(kind, endpoint_url, table, yes_aws)
    if kind != "dynamodb":
        if endpoint_url:
            raise _refused("--endpoint-url", endpoint_url, "only with --backend dynamodb")
        if kind == "moto" and find_spec("moto") is None:
            raise _refused("--backend", kind, "moto is not installed", "pip install 'fleet-sync[moto]'")
        return Backend(kind)
    if not endpoint_url:
        raise _refused(
            "--backend",
            kind,
            "the emulator's address is missing",
            "add --endpoint-url http://127.0.0.1:PORT; for a table in AWS, --yes-aws --table NAME",
        )
    from cloud.dynamodb_table import on_this_machine

    if not endpoint_url.startswith(("http://", "https://")):
        raise _refused("--endpoint-url", endpoint_url, "no address", "http://127.0.0.1:PORT")
    if not on_this_machine(endpoint_url):
        raise _refused(
            "--endpoint-url",
            endpoint_url,
            "not on this machine: a run makes and deletes a table, which it does on emulators here only",
            "start the emulator on 127.0.0.1",
        )
    return Backend(kind, endpoint_url)


def _in_aws(kind: str, endpoint_url: str, table: str, yes_aws: bool) -> Backend:
    option, value = ("--table", table) if table else ("--yes-aws", "")
    if kind != "dynamodb":
        raise _refused(option, value, "only with --backend dynamodb")
    if endpoint_url:
        raise _refused(option, value, "not with --endpoint-url: on an emulator a run makes its own table")
    if not table:
        raise _refused(option, value, "which table?", "add --table NAME")
    if not yes_aws:
        raise _refused(option, value, "a run on a table in AWS costs money", "add --yes-aws if that is meant")
    return Backend(kind, "", table)


def look(backend: Backend, plan: Plan) -> str:
    """For a table in AWS: what stands against this run on it, by reading alone; else what it is called. Raises
    InputError."""
    from cloud.dynamodb_errors import Unusable
    from cloud.dynamodb_table import connect, place_of
    from fleet.backends import given

    for fault in plan.faults:
        if fault.kind == "table-restore":
            message = f"the fault {fault.name!r} puts the table back to an older copy: only on a table of the run's own"
            raise _refused("--table", backend.table, message, "leave the fault out, or run it on an emulator")
    try:
        client = connect()
        given.look(client, backend.table)
    except Unusable as error:
        raise _refused("--table", backend.table, error.problem, error.hint) from None
    return place_of(client, backend.table)


def _refused(option: str, value: str, message: str, hint: str = "") -> InputError:
    return InputError([Problem(option, 0, 0, value, message, hint)])


@contextmanager
def opened(backend: Backend, plan: CloudPlan) -> Iterator[WorldTable | None]:
    """The table of one run, empty; None: the world makes its own in memory. Raises InputError when there is no emulator
    at the address, or for a table in AWS that a run must not have, and BackendFailed."""
    if backend.kind == "memory":
        yield None
    elif backend.table:
        with _given(backend, plan) as table:
            yield table
    elif backend.kind == "dynamodb":
        check(backend.kind, backend.endpoint_url)
        with _table(backend.endpoint_url, backend.endpoint_url, plan) as table:
            yield table
    else:
        from moto import mock_aws

        # The service's own addresses are those that moto answers. A variable of the environment could lead elsewhere.
        address, streams = (f"https://{name}.{REGION}.amazonaws.com" for name in ("dynamodb", "streams.dynamodb"))
        with mock_aws(), _table(address, streams, plan, moto=True) as table:
            yield table


@contextmanager
def _table(address: str, streams: str, plan: CloudPlan, *, moto: bool = False) -> Iterator[WorldTable]:
    from cloud.dynamodb import DynamoTable
    from cloud.dynamodb_errors import RAISED, Unusable
    from cloud.dynamodb_table import connect, create_table, definition
    from fleet.backends.stream import StreamReader
    from fleet.backends.table import EmulatedTable

    own = random_hex(16)  # names the table and its transactions: emulators remember these after the run
    name = f"fleet-run-{own}"
    numbers = count()
    try:
        client = connect(region=REGION, endpoint_url=address, keys=KEYS)
        stream_client = connect(region=REGION, endpoint_url=streams, keys=KEYS, service="dynamodbstreams")
    except Unusable as error:
        raise _unusable(address, error) from None
    try:
        if moto:
            from fleet.backends.in_process import TidyReader

            arn = str(client.create_table(**definition(name))["TableDescription"]["LatestStreamArn"])
            reader: StreamReader = TidyReader(stream_client, arn)
        else:
            reader = StreamReader(stream_client, create_table(client, name, None))  # only on this machine
        table = DynamoTable(client, name, wait=pause, chance=lambda: 1.0, token=lambda: f"{own}.{next(numbers)}")
        yield EmulatedTable(client, table, reader, plan.shards, retain_ms=retain_ms(plan), wait=pause)
    except Unusable as error:
        raise _unusable(address, error) from None
    finally:
        with suppress(*RAISED):  # an emulator that is gone has taken its tables with it
            client.delete_table(TableName=name)


@contextmanager
def _given(backend: Backend, plan: CloudPlan) -> Iterator[WorldTable]:
    from cloud.dynamodb_errors import Unusable
    from fleet.backends.given import given

    try:
        with given(backend.table, plan) as table:
            yield table
    except Unusable as error:
        raise _refused("--table", backend.table, error.problem, error.hint) from None


def _unusable(address: str, error: Unusable) -> InputError:
    return _refused("--endpoint-url", address, error.problem, error.hint)
