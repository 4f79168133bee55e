"""The alarms of the deployment: late changes, errors, records set aside, throttling, dropped messages, differences.

Pure; called by cloud.template.
"""

from __future__ import annotations

from typing import Any, Final

from cloud.functions_log import NAMESPACE

_MINUTE_S: Final = 60
_MS_PER_S: Final = "000"


def alarms() -> dict[str, Any]:
    stream, message = ({"FunctionName": {"Ref": f"{name}Function"}} for name in ("Stream", "Message"))
    table = {"TableName": {"Ref": "Table"}}
    ours = {"table": {"Ref": "Table"}}
    made = {
        "StreamLateAlarm": _alarm(
            "Changes of the table reach their devices late", "AWS/Lambda", "IteratorAge", stream, "Maximum",
            {"Fn::Join": ["", [{"Ref": "IteratorAgeAlarmSeconds"}, _MS_PER_S]]}, 5,
        ),
        "TableReadThrottleAlarm": _alarm(
            "The table throttles reads", "AWS/DynamoDB", "ReadThrottleEvents", table, "Sum", 1, 3
        ),
        "TableWriteThrottleAlarm": _alarm(
            "The table throttles writes", "AWS/DynamoDB", "WriteThrottleEvents", table, "Sum", 1, 3
        ),
        "PublishDroppedAlarm": _alarm(
            "The broker did not take messages for devices", NAMESPACE, "publish_dropped", ours, "Sum", 1, 3
        ),
        "DeviceQuarantinedAlarm": _alarm(
            "Two live copies of one device were found, and both are held off", NAMESPACE, "device_quarantined",
            ours, "Sum", 1, 1,
        ),
        "DigestMismatchAlarm": _alarm(
            "A device and the table differed, and nothing on its way was the reason", NAMESPACE, "digest_mismatch",
            ours, "Sum", 1, 1,
        ),
        "MessageUnansweredAlarm": _alarm(
            "Messages of devices got no answer", NAMESPACE, "message_failed", ours, "Sum", 1, 3
        ),
    }  # fmt: skip
    for name, function, what in (("Stream", stream, "changes"), ("Message", message, "messages")):
        made[f"{name}ErrorAlarm"] = _alarm(
            f"The function for {what} fails", "AWS/Lambda", "Errors", function, "Sum", 1, 1
        )
        made[f"{name}ThrottleAlarm"] = _alarm(
            f"The function for {what} is throttled", "AWS/Lambda", "Throttles", function, "Sum", 1, 3
        )
        queue = {"QueueName": {"Fn::GetAtt": [f"{name}Failures", "QueueName"]}}
        made[f"{name}FailuresAlarm"] = _alarm(
            f"There are {what} that were set aside", "AWS/SQS", "ApproximateNumberOfMessagesVisible", queue,
            "Maximum", 1, 1,
        )  # fmt: skip
    return made


def _alarm(
    about: str, namespace: str, metric: str, dimensions: dict[str, Any], statistic: str, threshold: Any, minutes: int
) -> dict[str, Any]:
    """Rings when each of so many minutes reaches the threshold. No data is a good sign."""
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmDescription": about,
            "Namespace": namespace,
            "MetricName": metric,
            "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
            "Statistic": statistic,
            "Period": _MINUTE_S,
            "EvaluationPeriods": minutes,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "Threshold": threshold,
            "TreatMissingData": "notBreaching",
            "AlarmActions": {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopic"}], {"Ref": "AWS::NoValue"}]},
        },
    }
