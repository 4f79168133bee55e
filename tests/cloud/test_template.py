"""The deployment: no complaint of cfn-lint, made by moto's CloudFormation, no right too many. Called by pytest only."""

from __future__ import annotations

import ast
import importlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from cfnlint.api import lint_all
from dynamo_rig import moto_in_process
from emulators import REGION
from moto.cloudformation.parsing import resource_class_from_type
from relay_rig import FILE, SCHEMA
from ruamel.yaml import YAML

from agent.protocol.schema import Schema
from agent.protocol.topics import from_device
from cloud.access import device_policy, policy_arns
from cloud.cli import main
from cloud.commands.template import as_yaml
from cloud.dynamodb_table import definition
from cloud.provision import Provisioner
from cloud.relay import Relay
from cloud.template import PREFIX_FORM, template
from cloud.template_functions import record_pattern

MADE: Final = template(SCHEMA, "ioto", "ioto")
INDEXED: Final = """{
    format: 'onetable:1.1.0', version: '1.0.0',
    indexes: {
        primary: {hash: 'pk', sort: 'sk'}, gs1: {hash: 'gs1pk', sort: 'gs1sk'},
        gs2: {hash: 'kind', sort: 'level', project: 'keys'},
        gs3: {hash: 'kind', project: ['text']}, ls1: {sort: 'level', type: 'local'},
    },
    params: {typeField: '_type', timestamps: true}, process: {Thing: {sync: 'down'}},
    models: {Thing: {
        pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'thing#${id}'},
        deviceId: {type: 'string', required: true}, id: {type: 'string', required: true}, kind: {type: 'string'},
        level: {type: 'number'}, text: {type: 'string'}, until: {type: 'date', ttl: true, map: 'expires'},
        gs1pk: {type: 'string', value: 'things'}, gs1sk: {type: 'string', value: '${id}'},
    }},
}"""
ACCOUNT: Final = "123456789012"


def complaints(made: dict[str, Any]) -> list[str]:
    """Errors and warnings; what it only remarks (that architecture could be described, say) is not counted."""
    return [str(match) for match in lint_all(as_yaml(made)) if match.rule.severity in ("error", "warning")]


@pytest.mark.parametrize("text", [SCHEMA.text, INDEXED])
def test_cfn_lint_has_nothing_to_say(text: str) -> None:
    assert complaints(template(Schema.parse(text, "s.json5"), "ioto", "my.fleet/eu")) == []


def test_cfn_lint_would_say_something() -> None:
    broken = template(SCHEMA, "ioto", "ioto")
    broken["Resources"]["Table"]["Properties"]["BillingMode"] = "FREE"
    assert complaints(broken)


def test_the_command_writes_what_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_TABLE", raising=False)
    assert main(["template", "--schema", str(FILE), "--table", "mine", "--topic-prefix", "a/b"]) == 0
    text = capsys.readouterr().out
    assert YAML(typ="safe").load(text) == template(SCHEMA, "mine", "a/b")
    assert main(["template", "--schema", str(FILE), "--out", "t.yaml"]) == 0
    assert YAML(typ="safe").load(Path("t.yaml").read_text()) == MADE
    assert main(["template", "--schema", str(FILE), "--out", "t.yaml"]) == 2
    assert "t.yaml: file exists" in capsys.readouterr().err
    assert main(["template", "--schema", str(FILE), "--topic-prefix", "a b"]) == 2
    assert "'a b' is no prefix" in capsys.readouterr().err
    assert main(["template"]) == 2
    assert "no such schema" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["on", "No", "yes", "y", "~", "null", "1", "1e3", "0o7", "2026-01-01", "a: b", "#", "'"]
)
def test_every_text_is_a_text_by_the_rules_of_yaml_1_1(name: str) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    values = {"a": {name: [name, {"b": name}]}, "c": True, "d": 5}
    assert yaml.load(as_yaml(values)) == values


@pytest.mark.parametrize("prefix", ["", "/a", "a/", "a/+/b", "a/#", "a'b", "a//b", "a/b/c/d/e", "$aws", "a\n"])
def test_a_prefix_that_would_be_a_rule_of_its_own_is_refused(prefix: str) -> None:
    assert PREFIX_FORM.fullmatch(prefix) is None


# The stack


# What moto's CloudFormation cannot make; the tests make rule and alarms of the template by the services' own calls.
UNKNOWN_TO_MOTO: Final = ("AWS::IoT::TopicRule", "AWS::CloudWatch::Alarm", "AWS::Lambda::EventInvokeConfig")


