"""Walks through the emulator's API with boto3, whose parsers and serializers know the published service model.

Every answer is also checked against that model: botocore ignores members it does not know, so misspelt ones would
go unnoticed.

usage: boto3_check.py ENDPOINT
"""

import json
import sys
import time
import urllib.error
import urllib.request

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = sys.argv[1]
CLUSTER = "media"
# Generous: a loaded machine is slow, and a bound only serves to end a test that would never end.
PATIENCE_S = 120

MODEL = botocore.session.get_session().get_service_model("ecs")


def check_shape(shape, value, where):
    """Every member is known to the model and has its type."""
    kind = shape.type_name
    if kind == "structure":
        for name, member in value.items():
            if name == "ResponseMetadata" and where.count(".") == 0:
                continue
            assert name in shape.members, f"{where}.{name} is not in the service model"
            check_shape(shape.members[name], member, f"{where}.{name}")
    elif kind == "list":
        for member in value:
            check_shape(shape.member, member, f"{where}[]")
    elif kind == "string":
        assert isinstance(value, str), f"{where}: {value!r}"
        assert not shape.enum or value in shape.enum, f"{where}: {value!r} is not one of {shape.enum}"
    elif kind in ("integer", "long"):
        assert isinstance(value, int) and not isinstance(value, bool), f"{where}: {value!r}"
    elif kind == "boolean":
        assert isinstance(value, bool), f"{where}: {value!r}"
    elif kind == "timestamp":
        assert isinstance(value, (int, float)), f"{where}: {value!r} is not epoch seconds"


def check_answer(http_response, parsed, model, **_):
    """Runs after each call, on the bytes that came over the wire."""
    if http_response.status_code == 200:
        check_shape(model.output_shape, json.loads(http_response.content), model.name)


ecs = boto3.client(
    "ecs",
    endpoint_url=ENDPOINT,
    region_name="us-east-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
    config=Config(retries={"max_attempts": 0, "mode": "standard"}),
)
ecs.meta.events.register("after-call.ecs.*", check_answer)


def admin(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{ENDPOINT}/_emulator/{path}", data=data, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return error
    raise AssertionError(f"{code} was expected")


def wait_for(what, probe):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        answer = probe()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"never: {what}\n{json.dumps(admin('history'), indent=1)}")


def service(name="workers"):
    return ecs.describe_services(cluster=CLUSTER, services=[name])["services"][0]


def tags_are_kept():
    arn = service()["serviceArn"]
    assert ecs.tag_resource(resourceArn=arn, tags=[{"key": "a/b", "value": "x:1=2"}])
    shown = ecs.describe_services(cluster=CLUSTER, services=["workers"], include=["TAGS"])["services"][0]
    assert shown["tags"] == [{"key": "a/b", "value": "x:1=2"}]
    assert "tags" not in service(), "they are shown to who asks for them"
    ecs.untag_resource(resourceArn=arn, tagKeys=["a/b"])
    refused("InvalidParameterException", ecs.tag_resource, resourceArn=arn, tags=[{"key": "aws:x", "value": ""}])


def tasks(**filters):
    return ecs.list_tasks(cluster=CLUSTER, **filters)["taskArns"]


def define():
    containers = [
        {
            "name": "worker",
            "image": "celery",
            "command": ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"],
            "environment": [{"name": "NODE", "value": "worker@${ECS_TASK_ID}"}],
            "stopTimeout": 20,
        }
    ]
    answer = ecs.register_task_definition(family="worker", containerDefinitions=containers, cpu="256", memory="512")
    return answer["taskDefinition"]


def clusters_and_definitions():
    refused("ClusterNotFoundException", ecs.list_tasks, cluster=CLUSTER)
    assert ecs.create_cluster(clusterName=CLUSTER)["cluster"]["status"] == "ACTIVE"
    described = ecs.describe_clusters(clusters=[CLUSTER, "nowhere"])
    assert [it["clusterName"] for it in described["clusters"]] == [CLUSTER]
    assert described["failures"][0]["reason"] == "MISSING"
    first, second = define(), define()
    assert (first["revision"], second["revision"]) == (1, 2)
    again = ecs.describe_task_definition(taskDefinition="worker")["taskDefinition"]
    assert again["taskDefinitionArn"] == second["taskDefinitionArn"]
    assert again["containerDefinitions"][0]["stopTimeout"] == 20
    refused("ClientException", ecs.describe_task_definition, taskDefinition="nothing")


