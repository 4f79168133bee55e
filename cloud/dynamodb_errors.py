"""What botocore and the service say instead of an answer, in the Table port's words, and whether to ask again.

The question that decides is whether a write may have happened. `refused`: certainly not, ask again later. `lost`: the
answer never came, so it may have. `final`: the service has said no, and will say it again. What only a person can mend
becomes an Unusable with its next step. Pure: no I/O. Called by cloud.dynamodb and cloud.dynamodb_table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from cloud.table import Cancelled, ConditionFailed, InvalidRequest, TableError, Throttled, Unavailable

Verdict = Literal["refused", "lost", "final"]


class Unusable(TableError):
    """The table cannot be used until a person does something: `hint` says what."""

    def __init__(self, problem: str, hint: str) -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(f"{problem}. {hint}.")


@dataclass(frozen=True, slots=True)
class Fault:
    """`found`: the item that a failed condition met, if it was asked for (attributes), None if there was none."""

    verdict: Verdict
    error: TableError
    found: Mapping[str, Any] | None = None


_CREDENTIALS_HINT: Final = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; an emulator takes any values for them"
)
# Nothing was done, and later it may be.
_THROTTLED: Final = (
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "TooManyRequestsException",
)
_CONFLICT: Final = ("TransactionConflictException", "ReplicatedWriteConflictException")
# The transaction of this very token is still on its way: it may take effect.
_IN_PROGRESS: Final = "TransactionInProgressException"
_ACCESS: Final = ("AccessDeniedException", "AccessDenied", "OptInRequired", "SubscriptionRequiredException")
_IDENTITY: Final = (
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
)
_EXPIRED: Final = ("ExpiredTokenException", "ExpiredToken", "RequestExpired", "RequestTimeTooSkewed")
_NOT_THE_SERVICE: Final = ("UnknownOperationException", "UnknownOperation", "404", "403", "301", "307")
# Reason of a cancelled transaction -> the port's word.
_REASONS: Final[Mapping[str, str | None]] = {
    "None": None,
    "ConditionalCheckFailed": "condition",
    "TransactionConflict": "conflict",
    "DuplicateItem": "conflict",
    "ThrottlingError": "throttled",
    "ProvisionedThroughputExceeded": "throttled",
    "ItemCollectionSizeLimitExceeded": "size",
    "ValidationError": "size",
}
TRANSIENT: Final = ("conflict", "throttled")  # reasons that may be gone the next time

# What a call may raise instead of answering.
RAISED: Final = (boto.BotoCoreError, boto.ClientError, boto.HTTPClientError, ResponseParserError)


def fault_of(error: Exception) -> Fault:
    """What an error of a call means. `error` is one of RAISED."""
    if isinstance(error, boto.ClientError):
        return _of_the_service(error.response)
    if isinstance(error, boto.EndpointConnectionError | boto.ConnectTimeoutError | boto.ProxyConnectionError):
        return Fault("refused", Unavailable(f"the table's address does not answer: {_one_line(error)}"))
    if isinstance(error, boto.HTTPClientError | ResponseParserError):
        return Fault("lost", Unavailable(f"no answer: {_one_line(error)}"))
    if isinstance(error, boto.ParamValidationError):
        return Fault("final", InvalidRequest(_one_line(error)))
    return Fault("final", unusable(error))


def unusable(error: Exception) -> Unusable:
    """For what botocore finds before it sends anything: credentials, region, profile, address."""
    text = _one_line(error)
    if isinstance(error, boto.NoRegionError):
        return Unusable("No region is set", "Set AWS_REGION, or give --region; an emulator takes any")
    if isinstance(error, boto.ProfileNotFound):
        return Unusable(text, "Set AWS_PROFILE to a profile of your AWS configuration, or unset it")
    if isinstance(error, boto.InvalidRegionError):
        return Unusable(text, "Give the region as AWS writes it, such as eu-west-1")
    if isinstance(error, ValueError) and not isinstance(error, boto.BotoCoreError):
        return Unusable(text, "Give --endpoint-url as http://<host>:<port> or https://<host>")
    credentials = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.NoAuthTokenError,
        boto.TokenRetrievalError,
        boto.SSOError,
        boto.RefreshWithMFAUnsupportedError,
    )
    if isinstance(error, credentials):
        return Unusable(f"No AWS credentials: {text}", _CREDENTIALS_HINT)
    return Unusable(text, "Check the AWS configuration of this machine: credentials, region, endpoint")


def _of_the_service(response: Mapping[str, Any]) -> Fault:
    told = response.get("Error", {})
    code = str(told.get("Code", "")).rpartition("#")[2]
    text = str(told.get("Message") or code)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "ConditionalCheckFailedException":
        return Fault("final", ConditionFailed(text), response.get("Item"))
    if code == "TransactionCanceledException":
        return _cancelled(response, text)
    if code in _THROTTLED or status == 429:
        return Fault("refused", Throttled(text))
    if code in _CONFLICT:
        return Fault("refused", Throttled(f"another transaction is busy with the item: {text}"))
    if code == _IN_PROGRESS or status >= 500:
        return Fault("lost", Unavailable(f"{code}: {text}"))
    return Fault("final", _for_a_person(code, text) or InvalidRequest(f"{code}: {text}"))


def _cancelled(response: Mapping[str, Any], text: str) -> Fault:
    """The reasons are a list in the answer; some emulators have them in the text alone."""
    listed = response.get("CancellationReasons")
    if listed:
        codes = [str(reason.get("Code", "None")) for reason in listed]
    else:
        codes = [code.strip() for code in text.rpartition("[")[2].rpartition("]")[0].split(",")]
    unknown = [code for code in codes if code not in _REASONS]
    if unknown:
        return Fault("final", InvalidRequest(f"transaction cancelled for {unknown[0]!r}: {text}"))
    reasons = tuple(_REASONS[code] for code in codes)
    passing = all(reason in TRANSIENT for reason in reasons if reason is not None)
    return Fault("refused" if passing else "final", Cancelled(reasons))


def _for_a_person(code: str, text: str) -> Unusable | None:
    if code == "ResourceNotFoundException":
        return Unusable(
            f"The table is not there: {text}",
            "Check the table's name, the region and the endpoint; `fleet-cloud provision` makes a table",
        )
    if code in _ACCESS:
        return Unusable(f"Access denied: {text}", "Allow this identity the actions that docs/cloud.md lists")
    if code in _EXPIRED or (code in _IDENTITY and "expired" in text.lower()):
        return Unusable(
            f"The credentials have expired, or this machine's clock is wrong: {text}",
            "Renew the credentials and check the clock",
        )
    if code in _IDENTITY:
        return Unusable(f"AWS does not know these credentials: {text}", _CREDENTIALS_HINT)
    if code in _NOT_THE_SERVICE:
        return Unusable(f"What answers is no DynamoDB: {text}", "Check --endpoint-url")
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