def test_what_moto_is_said_not_to_know_it_does_not() -> None:
    for kind in UNKNOWN_TO_MOTO:
        assert resource_class_from_type(kind) is None


class Stack:
    """What CloudFormation makes of the template, as far as moto goes; the rest is made by hand. Calls give clients."""

    def __init__(self, clients: Callable[[str], Any]) -> None:
        self.clients = clients
        self.template = template(Schema.parse(INDEXED, "s.json5"), "ioto", "ioto")
        resources = self.template["Resources"]
        known = {
            name: resource
            for name, resource in resources.items()
            if resource["Type"] not in UNKNOWN_TO_MOTO and name != "MessagePermission"  # it is the rule's
        }
        self.cloudformation({**self.template, "Resources": known})
        made = clients("cloudformation").describe_stack_resources(StackName="fleet")["StackResources"]
        self.names: dict[str, str] = {each["LogicalResourceId"]: each.get("PhysicalResourceId", "") for each in made}
        payload = resources["MessageRule"]["Properties"]["TopicRulePayload"]
        clients("iot").create_topic_rule(ruleName="fleet", topicRulePayload=_lower(self.resolved(payload)))
        for name, resource in resources.items():
            if resource["Type"] == "AWS::CloudWatch::Alarm":
                clients("cloudwatch").put_metric_alarm(AlarmName=name, **self.resolved(resource["Properties"]))

    def __call__(self, service: str) -> Any:
        return self.clients(service)

    def cloudformation(self, body: dict[str, Any]) -> None:
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("cloud/functions_aws.py", "")
        self("s3").create_bucket(Bucket="code")
        self("s3").put_object(Bucket="code", Key="fleet.zip", Body=code.getvalue())
        given = {"CodeBucket": "code", "CodeKey": "fleet.zip", "TableName": "mine"}
        self("cloudformation").create_stack(
            StackName="fleet",
            TemplateBody=as_yaml(body),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
            Capabilities=["CAPABILITY_IAM"],
        )

    def resolved(self, value: Any) -> Any:
        """As CloudFormation would: names and attributes of what it made."""
        if isinstance(value, list):
            return [self.resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Ref"}:
            name = value["Ref"]
            return self.names[name] if name in self.names else str(self.template["Parameters"][name]["Default"])
        if set(value) == {"Fn::Join"}:
            return float(value["Fn::Join"][0].join(map(self.resolved, value["Fn::Join"][1])))  # of a threshold
        if set(value) == {"Fn::GetAtt"}:
            return self.attribute(*value["Fn::GetAtt"])
        return {name: self.resolved(each) for name, each in value.items() if name != "AlarmActions"}

    def attribute(self, name: str, attribute: str) -> str:
        physical = self.names[name]
        if attribute == "QueueName":
            return str(physical.rpartition("/")[2])
        if name.endswith("Function"):
            arn: str = self("lambda").get_function(FunctionName=physical)["Configuration"]["FunctionArn"]
        else:
            arn = str(self("iam").get_role(RoleName=physical)["Role"]["Arn"])
        return arn


def _lower(value: Any) -> Any:
    """The API of AWS IoT writes names with a small letter."""
    if isinstance(value, list):
        return [_lower(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name[0].lower() + name[1:]: _lower(each) for name, each in value.items()}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with moto_in_process() as clients:
        yield Stack(clients)


def names(stack: Stack) -> dict[str, str]:
    """Logical name -> physical name."""
    return stack.names


def test_the_stack_is_made(stack: Stack) -> None:
    (made,) = stack("cloudformation").describe_stacks(StackName="fleet")["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    outputs = {each["OutputKey"]: each["OutputValue"] for each in made["Outputs"]}
    assert outputs["TableName"] == "mine" and ":table/mine/stream/" in outputs["StreamArn"]


def test_its_table_is_the_one_that_provision_makes(stack: Stack) -> None:
    """All that is missing is the marker, which no template can put; and what moto's CloudFormation leaves out."""
    schema = Schema.parse(INDEXED, "s.json5")
    plan = Provisioner(stack("dynamodb"), "mine", schema, lambda seconds: None).plan()
    missing = ["switch the time to live on, in 'expires'", "put the marker: the table is Fleet's from then on"]
    assert [change.text for change in plan.changes] == missing
    properties = stack.template["Resources"]["Table"]["Properties"]
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}  # moto leaves it out
    assert stack("dynamodb").describe_table(TableName="mine")["Table"]["DeletionProtectionEnabled"] is True


def test_the_rule_hands_on_who_sent_what(stack: Stack) -> None:
    rule = stack("iot").get_topic_rule(ruleName="fleet")["rule"]
    assert rule["sql"].endswith("FROM 'ioto/service/+/sync'")
    for part in ("encode(*, 'base64') AS payload", "topic() AS topic", "clientid() AS client", "principal() AS"):
        assert part in rule["sql"]
    (action,) = rule["actions"]
    function = stack("lambda").get_function(FunctionName=names(stack)["MessageFunction"])["Configuration"]
    assert action["lambda"]["functionArn"] == function["FunctionArn"]
    assert "sqs" in rule["errorAction"]


def test_the_policy_is_the_one_of_the_rules(stack: Stack) -> None:
    (listed,) = stack("iot").list_policies()["policies"]
    policy = stack("iot").get_policy(policyName=listed["policyName"])
    document = ast.literal_eval(policy["policyDocument"])  # moto keeps the text of a Python value
    assert document == device_policy("ioto", policy_arns("aws", REGION, ACCOUNT))


def test_the_functions_know_their_table_and_their_queue(stack: Stack) -> None:
    found = names(stack)
    for name in ("Stream", "Message"):
        configuration = stack("lambda").get_function(FunctionName=found[f"{name}Function"])["Configuration"]
        variables = configuration["Environment"]["Variables"]
        assert (variables["FLEET_TABLE"], variables["FLEET_TTL_ATTRIBUTE"]) == ("mine", "expires")
        assert ("FLEET_DEAD_LETTERS" in variables) is (name == "Stream")


def test_the_mapping_retries_what_failed_and_keeps_what_cannot_be_done(stack: Stack) -> None:
    (mapping,) = stack("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert ":table/mine/stream/" in mapping["EventSourceArn"]
    properties = MADE["Resources"]["StreamMapping"]["Properties"]
    assert properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert properties["BisectBatchOnFunctionError"] is True
    assert properties["MaximumRecordAgeInSeconds"] < 24 * 3600  # else the service forgets the record first
    assert properties["DestinationConfig"]["OnFailure"]["Destination"] == {"Fn::GetAtt": ["StreamFailures", "Arn"]}


def test_the_alarms_watch_what_is_there(stack: Stack) -> None:
    alarms = {each["MetricName"]: each for each in stack("cloudwatch").describe_alarms()["MetricAlarms"]}
    wanted = {"IteratorAge", "Errors", "Throttles", "ApproximateNumberOfMessagesVisible", "WriteThrottleEvents"}
    assert wanted <= set(alarms)
    assert alarms["IteratorAge"]["Threshold"] == 60_000
    made = [each for each in MADE["Resources"].values() if each["Type"] == "AWS::CloudWatch::Alarm"]
    assert len(stack("cloudwatch").describe_alarms()["MetricAlarms"]) == len(made) >= 12
    assert not any(each.get("AlarmActions") for each in alarms.values())


def test_what_an_alarm_of_ours_watches_is_counted_somewhere(root: Path) -> None:
    ours = [each["Properties"] for each in MADE["Resources"].values() if each["Type"] == "AWS::CloudWatch::Alarm"]
    names = {each["MetricName"] for each in ours if each["Namespace"] == "Fleet"}
    source = "".join(path.read_text("utf-8") for path in (root / "cloud").glob("*.py"))
    assert "device_quarantined" in names
    assert [name for name in names if f'counters["{name}"] += 1' not in source] == []


# Rights


def statements(role: str) -> list[dict[str, Any]]:
    properties = MADE["Resources"][role]["Properties"]
    return [each for policy in properties["Policies"] for each in policy["PolicyDocument"]["Statement"]]


def test_no_role_has_a_right_to_everything() -> None:
    for role in ("StreamRole", "MessageRole", "MessageRuleErrorRole"):
        for statement in statements(role):
            actions, resources = statement["Action"], statement["Resource"]
            listed = actions if isinstance(actions, list) else [actions]
            assert not [action for action in listed if "*" in action]
            assert resources != "*" and "*" not in (resources if isinstance(resources, list) else [resources])


def test_the_streams_function_writes_rows_of_the_log_alone() -> None:
    writes = [each for each in statements("StreamRole") if "dynamodb:PutItem" in each["Action"]]
    (statement,) = writes
    assert statement["Action"] == ["dynamodb:PutItem"]
    assert statement["Condition"]["ForAllValues:StringLike"] == {"dynamodb:LeadingKeys": ["_fleet#log#*"]}
    actions = {action for each in statements("StreamRole") for action in each["Action"]}
    assert not {action for action in actions if re.search("Update|Delete|Batch|Transact", action)}


def test_the_functions_publish_to_devices_and_accounts_alone() -> None:
    for role in ("StreamRole", "MessageRole"):
        (statement,) = [each for each in statements(role) if each["Action"] == ["iot:Publish"]]
        topics = [resource["Fn::Join"][1][1] for resource in statement["Resource"]]
        assert topics == ["ioto/device/*/sync", "ioto/account/*/sync"]


def test_the_handlers_exist() -> None:
    for name in ("StreamFunction", "MessageFunction"):
        module, _, function = MADE["Resources"][name]["Properties"]["Handler"].rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_rules_topics_are_those_that_devices_publish_to() -> None:
    sql = MADE["Resources"]["MessageRule"]["Properties"]["TopicRulePayload"]["Sql"]
    (listened,) = re.findall(r"FROM '(.*)'$", sql)
    assert listened.replace("+", "home-1") == from_device("home-1")


# The filter


def passes(pattern: Mapping[str, Any], key: tuple[str, str]) -> bool:
    """Lambda's own rules for the part of them that is used: a list is any of, a prefix is a prefix."""
    keys = pattern.get("dynamodb", {}).get("Keys", {})
    given = dict(zip(("pk", "sk"), key, strict=True))
    return all(any(given[name].startswith(each["prefix"]) for each in test["S"]) for name, test in keys.items())


def relay() -> Relay:
    from relay_rig import Rig

    return Rig().relay


KEYS: Final = [
    ("device#home-1", "config#"), ("device#home-1", "command#1"), ("device#home-1", "setting#mode"),
    ("account#main", "notice#1"), ("device#home-1", "status#"), ("device#home-1", "fault#1"), ("account#main", "x"),
    ("_fleet#head#home-1", "head"), ("_fleet#log#device#home-1", "1700000000000#000000000001"),
    ("_fleet#log#all", "1700000000000#000000000001"), ("_fleet#devices#0", "config#"), ("_unique#a", "_unique#"),
]  # fmt: skip


def test_the_filter_lets_through_all_that_the_relay_wants_and_nothing_of_its_own() -> None:
    pattern = record_pattern(SCHEMA)
    wants = relay().wants
    assert [key for key in KEYS if wants(key)]
    for key in KEYS:
        assert passes(pattern, key) or not wants(key), key
        assert not (passes(pattern, key) and key[0].startswith(("_fleet#", "_unique#"))), key
    assert [key for key in KEYS if passes(pattern, key)] == KEYS[:4]  # here it is exact


def test_a_template_that_begins_with_a_variable_lets_all_pass() -> None:
    text = SCHEMA.text.replace("value: 'account#${accountId}'", "value: '${accountId}#notices'")
    pattern = record_pattern(Schema.parse(text, "s.json5"))
    assert list(pattern["dynamodb"]["Keys"]) == ["sk"]  # no empty beginning, which the service need not take
    assert passes(pattern, ("main#notices", "notice#1")) and passes(pattern, ("device#home-1", "config#"))
    assert not passes(pattern, ("device#home-1", "status#"))


def test_an_indexs_numbers_are_numbers_in_the_table() -> None:
    wanted = template(Schema.parse(INDEXED, "s.json5"), "ioto", "ioto")["Resources"]["Table"]["Properties"]
    types = {each["AttributeName"]: each["AttributeType"] for each in wanted["AttributeDefinitions"]}
    assert types == {"pk": "S", "sk": "S", "gs1pk": "S", "gs1sk": "S", "kind": "S", "level": "N"}
    assert [each["IndexName"] for each in wanted["LocalSecondaryIndexes"]] == ["ls1"]
    projections = {each["IndexName"]: each["Projection"] for each in wanted["GlobalSecondaryIndexes"]}
    assert projections["gs2"] == {"ProjectionType": "KEYS_ONLY"}
    assert projections["gs3"] == {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["text"]}
    assert definition("ioto")["KeySchema"] == wanted["KeySchema"]
