"""What the adapter does when the service refuses, is busy, or when an answer is lost: on a service that plays a script.

No test waits: pauses are noted, and chance is always a half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from dynamo_rig import Pauses, adapter

from cloud.dynamodb import Called
from cloud.dynamodb_errors import Unusable
from cloud.retry import Retry
from cloud.table import (
    ITEM_ABSENT,
    ITEM_EXISTS,
    BatchGet,
    Cancelled,
    ConditionFailed,
    Delete,
    Get,
    InvalidRequest,
    Put,
    Query,
    TableError,
    Throttled,
    Transact,
    Unavailable,
    Update,
)

URL = "http://127.0.0.1:1"
Step = Exception | dict[str, Any]


def told(code: str, status: int = 400, message: str = "said so", **more: Any) -> boto.ClientError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return boto.ClientError(response, "Operation")


def cancelled(*codes: str) -> boto.ClientError:
    return told("TransactionCanceledException", CancellationReasons=[{"Code": code} for code in codes])


THROTTLED = told("ProvisionedThroughputExceededException")
CONFLICT = told("TransactionConflictException")
UNREACHED = boto.EndpointConnectionError(endpoint_url=URL)
LOST: list[Exception] = [
    boto.ReadTimeoutError(endpoint_url=URL),
    boto.ConnectionClosedError(endpoint_url=URL),
    boto.HTTPClientError(error="broken"),
    ResponseParserError("not JSON"),
    told("InternalServerError", 500),
    told("ServiceUnavailable", 503),
    told("TransactionInProgressException"),
]
REFUSED: list[Exception] = [
    THROTTLED,
    told("ThrottlingException"),
    told("RequestLimitExceeded"),
    CONFLICT,
    UNREACHED,
    boto.ConnectTimeoutError(endpoint_url=URL),
    told("Whatever", 429),
]
NAMES = ("get_item", "batch_get_item", "query", "put_item", "delete_item", "update_item", "transact_write_items")


class Script:
    """A client whose calls are answered by the steps in turn; `calls` has their parameters."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.calls: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        assert name in NAMES

        def call(**parameters: Any) -> dict[str, Any]:
            self.calls.append(parameters)
            step = self.steps.pop(0)
            if isinstance(step, Exception):
                raise step
            return step

        return call


def play(request: Any, *steps: Step, pauses: Pauses | None = None, retry: Retry | None = None) -> tuple[Any, Script]:
    script = Script(*steps)
    answer = adapter(script, "t", pauses, retry).execute(request)
    assert not script.steps
    return answer, script


ITEM = {"pk": "p", "sk": "s", "n": 1}
STORED = {"pk": {"S": "p"}, "sk": {"S": "s"}, "n": {"N": "1"}}
KEY = ("p", "s")
READS: list[Any] = [Get(KEY), Query("p"), BatchGet((KEY,))]
READ_ANSWER: dict[str, Any] = {"Items": []}
CONDITIONAL: list[Any] = [
    Put(ITEM, ITEM_ABSENT),
    Update(KEY, {"n": 1}, (), ITEM_EXISTS),
    Delete(KEY, ITEM_EXISTS),
]
BLIND: list[Any] = [Put(ITEM), Update(KEY, {"n": 1}), Delete(KEY)]
TRANSACTION = Transact((Put(ITEM), Delete(("p", "t"))))


@pytest.mark.parametrize("request_", [*READS, *CONDITIONAL, *BLIND, TRANSACTION])
@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_what_was_not_done_is_asked_again_after_growing_pauses(request_: Any, refused: Exception) -> None:
    pauses = Pauses()
    _, script = play(request_, refused, refused, refused, READ_ANSWER, pauses=pauses)
    assert pauses.taken_s == [0.0125, 0.025, 0.05]  # half of 25, 50, 100 ms
    assert script.calls[1:] == script.calls[:1] * 3


def test_pauses_are_capped_and_drawn_over_their_whole_length() -> None:
    retry = Retry(attempts_max=50, base_ms=10, cap_ms=1_000)
    assert [retry.pause_s(n, 1.0) for n in (1, 2, 7, 8, 49)] == [0.01, 0.02, 0.64, 1.0, 1.0]
    assert retry.pause_s(8, 0.0) == 0.0
    assert retry.pause_s(8, 0.25) == 0.25


@pytest.mark.parametrize("numbers", [(0, 25, 100), (1, 0, 100), (1, 200, 100)])
def test_numbers_of_retries_that_make_no_sense_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="base_ms"):
        Retry(*numbers)


@pytest.mark.parametrize("request_", [*READS, *CONDITIONAL, *BLIND, TRANSACTION])
def test_endless_throttling_ends_as_throttled(request_: Any) -> None:
    with pytest.raises(Throttled, match="said so"):
        play(request_, *[THROTTLED] * 3, retry=Retry(3))


