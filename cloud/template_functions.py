"""The functions' part of the deployment: code, roles with no right too many, queues, and what invokes them.

Pure; called by cloud.template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from agent.protocol.schema import Schema
from cloud import table_definition
from cloud.access import relay_publishes
from cloud.head import LOG_PK
from cloud.table import PK, SK

Resources = dict[str, Any]
TIMEOUT_S: Final = 60
BATCH_RECORDS: Final = 100
RECORD_AGE_MAX_S: Final = 23 * 3600  # the stream keeps a record for 24 hours; after 23 its place goes to the queue
RETRIES_MAX: Final = 10_000  # the service's limit: what can never be done is set aside by the function itself
MESSAGE_AGE_MAX_S: Final = 300  # the device has sent it again by then
QUEUE_KEEPS_S: Final = 14 * 24 * 3600
_READ: Final = ("dynamodb:GetItem", "dynamodb:Query")
_WRITE: Final = (
    "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem",
    "dynamodb:ConditionCheckItem",
)  # fmt: skip


def ref(name: str) -> dict[str, str]:
    return {"Ref": name}


def get_att(name: str, attribute: str) -> dict[str, list[str]]:
    return {"Fn::GetAtt": [name, attribute]}


def sub(text: str) -> dict[str, str]:
    return {"Fn::Sub": text}


def functions(schema: Schema, prefix: str) -> Resources:
    publish = _allow(["iot:Publish"], relay_publishes(prefix, sub("arn:${AWS::Partition}:iot:${AWS::Region}:"
                                                                  "${AWS::AccountId}:topic/")))  # fmt: skip
    table = get_att("Table", "Arn")
    log_rows = {**_allow(["dynamodb:PutItem"], [table]), "Condition": {
        "ForAllValues:StringLike": {"dynamodb:LeadingKeys": [f"{LOG_PK}*"]}
    }}  # fmt: skip
    stream = _allow(
        ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"],
        [get_att("Table", "StreamArn")],
    )
    environment = {
        "FLEET_TABLE": ref("Table"),
        "FLEET_TOPIC_PREFIX": prefix,
        "FLEET_TTL_ATTRIBUTE": table_definition.ttl_attribute(schema),
    }
    letters = {**environment, "FLEET_DEAD_LETTERS": ref("StreamFailures")}
    return {
        "StreamFailures": _queue(),
        "StreamLog": _log_group("stream"),
        "StreamRole": _role("Stream", [stream, _allow(_READ, [table]), log_rows, publish]),
        "StreamFunction": _function("Stream", "stream_handler", letters, "Changes of the table, to devices"),
        "StreamMapping": _mapping(schema),
        "MessageFailures": _queue(),
        "MessageLog": _log_group("message"),
        "MessageRole": _role("Message", [_allow((*_READ, *_WRITE), [table]), publish]),
        "MessageFunction": _function("Message", "message_handler", environment, "Messages of devices, to the table"),
        "MessageInvocations": _invocations(),
        "MessagePermission": _permission(),
    }


def _allow(actions: Sequence[str], resources: Sequence[Any]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}


def _queue() -> dict[str, Any]:
    properties = {"MessageRetentionPeriod": QUEUE_KEEPS_S, "SqsManagedSseEnabled": True}
    return {
        "Type": "AWS::SQS::Queue",
        "DeletionPolicy": "Delete",
        "UpdateReplacePolicy": "Delete",
        "Properties": properties,
    }


def _log_group(name: str) -> dict[str, Any]:
    return {
        "Type": "AWS::Logs::LogGroup",
        "DeletionPolicy": "Delete",
        "UpdateReplacePolicy": "Delete",
        "Properties": {
            "LogGroupName": sub(f"/fleet/${{AWS::StackName}}/{name}"),
            "RetentionInDays": ref("LogRetentionDays"),
        },
    }


def _role(name: str, statements: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one function: what it needs, its own log, and its queue of failures."""
    log = _allow(["logs:CreateLogStream", "logs:PutLogEvents"], [get_att(f"{name}Log", "Arn")])
    queue = _allow(["sqs:SendMessage"], [get_att(f"{name}Failures", "Arn")])
    assume = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = {"Version": "2012-10-17", "Statement": [*statements, queue, log]}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [assume]},
            "Policies": [{"PolicyName": "relay", "PolicyDocument": document}],
        },
    }


def _function(name: str, handler: str, environment: dict[str, Any], about: str) -> dict[str, Any]:
    return {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "Description": about,
            "Runtime": "python3.13",
            "Architectures": ["arm64"],
            "Handler": f"cloud.functions_aws.{handler}",
            "Code": {"S3Bucket": ref("CodeBucket"), "S3Key": ref("CodeKey")},
            "Role": get_att(f"{name}Role", "Arn"),
            "MemorySize": ref("MemorySize"),
            "Timeout": TIMEOUT_S,
            "Environment": {"Variables": environment},
            "LoggingConfig": {"LogGroup": ref(f"{name}Log")},
        },
    }


def _mapping(schema: Schema) -> dict[str, Any]:
    return {
        "Type": "AWS::Lambda::EventSourceMapping",
        "Properties": {
            "EventSourceArn": get_att("Table", "StreamArn"),
            "FunctionName": ref("StreamFunction"),
            "StartingPosition": "TRIM_HORIZON",
            "BatchSize": BATCH_RECORDS,
            "FilterCriteria": {"Filters": [{"Pattern": json.dumps(record_pattern(schema))}]},
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "BisectBatchOnFunctionError": True,
            "MaximumRetryAttempts": RETRIES_MAX,
            "MaximumRecordAgeInSeconds": RECORD_AGE_MAX_S,
            "DestinationConfig": {"OnFailure": {"Destination": get_att("StreamFailures", "Arn")}},
        },
    }


def record_pattern(schema: Schema) -> dict[str, Any]:
    """Which records of the stream call for the function: those whose keys begin as keys of models that sync down do.

    The relay's own items begin with `_fleet#`, as no key of a schema may. Where a template begins with a variable the
    filter lets all pass, and the function drops them."""
    definitions = [model.definition for model in schema.models.values() if model.receives]
    keys: dict[str, Any] = {}
    for attribute, templates in (
        (PK, [definition.hash_template for definition in definitions]),
        (SK, [definition.sort_template for definition in definitions]),
    ):
        parts = [template.parts[:1] if template is not None else () for template in templates]
        literals = dict.fromkeys(part[0] if part and isinstance(part[0], str) else "" for part in parts)
        if literals and "" not in literals:
            keys[attribute] = {"S": [{"prefix": literal} for literal in literals]}
    return {"dynamodb": {"Keys": keys}} if keys else {"eventName": ["INSERT", "MODIFY", "REMOVE"]}


def _invocations() -> dict[str, Any]:
    """A message is tried once: the device sends again what was not answered."""
    return {
        "Type": "AWS::Lambda::EventInvokeConfig",
        "Properties": {
            "FunctionName": ref("MessageFunction"),
            "Qualifier": "$LATEST",
            "MaximumRetryAttempts": 0,
            "MaximumEventAgeInSeconds": MESSAGE_AGE_MAX_S,
            "DestinationConfig": {"OnFailure": {"Destination": get_att("MessageFailures", "Arn")}},
        },
    }


def _permission() -> dict[str, Any]:
    return {
        "Type": "AWS::Lambda::Permission",
        "Properties": {
            "Action": "lambda:InvokeFunction",
            "FunctionName": ref("MessageFunction"),
            "Principal": "iot.amazonaws.com",
            "SourceAccount": ref("AWS::AccountId"),
            "SourceArn": get_att("MessageRule", "Arn"),
        },
    }