def a_service_comes_up():
    refused("ClientException", ecs.create_service, cluster=CLUSTER, serviceName="x", taskDefinition="nothing")
    made = ecs.create_service(
        cluster=CLUSTER,
        serviceName="workers",
        taskDefinition="worker:1",
        desiredCount=2,
        deploymentConfiguration={"minimumHealthyPercent": 100, "maximumPercent": 200},
    )["service"]
    assert made["deployments"][0]["rolloutState"] == "IN_PROGRESS"
    wait_for("completed", lambda: service()["deployments"][0]["rolloutState"] == "COMPLETED")
    ecs.get_waiter("services_stable").wait(cluster=CLUSTER, services=["workers"])
    assert ecs.list_services(cluster=CLUSTER)["serviceArns"] == [made["serviceArn"]]
    answer = ecs.describe_services(cluster=CLUSTER, services=["workers", "nobody"])
    assert answer["failures"][0]["reason"] == "MISSING"
    assert answer["failures"][0]["arn"].endswith("service/media/nobody")
    refused("InvalidParameterException", ecs.create_service, cluster=CLUSTER, serviceName="workers",
            taskDefinition="worker:1", desiredCount=2)
    refused("ServiceNotFoundException", ecs.update_service, cluster=CLUSTER, service="nobody")
    refused("ServiceNotFoundException", ecs.list_tasks, cluster=CLUSTER, serviceName="nobody")


def tasks_are_described():
    arns = tasks(serviceName="workers")
    assert len(arns) == 2
    unknown = arns[0].rsplit("/", 1)[0] + "/" + "0" * 32
    answer = ecs.describe_tasks(cluster=CLUSTER, tasks=[*arns, unknown])
    assert [it["reason"] for it in answer["failures"]] == ["MISSING"]
    for task in answer["tasks"]:
        assert task["startedBy"] == service()["deployments"][0]["id"]
        assert task["group"] == "service:workers"
        assert task["lastStatus"] == task["desiredStatus"] == "RUNNING"
        assert abs(time.time() - task["createdAt"].timestamp()) < PATIENCE_S * 4
        details = {it["name"]: it["value"] for it in task["attachments"][0]["details"]}
        assert details["privateDnsName"].endswith(".ec2.internal")
        assert details["privateIPv4Address"] == task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
    pages = list(ecs.get_paginator("list_tasks").paginate(cluster=CLUSTER, PaginationConfig={"PageSize": 1}))
    assert sorted(arn for page in pages for arn in page["taskArns"]) == sorted(arns)
    assert tasks(desiredStatus="PENDING") == []
    refused("InvalidParameterException", ecs.describe_tasks, cluster=CLUSTER, tasks=["nonsense"])
    refused("InvalidParameterException", ecs.describe_tasks, cluster=CLUSTER, tasks=[unknown] * 101)


def protection_is_kept():
    arns = tasks(serviceName="workers")
    answer = ecs.update_task_protection(cluster=CLUSTER, tasks=arns, protectionEnabled=True, expiresInMinutes=30)
    assert answer["failures"] == []
    left = [it["expirationDate"].timestamp() - time.time() for it in answer["protectedTasks"]]
    assert all(1800 - PATIENCE_S < seconds <= 1801 for seconds in left), left
    seen = ecs.get_task_protection(cluster=CLUSTER, tasks=arns)["protectedTasks"]
    assert {it["taskArn"] for it in seen} == set(arns)
    for minutes in (0, 2881, -1):
        refused("InvalidParameterException", ecs.update_task_protection, cluster=CLUSTER, tasks=arns,
                protectionEnabled=True, expiresInMinutes=minutes)
    refused("InvalidParameterException", ecs.update_task_protection, cluster=CLUSTER, tasks=arns * 6,
            protectionEnabled=True)