def test_an_address_that_does_not_answer_ends_as_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"does not answer.*127\.0\.0\.1:1"):
        play(Get(KEY), *[UNREACHED] * 3, retry=Retry(3))


@pytest.mark.parametrize("request_", READS)
@pytest.mark.parametrize("lost", LOST, ids=str)
def test_a_read_whose_answer_was_lost_is_asked_again(request_: Any, lost: Exception) -> None:
    play(request_, lost, READ_ANSWER)
    with pytest.raises(Unavailable):
        play(request_, lost, THROTTLED, retry=Retry(2))


# A write whose answer was lost


@pytest.mark.parametrize("request_", BLIND)
@pytest.mark.parametrize("lost", LOST, ids=str)
def test_a_write_without_a_condition_is_not_sent_again(request_: Any, lost: Exception) -> None:
    with pytest.raises(Unavailable):
        play(request_, lost)
    with pytest.raises(Unavailable):
        play(request_, THROTTLED, lost)


@pytest.mark.parametrize("request_", CONDITIONAL)
@pytest.mark.parametrize("lost", LOST, ids=str)
def test_a_conditional_write_is_sent_again_and_may_succeed_then(request_: Any, lost: Exception) -> None:
    _, script = play(request_, lost, {})
    assert "ReturnValuesOnConditionCheckFailure" not in script.calls[0]
    assert script.calls[1]["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD"


def condition_failed(found: dict[str, Any] | None = None) -> boto.ClientError:
    more: dict[str, Any] = {} if found is None else {"Item": found}
    return told("ConditionalCheckFailedException", **more)


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (Put(ITEM, ITEM_ABSENT), STORED),
        (Put({**ITEM, "n": 1.0}, ITEM_ABSENT), {**STORED, "n": {"N": "1.0"}}),
        (Update(KEY, {"n": 1}, (), (("eq", "n", 0),)), STORED),
        (Update(KEY, {"n": 1}, ("m",), (("exists", "m", None),)), {**STORED, "more": {"S": "x"}}),
    ],
)
def test_a_failed_condition_on_the_writes_own_effect_is_success(request_: Any, found: dict[str, Any]) -> None:
    for lost in LOST:
        play(request_, lost, condition_failed(found))
        play(request_, lost, THROTTLED, condition_failed(found))


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (Put(ITEM, ITEM_ABSENT), {**STORED, "n": {"N": "2"}}),
        (Put(ITEM, ITEM_ABSENT), {**STORED, "m": {"N": "2"}}),
        (Put(ITEM, ITEM_EXISTS), None),
        (Update(KEY, {"n": 1}, (), (("eq", "n", 0),)), {**STORED, "n": {"N": "2"}}),
        (Update(KEY, {"n": 1}, ("m",), (("exists", "k", None),)), {**STORED, "m": {"N": "2"}}),
        (Update(KEY, {"n": 1}, (), ITEM_EXISTS), None),
        (Update(KEY, {}, ("m",), (("exists", "m", None),)), STORED),
        (Delete(KEY, ITEM_EXISTS), None),
        (Delete(KEY, (("eq", "n", 0),)), STORED),
    ],
)
def test_any_other_failed_condition_after_a_lost_answer_is_no_verdict(
    request_: Any, found: dict[str, Any] | None
) -> None:
    with pytest.raises(Unavailable, match="may have happened"):
        play(request_, LOST[0], condition_failed(found))
    with pytest.raises(ConditionFailed):  # of one that was never lost, it is
        play(request_, THROTTLED, condition_failed(found))


def test_refusals_after_a_lost_answer_do_not_undo_it() -> None:
    for request in (*CONDITIONAL, TRANSACTION):
        with pytest.raises(Unavailable):
            play(request, LOST[0], THROTTLED, THROTTLED, retry=Retry(3))


@pytest.mark.parametrize("lost", LOST, ids=str)
def test_a_transaction_is_sent_again_under_its_token(lost: Exception) -> None:
    pauses = Pauses()
    _, script = play(TRANSACTION, lost, {}, pauses=pauses)
    assert script.calls[0] == script.calls[1]
    table = adapter(Script({}), "t", pauses)
    table.execute(TRANSACTION)
    assert len(set(pauses.tokens)) == len(pauses.tokens) == 2


# Verdicts


@pytest.mark.parametrize(
    ("codes", "reasons"),
    [
        (("None", "ConditionalCheckFailed"), (None, "condition")),
        (("TransactionConflict", "ConditionalCheckFailed"), ("conflict", "condition")),
        (("ValidationError", "ItemCollectionSizeLimitExceeded"), ("size", "size")),
    ],
)
def test_reasons_are_told_in_the_ports_words(codes: Sequence[str], reasons: tuple[str | None, ...]) -> None:
    with pytest.raises(Cancelled) as error:
        play(TRANSACTION, cancelled(*codes))
    assert error.value.reasons == reasons


