"""The deployment in AWS as a CloudFormation template: table, stream, functions, rule, policy, queues and alarms.

Pure: plain values, made of the same definitions as everything else (keys and indexes of the table, rights of devices
and relay, the key templates). Called by `fleet-cloud template`.
"""

from __future__ import annotations

import re
from typing import Any, Final

from agent.protocol.schema import Schema
from agent.protocol.version import __version__
from cloud import table_definition
from cloud.access import device_policy, service_filter
from cloud.dynamodb_table import VIEW
from cloud.template_alarms import alarms
from cloud.template_functions import Resources, functions, get_att, ref, sub

_PARAMETERS: Final[dict[str, Any]] = {
    "CodeBucket": {"Type": "String", "Description": "Bucket in this region that holds the functions' zip"},
    "CodeKey": {"Type": "String", "Description": "The zip's key in that bucket; a new key for each new version"},
    "MemorySize": {"Type": "Number", "Default": 512, "MinValue": 128, "MaxValue": 10240,
                   "Description": "MB of each function; more is also faster"},
    "LogRetentionDays": {"Type": "Number", "Default": 30, "AllowedValues": [1, 3, 7, 14, 30, 60, 90, 180, 365],
                         "Description": "How long the functions' logs are kept"},
    "IteratorAgeAlarmSeconds": {"Type": "Number", "Default": 60, "MinValue": 1,
                                "Description": "An alarm says when changes wait longer than this for their devices"},
    "AlarmTopic": {"Type": "String", "Default": "", "Description": "ARN of an SNS topic for the alarms; empty: none"},
}  # fmt: skip
_SQL: Final = "SELECT encode(*, 'base64') AS payload, topic() AS topic, clientid() AS client, principal() AS principal"
PREFIX_FORM: Final = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+){0,3}")  # AWS IoT takes 7 slashes in a topic


def template(schema: Schema, name: str, prefix: str) -> dict[str, Any]:
    """`name`: the table's, unless the stack is told another. `prefix`: of the topics, in PREFIX_FORM."""
    table_name = {"Type": "String", "Default": name, "AllowedPattern": "[a-zA-Z0-9_.-]{3,255}",
                  "Description": "Name of the table"}  # fmt: skip
    resources: Resources = {
        "Table": _table(schema, name),
        **functions(schema, prefix),
        "MessageRule": _rule(prefix),
        "MessageRuleErrorRole": _rule_error_role(),
        "DevicePolicy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": _policy(prefix)}},
        **alarms(),
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Fleet {__version__}: a table, and the relay that keeps devices in sync with it",
        "Parameters": {"TableName": table_name, **_PARAMETERS},
        "Conditions": {"HasAlarmTopic": {"Fn::Not": [{"Fn::Equals": [ref("AlarmTopic"), ""]}]}},
        "Resources": resources,
        "Outputs": {
            "TableName": {"Description": "For fleet-cloud --table", "Value": ref("Table")},
            "StreamArn": {"Description": "The table's stream", "Value": get_att("Table", "StreamArn")},
            "DevicePolicy": {"Description": "The policy for devices' certificates", "Value": ref("DevicePolicy")},
            "StreamFailures": {"Description": "Queue of changes that were set aside", "Value": ref("StreamFailures")},
            "MessageFailures": {"Description": "Queue of messages that failed", "Value": ref("MessageFailures")},
        },
    }


def _table(schema: Schema, name: str) -> dict[str, Any]:
    """As `fleet-cloud provision` makes it, and protected from mistakes: it outlives the stack."""
    wanted = table_definition.whole(name, schema)
    indexes = ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")
    properties = {
        "TableName": ref("TableName"),
        "KeySchema": wanted["KeySchema"],
        "AttributeDefinitions": wanted["AttributeDefinitions"],
        "BillingMode": wanted["BillingMode"],
        **{kind: wanted[kind] for kind in indexes if kind in wanted},
        "StreamSpecification": {"StreamViewType": VIEW},
        "TimeToLiveSpecification": {"AttributeName": table_definition.ttl_attribute(schema), "Enabled": True},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        "DeletionProtectionEnabled": True,
    }
    return {
        "Type": "AWS::DynamoDB::Table",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": properties,
    }


def _rule(prefix: str) -> dict[str, Any]:
    """Hands on what devices publish, with what the broker knows of the sender."""
    payload: dict[str, Any] = {
        "Description": "Messages of devices to the relay",
        "AwsIotSqlVersion": "2016-03-23",
        "Sql": f"{_SQL} FROM '{service_filter(prefix)}'",
        "RuleDisabled": False,
        "Actions": [{"Lambda": {"FunctionArn": get_att("MessageFunction", "Arn")}}],
        "ErrorAction": {
            "Sqs": {
                "QueueUrl": ref("MessageFailures"),
                "RoleArn": get_att("MessageRuleErrorRole", "Arn"),
                "UseBase64": True,
            }
        },
    }
    return {"Type": "AWS::IoT::TopicRule", "Properties": {"TopicRulePayload": payload}}


def _rule_error_role() -> dict[str, Any]:
    send = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": get_att("MessageFailures", "Arn")}
    assume = {
        "Effect": "Allow",
        "Principal": {"Service": "iot.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": ref("AWS::AccountId")}},
    }
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [assume]},
            "Policies": [
                {"PolicyName": "errors", "PolicyDocument": {"Version": "2012-10-17", "Statement": [send]}},
            ],
        },
    }


def _policy(prefix: str) -> dict[str, Any]:
    begin = "arn:${AWS::Partition}:iot:${AWS::Region}:${AWS::AccountId}:"
    return device_policy(prefix, {kind: sub(f"{begin}{kind}/") for kind in ("client", "topic", "topicfilter")})