def agent(runtime_id, body=None):
    """The endpoint that tasks use to protect themselves: (status, document)."""
    request = urllib.request.Request(
        f"{ENDPOINT}/api/{runtime_id}/task-protection/v1/state",
        data=None if body is None else json.dumps(body).encode(),
        method="GET" if body is None else "PUT",
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def a_task_protects_itself():
    arn = tasks(serviceName="workers")[0]
    runtime_id = ecs.describe_tasks(cluster=CLUSTER, tasks=[arn])["tasks"][0]["containers"][0]["runtimeId"]
    with urllib.request.urlopen(f"{ENDPOINT}/v4/{runtime_id}/task") as answer:
        assert json.load(answer)["TaskARN"] == arn
    status, answer = agent(runtime_id, {"ProtectionEnabled": True, "ExpiresInMinutes": 60})
    assert status == 200 and answer["protection"]["TaskArn"] == arn, answer
    assert answer["protection"]["ExpirationDate"].endswith("Z")
    assert ecs.get_task_protection(cluster=CLUSTER, tasks=[arn])["protectedTasks"][0]["protectionEnabled"]
    assert agent(runtime_id)[1] == answer
    status, answer = agent(runtime_id, {"ProtectionEnabled": True, "Expires": 60})
    assert status == 400 and answer["error"]["Code"] == "InvalidParameterException", answer
    admin("faults", {"refuse_protection": "DEPLOYMENT_BLOCKED"})
    status, answer = agent(runtime_id, {"ProtectionEnabled": True})
    assert status == 200 and answer["failure"]["Reason"] == "DEPLOYMENT_BLOCKED", "a refusal comes as a success"
    admin("faults", {})


def a_rollout_is_held_and_released():
    old = tasks(serviceName="workers")
    ecs.update_service(cluster=CLUSTER, service="workers", taskDefinition="worker:2")
    wait_for("the new tasks run", lambda: service()["deployments"][0]["runningCount"] == 2)
    event = "was unable to scale in due to (reason 2 tasks under protection)"
    wait_for("ECS says why", lambda: any(event in it["message"] for it in service()["events"]))
    described = service()
    assert [it["status"] for it in described["deployments"]] == ["PRIMARY", "ACTIVE"]
    assert described["deployments"][0]["rolloutState"] == "IN_PROGRESS"
    new = [arn for arn in tasks(serviceName="workers") if arn not in old]
    blocked = ecs.update_task_protection(cluster=CLUSTER, tasks=new, protectionEnabled=True)
    assert [it["reason"] for it in blocked["failures"]] == ["DEPLOYMENT_BLOCKED"] * 2
    off = ecs.update_task_protection(cluster=CLUSTER, tasks=old, protectionEnabled=False)
    assert all("expirationDate" not in it for it in off["protectedTasks"])

    def stopped():
        described = ecs.describe_tasks(cluster=CLUSTER, tasks=old)["tasks"]
        return described if all(task["lastStatus"] == "STOPPED" for task in described) else None

    for task in wait_for("the old tasks are over", stopped):
        assert task["stopCode"] == "ServiceSchedulerInitiated"
        assert task["stoppedReason"] == f"Scaling activity initiated by (deployment {task['startedBy']})"
        assert task["containers"][0]["exitCode"] == 7, "SIGTERM was handled"
        assert task["stoppingAt"] <= task["executionStoppedAt"] <= task["stoppedAt"]
    assert set(old) <= set(tasks(desiredStatus="STOPPED"))
    assert not set(old) & set(tasks())
    wait_for("completed", lambda: service()["deployments"][0]["rolloutState"] == "COMPLETED")


def faults_and_counts():
    admin("faults", {"fail": {"UpdateTaskProtection": {"error": "ServerException", "message": "no", "times": 1}}})
    arn = tasks(serviceName="workers")[0]
    error = refused("ServerException", ecs.update_task_protection, cluster=CLUSTER, tasks=[arn], protectionEnabled=True)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    ecs.update_task_protection(cluster=CLUSTER, tasks=[arn], protectionEnabled=True)
    try:
        admin("faults", {"fail": {"NoSuchOperation": {"error": "ServerException"}}})
        raise AssertionError("a misspelt operation was accepted")
    except urllib.error.HTTPError as error:
        assert error.code == 400
    admin("faults", {"throttle": 0})
    refused("ThrottlingException", ecs.list_tasks, cluster=CLUSTER)
    admin("faults", {"refuse_protection": "DEPLOYMENT_BLOCKED"})
    answer = ecs.update_task_protection(cluster=CLUSTER, tasks=[arn], protectionEnabled=True)
    assert answer["protectedTasks"] == [] and answer["failures"][0]["reason"] == "DEPLOYMENT_BLOCKED"
    admin("faults", {})
    before = admin("calls")["ListTasks"]
    tasks()
    assert admin("calls")["ListTasks"] == before + 1
    assert admin("knobs", {"blocked_rule": "off"})["blocked_rule"] == "off"
    assert any(entry["what"] == "deployment" for entry in admin("history")["history"])
    events = admin("events")["events"]
    versions = {}
    for event in events:
        detail = event["detail"]
        assert detail["version"] > versions.get(detail["taskArn"], 0)
        versions[detail["taskArn"]] = detail["version"]


def stopping_and_deleting():
    arn = tasks(serviceName="workers")[0]
    stopped = ecs.stop_task(cluster=CLUSTER, task=arn)["task"]
    assert stopped["stoppedReason"] == "Task stopped by user" and stopped["stopCode"] == "UserInitiated"
    refused("InvalidParameterException", ecs.stop_task, cluster=CLUSTER, task="0" * 32)
    standalone = ecs.run_task(cluster=CLUSTER, taskDefinition="worker")["tasks"][0]
    answer = ecs.update_task_protection(cluster=CLUSTER, tasks=[standalone["taskArn"]], protectionEnabled=True)
    assert answer["failures"][0]["reason"] == "TASK_NOT_VALID"
    ecs.stop_task(cluster=CLUSTER, task=standalone["taskArn"])
    refused("InvalidParameterException", ecs.delete_service, cluster=CLUSTER, service="workers")
    assert ecs.delete_service(cluster=CLUSTER, service="workers", force=True)["service"]["status"] == "DRAINING"
    wait_for("inactive", lambda: service()["status"] == "INACTIVE")
    assert ecs.list_services(cluster=CLUSTER)["serviceArns"] == []
    refused("ServiceNotActiveException", ecs.update_service, cluster=CLUSTER, service="workers")


for step in (
    clusters_and_definitions,
    a_service_comes_up,
    tasks_are_described,
    tags_are_kept,
    protection_is_kept,
    a_task_protects_itself,
    a_rollout_is_held_and_released,
    faults_and_counts,
    stopping_and_deleting,
):
    step()
    print("ok", step.__name__, flush=True)