def test_a_transaction_that_met_another_is_sent_again() -> None:
    play(TRANSACTION, cancelled("TransactionConflict", "None"), cancelled("None", "ThrottlingError"), {})
    with pytest.raises(Cancelled) as error:
        play(TRANSACTION, *[cancelled("TransactionConflict", "None")] * 2, retry=Retry(2))
    assert error.value.reasons == ("conflict", None)


def test_reasons_in_the_text_alone_are_read_too() -> None:
    text = (
        "Transaction cancelled, please refer cancellation reasons for specific reasons [None, ConditionalCheckFailed]"
    )
    with pytest.raises(Cancelled) as error:
        play(TRANSACTION, told("TransactionCanceledException", message=text))
    assert error.value.reasons == (None, "condition")


def test_an_unknown_reason_is_no_reason_to_go_on() -> None:
    with pytest.raises(InvalidRequest, match="AccessDenied"):
        play(TRANSACTION, cancelled("AccessDenied", "None"))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (told("ValidationException"), InvalidRequest, "said so"),
        (boto.ParamValidationError(report="wrong type"), InvalidRequest, "wrong type"),
        (told("IdempotentParameterMismatchException"), InvalidRequest, "Mismatch"),
        (told("ResourceNotFoundException"), Unusable, "region.*provision"),
        (told("AccessDeniedException"), Unusable, "Allow this identity"),
        (told("ExpiredTokenException"), Unusable, "Renew"),
        (told("InvalidSignatureException", message="Signature expired: now"), Unusable, "clock"),
        (told("UnrecognizedClientException"), Unusable, "AWS_ACCESS_KEY_ID"),
        (told("UnknownOperationException"), Unusable, "--endpoint-url"),
        (told("404", 404), Unusable, "--endpoint-url"),
        (boto.NoCredentialsError(), Unusable, "AWS_ACCESS_KEY_ID"),
        (boto.PartialCredentialsError(provider="env", cred_var="secret"), Unusable, "AWS_ACCESS_KEY_ID"),
        (boto.InvalidConfigError(error_msg="what"), Unusable, "Check the AWS configuration"),
    ],
)
def test_what_asking_again_cannot_mend_is_said_at_once(error: Exception, kind: type[TableError], words: str) -> None:
    with pytest.raises(kind, match=f"(?s){words}"):
        play(Get(KEY), error)


# Batches


def unprocessed(keys: list[dict[str, Any]], *found: dict[str, Any]) -> dict[str, Any]:
    return {"Responses": {"t": list(found)}, "UnprocessedKeys": {"t": {"Keys": keys}} if keys else {}}


def attributes(sk: str) -> dict[str, Any]:
    return {"pk": {"S": "p"}, "sk": {"S": sk}}


def test_keys_left_unprocessed_are_asked_for_again() -> None:
    pauses = Pauses()
    a, b, c = (attributes(sk) for sk in "abc")
    request = BatchGet((("p", "c"), ("p", "a"), ("p", "b"), ("p", "d")))
    found, script = play(
        request, unprocessed([b, c], a), unprocessed([b, c]), unprocessed([b], c), unprocessed([], b), pauses=pauses
    )
    assert list(found) == [("p", "c"), ("p", "a"), ("p", "b")]
    assert [len(call["RequestItems"]["t"]["Keys"]) for call in script.calls] == [4, 2, 2, 1]
    assert all(call["RequestItems"]["t"]["ConsistentRead"] for call in script.calls)
    assert len(pauses.taken_s) == 3


def test_keys_that_stay_unprocessed_end_as_throttled() -> None:
    pauses = Pauses()
    with pytest.raises(Throttled, match="1 of 2 keys"):
        play(
            BatchGet((("p", "a"), ("p", "b"))),
            unprocessed([attributes("a")], attributes("b")),
            *[unprocessed([attributes("a")])] * 3,
            retry=Retry(3),
            pauses=pauses,
        )
    assert pauses.taken_s == [0.0125, 0.0125, 0.025]


# What is told


def test_every_call_is_told_with_its_units() -> None:
    calls: list[Called] = []
    units = {"ConsumedCapacity": [{"TableName": "t", "CapacityUnits": 4.0}]}
    script = Script(THROTTLED, LOST[0], units)
    adapter(script, "t", on_call=calls.append).execute(TRANSACTION)
    assert [(call.attempt, call.verdict, call.units) for call in calls] == [
        (0, "refused", 0.0),
        (1, "lost", 0.0),
        (2, "", 4.0),
    ]
    assert {call["ReturnConsumedCapacity"] for call in script.calls} == {"TOTAL"}


def test_units_are_not_asked_for_when_nobody_listens() -> None:
    _, script = play(Get(KEY), {})
    assert "ReturnConsumedCapacity" not in script.calls[0]


def test_what_is_no_request_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="str is no request"):
        play("hello")
