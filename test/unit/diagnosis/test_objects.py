"""Diagnoses of objects that are built by hand: what controllers rarely leave behind, and records that are malformed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.api import Machine, NodeClaim, Workspace, labels
from kaito.diagnosis import Diagnosis, Situation, diagnose
from kaito.diagnosis.situation import LaunchRecord, next_time, parse_go_duration
from kaito.runtime.kinds import Deployment, Node, Pod, Service
from kaito.runtime.testing import builders

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    """The time some seconds before now."""
    return (NOW - timedelta(seconds=seconds)).isoformat()


def condition(kind: str, status: str, reason: str, message: str = "", *, age: float = 60) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(age)}


def workspace(*conditions: dict[str, Any], metadata: dict[str, Any] | None = None, **status: Any) -> Workspace:
    return Workspace.model_validate(
        {
            "metadata": {"name": "phi", "namespace": "team", "creationTimestamp": at(600), **(metadata or {})},
            "resource": {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"a": "b"}}},
            "inference": {"preset": {"name": "phi-4"}},
            "status": {"conditions": list(conditions), **status},
        }
    )


READY = (
    condition("ResourceReady", "True", "x"),
    condition("NodesReady", "True", "x"),
    condition("InferenceReady", "True", "x"),
    condition("WorkspaceSucceeded", "True", "x"),
)
DELETED = {"deletionTimestamp": at(300), "finalizers": [labels.WORKSPACE_FINALIZER]}


def machine(*conditions: dict[str, Any], metadata: dict[str, Any] | None = None, **status: Any) -> Machine:
    return Machine.model_validate(
        {
            "metadata": {"name": "ws1", "creationTimestamp": at(500), **(metadata or {})},
            "spec": {"machineTemplateRef": {"name": "ws1"}},
            "status": {"conditions": list(conditions), **status},
        }
    )


def find(given: Workspace, **objects: Any) -> Diagnosis:
    return diagnose(Situation(now=NOW, workspace=given, **objects))


def reason(found: Diagnosis) -> str:
    return found.cause.reason if found.cause is not None else ""


@pytest.mark.parametrize(
    ("capacity", "state", "summary"),
    [
        ({"nvidia.com/gpu": "0", "nvidia.com/mig-1g.10gb": "7"}, "ok", "7 nvidia.com/mig-1g.10gb"),
        ({"nvidia.com/gpu.shared": "4"}, "ok", "4 nvidia.com/gpu.shared"),
        ({"nvidia.com/gpu": "0"}, "waiting", "no GPU advertised"),
    ],
)
def test_the_parts_of_gpus_are_those_of_a_node(capacity: dict[str, str], state: str, summary: str) -> None:
    status = {"capacity": capacity, "conditions": [condition("Ready", "True", "KubeletReady")]}
    node = Node.model_validate({"metadata": {"name": "node"}, "status": status})
    (found,) = (link for link in find(workspace(), nodes=[node]).chain if link.kind == "Node")
    assert (found.state, found.summary) == (state, summary)


def test_the_nodes_of_copies_that_share_them_are_unknown_before_the_plan() -> None:
    refused = workspace(condition("ResourceReady", "False", "InvalidSpec", "is wrong: correct it"))
    shared = {"count": 8, "partition": {"mode": "mig", "profile": "1g.10gb"}}
    given = Workspace.model_validate(refused.to_dict() | {"resource": refused.resource.to_dict() | shared})
    (found,) = (link for link in find(given).chain if link.kind == "Node")
    assert found.summary == "1 of 1 have not joined"


def service(*addresses: str, kind: str = "LoadBalancer") -> Service:
    document = {
        "metadata": {"name": "phi", "namespace": "team", "creationTimestamp": at(200)},
        "spec": {"type": kind},
        "status": {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}},
    }
    return Service.model_validate(document)


def test_a_load_balancer_without_an_address_is_the_cause_and_one_with_it_is_called() -> None:
    public = workspace(*READY, metadata={"annotations": {labels.ENABLE_LOAD_BALANCER: "True"}})
    pods = [builders.pod("phi-0", "team")]
    waiting = find(public, pods=pods, services=[service()])
    assert (reason(waiting), waiting.serving) == ("LoadBalancerPending", True)
    assert waiting.cause is not None
    assert waiting.cause.since == NOW - timedelta(seconds=200)
    found = find(public, pods=pods, services=[service("203.0.113.9")])
    assert found.is_healthy
    assert "$ curl http://203.0.113.9/v1/models   # from outside" in found.advice


def test_a_failed_adapter_is_the_cause_while_the_model_answers() -> None:
    failed = condition("AdaptersReady", "False", "AdapterFailed", "poet: manifest unknown")
    found = find(workspace(*READY, failed), pods=[builders.pod("phi-0", "team")], services=[service(kind="ClusterIP")])
    assert (reason(found), found.serving, found.state) == ("AdapterFailed", True, "failing")
    loading = condition("AdaptersReady", "False", "AdaptersLoading", "poet: pulling")
    assert find(workspace(*READY, loading), services=[service(kind="ClusterIP")]).is_healthy


def test_the_first_seconds_are_progress() -> None:
    new = workspace(metadata={"creationTimestamp": at(2)})
    assert find(new).state == "progressing"
    assert find(workspace()).state == "failing"
    begun = workspace(metadata=DELETED | {"deletionTimestamp": at(1)})
    assert reason(find(begun)) == "WorkspaceDeleting"


def test_the_state_of_the_controller_is_part_of_the_message() -> None:
    deployment = Deployment.model_validate(
        {
            "metadata": {"name": "workspace-controller", "namespace": "kaito-system"},
            "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": {"readyReplicas": 0},
        }
    )
    cause = find(workspace(), controllers=[deployment]).cause
    assert cause is not None
    assert "kaito-system/workspace-controller has 0 of 2 ready replicas" in cause.message
    cause = find(workspace(), unread={"controllers": "forbidden"}).cause
    assert cause is not None
    assert "could not be read" in cause.message


def test_a_deletion_that_waits_for_claims() -> None:
    deleting = condition("WorkspaceDeleting", "True", "WaitingForClaims", "waiting for the deletion of Machine ws1")
    claim = machine(metadata={"deletionTimestamp": at(290), "finalizers": ["x"]})
    found = find(workspace(deleting, metadata=DELETED), claims=[claim])
    assert (reason(found), found.state) == ("WaitingForClaims", "deleting")
    assert next(step.at for step in found.next) == NOW + timedelta(seconds=900), "20 min after the deletion"
    draining = condition("Drained", "Unknown", "Draining", "1 pod is left")
    claim = machine(draining, metadata={"deletionTimestamp": at(290), "finalizers": ["x"]})
    found = find(workspace(deleting, metadata=DELETED), claims=[claim])
    assert found.cause is not None
    assert (found.cause.kind, found.cause.reason, found.cause.message) == ("Machine", "Draining", "1 pod is left")
    assert find(workspace(deleting, metadata=DELETED)).next[0].at is None, "nothing is left to wait for"


def test_a_pod_without_conditions_of_the_workspace_about_it() -> None:
    ready = condition("ResourceReady", "True", "x")
    pods = [builders.pod("phi-0", "team", ready=False)]
    found = find(workspace(ready), pods=pods)
    assert (reason(found), found.state) == ("PodStarting", "progressing")


def test_a_container_that_was_killed_restarts_at_a_known_time() -> None:
    document = builders.pod("phi-0", "team", ready=False).to_dict()
    ended = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": at(10)}
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container=main"}
    status = {"name": "main", "restartCount": 7, "state": {"waiting": waiting}, "lastState": {"terminated": ended}}
    document["status"] = {"phase": "Running", "containerStatuses": [status]}
    ready = condition("ResourceReady", "True", "x")
    found = find(workspace(ready, condition("InferenceReady", "False", "x")), pods=[Pod.model_validate(document)])
    assert reason(found) == "ContainerOOMKilled"
    assert found.next[0].at == NOW + timedelta(seconds=290)
    assert any("larger instance type" in line for line in found.advice)


def test_an_unschedulable_pod_of_an_unknown_age() -> None:
    document = builders.pod("phi-0", "team", ready=False).to_dict()
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    document["status"] = {"phase": "Pending", "conditions": [scheduled]}
    found = find(workspace(condition("InferenceReady", "False", "x")), pods=[Pod.model_validate(document)])
    assert found.cause is not None
    assert (found.cause.reason, found.cause.since) == ("Unschedulable", None)


def test_the_times_of_a_launch_record() -> None:
    def record(text: str) -> LaunchRecord:
        return LaunchRecord.of(machine(metadata={"annotations": {labels.LAUNCH_RECORD: text}}))

    found = record(
        '{"failures": 2, "next": "2030-01-01T12:05:00Z", "refused": {"a/*/spot": {"retry": "2030-01-01T12:01:00Z"}}}'
    )
    assert (found.failures, found.next_attempt_at) == (2, NOW + timedelta(minutes=5))
    assert found.refused == {"a/*/spot": NOW + timedelta(minutes=1)}
    empty = LaunchRecord()
    for text in (
        "",
        "[]",
        "no JSON",
        '{"failures": true, "next": 7, "refused": []}',
        '{"next": "soon"}',
        '{"next": "2030-01-01T12:05:00"}',
        '{"refused": {"a": 1, "b": {"retry": null}}}',
    ):
        assert record(text) == empty, text


def test_the_next_attempt_of_a_record_without_a_message() -> None:
    text = '{"failures": 3, "next": "2030-01-01T12:05:00Z"}'
    launched = condition("MachineLaunched", "False", "InsufficientCapacity", "out of stock")
    claim = machine(launched, metadata={"annotations": {labels.LAUNCH_RECORD: text}})
    given = workspace(condition("MachineReady", "False", "InsufficientCapacity", "0 of 1 machines ready"))
    found = find(given, claims=[claim])
    assert next((step.at, "3 failed so far" in step.what) for step in found.next) == (NOW + timedelta(minutes=5), True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("2m40s", 160), ("5m0s", 300), ("1h2m3.5s", 3723.5), ("", None), ("soon", None)]
)
def test_durations_of_go(text: str, seconds: float | None) -> None:
    assert parse_go_duration(text) == (None if seconds is None else timedelta(seconds=seconds))


def test_the_next_time_in_a_message() -> None:
    assert next_time("out of stock; next attempt at 2030-01-01T12:05:00Z") == NOW + timedelta(minutes=5)
    assert next_time("out of stock; next attempt at some time") is None


def test_a_condition_that_no_object_explains() -> None:
    given = workspace(condition("WorkspaceSucceeded", "False", "workspaceFailed", "of another version"))
    found = find(given)
    assert (reason(found), found.advice) == ("workspaceFailed", ("$ kubectl -n team describe workspace phi",))


def test_the_instance_of_a_machine_is_an_agent_pool() -> None:
    claim = machine(condition("Ready", "True", "Ready"), providerID="azure:///x/virtualMachineScaleSets/aks-ws1/0")
    found = find(workspace(*READY), claims=[claim])
    assert ("AgentPool", "ws1", "ok") in [(link.kind, link.name, link.state) for link in found.chain]


def test_the_instance_of_a_provider_of_karpenter_has_its_name() -> None:
    document = machine(condition("Ready", "True", "Ready")).to_dict()
    reference = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"}
    document["spec"] = {"nodeClassRef": reference, "requirements": []}
    document["status"]["providerID"] = "aws:///us-east-1a/i-0abc"
    found = find(workspace(*READY), claims=[NodeClaim.model_validate(document)])
    assert ("Instance", "i-0abc") in [(link.kind, link.name) for link in found.chain]
