"""The handlers as AWS Lambda calls them, with boto3 on moto: table, queue and broker are all asked for real.

Called by pytest only.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from dynamo_rig import adapter, moto_in_process
from emulators import KEY_ID, REGION, SECRET
from lambda_rig import Context, lambda_record, rule_message, sequence
from relay_rig import EPOCH, FILE, SCHEMA, config, hello, op, status, stored, up

from agent.protocol.digest import fingerprint
from agent.protocol.errors import InputError
from agent.protocol.messages import Ack, Claim, Compared, Digest, Rows, decode_to_device, encode
from cloud import functions_aws, system
from cloud.config import RelayConfig
from cloud.dynamodb_errors import Unusable
from cloud.dynamodb_table import connect, definition
from cloud.functions import NotSetAside
from cloud.functions_aws import Broker, DeadLetters, build, functions, message_handler, stream_handler
from cloud.functions_log import Log
from cloud.registry import registration
from cloud.table import Publish, Put, Record

TABLE: Final = "deployed"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the deployment sets, and nothing else of whoever runs the tests."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "FLEET_TOPIC_PREFIX", "FLEET_DEAD_LETTERS", "FLEET_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    made = {
        "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION,
        "FLEET_TABLE": TABLE, "FLEET_SCHEMA": str(FILE),
    }  # fmt: skip
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    functions.cache_clear()
    yield made
    functions.cache_clear()


@pytest.fixture
def aws(environment: dict[str, str]) -> Iterator[Callable[[str], Any]]:
    with moto_in_process() as clients:
        clients("dynamodb").create_table(**definition(TABLE))
        adapter(clients("dynamodb"), TABLE).execute(registration("home-1", "main", 1))
        yield clients


def published() -> list[tuple[str, bytes]]:
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.iotdata.models import iotdata_backends

    found: list[tuple[str, bytes]] = iotdata_backends[DEFAULT_ACCOUNT_ID][REGION].published_payloads
    return found


def metrics(text: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for line in map(json.loads, text.splitlines()):
        total.update({name: value for name, value in line.items() if isinstance(value, int) and name != "at"})
    return total


def test_a_message_goes_to_the_table_and_its_answer_to_the_broker(
    aws: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    message_handler(rule_message("home-1", encode(hello())), Context())
    message_handler(rule_message("home-1", encode(up(op(1, "create", status(1, updated_ms=1))))), Context())
    answers = [decode_to_device(payload) for _, payload in published()]
    assert [type(answer) for answer in answers] == [Ack, Ack]
    assert isinstance(answers[1], Ack) and answers[1].up == 1
    assert {topic for topic, _ in published()} == {"ioto/device/home-1/sync"}
    item = aws("dynamodb").get_item(TableName=TABLE, Key={"pk": {"S": "device#home-1"}, "sk": {"S": "status#"}})
    assert item["Item"]["_type"] == {"S": "Status"}
    counted = metrics(capsys.readouterr().out)
    assert (counted["messages"], counted["published"]) == (2, 2)


def test_a_difference_that_is_to_stay_is_answered_counted_and_told(
    aws: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    message_handler(rule_message("home-1", encode(hello())), Context())
    message_handler(rule_message("home-1", encode(up(op(1, "create", status(1, updated_ms=1))))), Context())
    question = {"epoch": EPOCH, "hn": "hn", "n": 1, "up": 1, "upid": "boot", "schema": fingerprint(SCHEMA)}
    made: dict[str, Any] = {**question, "cut_s": system.wall_ms() // 1000 + 60, "cursors": {}}

    def asked(delta: str) -> Compared:
        claim = Claim("0" * 16, 0, delta, RelayConfig().settled_ms)
        message_handler(rule_message("home-1", encode(Digest(**made, models={"Status": claim}))), Context())
        answer = decode_to_device(published()[-1][1])
        assert isinstance(answer, Compared)
        return answer

    answer = asked(asked("").differs["Status"])
    assert answer.heal == ["Status"]
    lines = capsys.readouterr().out
    assert metrics(lines)["digest_mismatch"] == 1
    (told,) = [line for line in map(json.loads, lines.splitlines()) if line.get("message") == "digest-mismatch"]
    assert (told["level"], told["device"]) == ("error", "home-1")
    assert told["models"] == f"Status:{answer.differs['Status']}"


def test_a_record_becomes_a_row_and_a_message(aws: Callable[[str], Any]) -> None:
    item = stored(config(1))
    adapter(aws("dynamodb"), TABLE).execute(Put(item))
    record = lambda_record(Record(0, 5, ("device#home-1", "config#"), None, item, 1))
    assert stream_handler({"Records": [record]}, Context()) == {"batchItemFailures": []}
    ((topic, payload),) = published()
    message = decode_to_device(payload)
    assert topic == "ioto/device/home-1/sync" and isinstance(message, Rows) and len(message.rows) == 1


def test_the_start_is_paid_once(aws: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counting(**given: Any) -> Any:
        made.append(given.get("service", "dynamodb"))
        return connect(**given)

    monkeypatch.setattr(functions_aws, "connect", counting)
    for _ in range(3):
        message_handler(rule_message("home-1", encode(hello())), Context())
    assert made == ["dynamodb", "iot-data"]


def test_without_a_table_the_record_comes_again(aws: Callable[[str], Any]) -> None:
    aws("dynamodb").delete_table(TableName=TABLE)
    record = lambda_record(Record(0, 5, ("device#home-1", "config#"), None, stored(config(1)), 1))
    answer = stream_handler({"Records": [record]}, Context())
    assert answer == {"batchItemFailures": [{"itemIdentifier": sequence(record)}]}


def test_a_record_that_cannot_be_read_goes_to_the_queue(
    aws: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = aws("sqs").create_queue(QueueName="failures")["QueueUrl"]
    monkeypatch.setenv("FLEET_DEAD_LETTERS", url)
    raw = {"dynamodb": {"SequenceNumber": "1", "Keys": {}}}
    assert stream_handler({"Records": [raw]}, Context()) == {"batchItemFailures": []}
    (message,) = aws("sqs").receive_message(QueueUrl=url)["Messages"]
    letter = json.loads(message["Body"])
    assert letter["record"] == raw and letter["reason"].startswith("RecordError")


def test_a_letter_over_the_queues_limit_has_the_records_place(aws: Callable[[str], Any]) -> None:
    url = aws("sqs").create_queue(QueueName="failures")["QueueUrl"]
    big = {"dynamodb": {"SequenceNumber": "1", "Keys": {"pk": {"S": "a"}}, "NewImage": {"t": {"S": "x" * 300_000}}}}
    DeadLetters(aws("sqs"), url)("why", big)
    (message,) = aws("sqs").receive_message(QueueUrl=url)["Messages"]
    assert json.loads(message["Body"])["record"]["dynamodb"]["Keys"] == {"pk": {"S": "a"}}


def test_without_a_queue_or_with_a_wrong_one_nothing_counts_as_set_aside(aws: Callable[[str], Any]) -> None:
    with pytest.raises(NotSetAside, match="FLEET_DEAD_LETTERS"):
        DeadLetters(None, "")("why", {})
    with pytest.raises(NotSetAside, match=r"(?i)queue"):
        DeadLetters(aws("sqs"), "https://queue.amazonaws.com/123456789012/nowhere")("why", {})


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_a_message_is_offered_to_the_broker_three_times(
    aws: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    class Busy:
        calls = 0

        def publish(self, **given: Any) -> None:
            self.calls += 1
            if self.calls <= failures:
                raise aws("iot-data").exceptions.ThrottlingException(
                    {"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "Publish"
                )

    monkeypatch.setattr(system, "pause", lambda seconds: None)
    lines: list[str] = []
    counters: Counter[str] = Counter()
    broker = Busy()
    Broker(broker, counters, Log(lines.append, lambda: 1, {}))(Publish("ioto/device/home-1/sync", b"{}", 1))
    assert (counters["published"], counters["publish_dropped"]) == ((0, 1) if failures == 3 else (1, 0))
    assert broker.calls == min(failures + 1, 3) and len(lines) == (failures == 3)


# What is wrong with the environment is said at the start


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"FLEET_TABLE": ""}, Unusable, "FLEET_TABLE is not set"),
        ({"FLEET_SCHEMA": "nowhere.json5"}, InputError, "nowhere.json5"),
        ({"FLEET_TTL_ATTRIBUTE": "expires"}, None, ""),
    ],
)
def test_a_wrong_environment_is_told(
    environment: dict[str, str], changed: Mapping[str, str], error: type[Exception] | None, words: str
) -> None:
    if error is None:
        build({**environment, **changed})
        return
    with pytest.raises(error, match=words):
        build({**environment, **changed})


def test_a_cold_start_imports_neither_the_simulator_nor_the_commands(root: Path, environment: dict[str, str]) -> None:
    code = (
        "import sys, cloud.functions_aws as f; f.functions();"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'fleet', 'reports', 'trio', 'ruamel', 'paho', 'moto'}),"
        "[m for m in sys.modules if m.startswith(('agent.', 'cloud.commands')) and not m.startswith('agent.protocol')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_lines_go_to_standard_output_whole(environment: dict[str, str]) -> None:
    out = io.StringIO()
    Log(lambda line: print(line, file=out), lambda: 5, {"table": TABLE}).say("error", "x" * 3, detail="d" * 5_000)
    assert len(json.loads(out.getvalue())["detail"]) == 2_000
