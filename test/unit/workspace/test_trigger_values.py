"""Changes that queue a Workspace, one field at a time; claims that are orphans; Events that contain a cause."""

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from kaito.api import Machine, Workspace
from kaito.runtime.cache.entry import make_entry
from kaito.runtime.cache.event import Change, Event, EventType
from kaito.runtime.kinds import ConfigMap, Event as ClusterEvent, Job, Node, Pod, Service, StatefulSet
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.predicate import Predicate
from kaito.workspace import controller, events, triggers
from kaito.workspace.orphans import MIN_AGE, PERIOD_SECONDS
from kaito.workspace.settings import NodeApi, WorkspaceSettings

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

pytestmark = pytest.mark.virtual_time

KEY = ObjectKey("default", "x")
Changes = dict[str, Any]


def merged(document: Changes, changes: Changes) -> Changes:
    """The document with changes, as a JSON merge patch."""
    found = dict(document)
    for key, value in changes.items():
        found[key] = merged(found.get(key) or {}, cast("Changes", value)) if isinstance(value, dict) else value
    return found


def passes(predicate: Predicate, kind: type[Resource], old: Changes | None, new: Changes | None) -> bool:
    def entry(document: Changes | None) -> Any:
        if document is None:
            return None
        metadata = {"name": "x", "namespace": "default", "uid": "u", "resourceVersion": "1", "generation": 1}
        return make_entry(json.dumps(merged({"metadata": metadata}, document)).encode(), {})

    event_type = EventType.CREATE if old is None else EventType.DELETE if new is None else EventType.UPDATE
    event: Event[Any] = Event(Change(event_type, KEY, entry(old), entry(new), 0.0), kind)
    return predicate(event)


READY = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": "2030-01-01T00:00:00Z"}
NODE: Changes = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]},
    "status": {
        "conditions": [READY],
        "capacity": {"nvidia.com/gpu": "1", "memory": "64Gi"},
        "allocatable": {"nvidia.com/gpu": "1", "memory": "64Gi"},
    },
}
CLAIM: Changes = {
    "status": {
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "NotReady"},
            {"type": "MachineLaunched", "status": "False", "reason": "QuotaExceeded", "message": "0 left"},
        ]
    }
}
LAUNCHED: Changes = CLAIM["status"]["conditions"][1]
RUNNING: Changes = {"name": "server", "state": {"running": {}}}
POD: Changes = {"spec": {"containers": []}, "status": {"containerStatuses": [{"name": "server"}]}}
CRASH = {"name": "server", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}


@pytest.mark.parametrize(
    ("predicate", "kind", "document", "changes", "expected"),
    [
        (triggers.WORKSPACE_CHANGED, Workspace, {}, {"metadata": {"generation": 2}}, True),
        (triggers.WORKSPACE_CHANGED, Workspace, {}, {"metadata": {"annotations": {"a": "b"}}}, True),
        (triggers.WORKSPACE_CHANGED, Workspace, {}, {"metadata": {"labels": {"a": "b"}}}, True),
        (triggers.WORKSPACE_CHANGED, Workspace, {}, {"metadata": {"deletionTimestamp": "2030-01-01T00:00:00Z"}}, True),
        (triggers.WORKSPACE_CHANGED, Workspace, {}, {"status": {"state": "Ready"}}, False),
        (triggers.WORKSPACE_CHANGED, Workspace, {}, {"metadata": {"finalizers": ["x"]}}, False),
        (triggers.NODE_CHANGED, Node, NODE, {"metadata": {"labels": {"a": "c"}}}, True),
        (triggers.NODE_CHANGED, Node, NODE, {"spec": {"unschedulable": True}}, True),
        (triggers.NODE_CHANGED, Node, NODE, {"spec": {"taints": []}}, True),
        (
            triggers.NODE_CHANGED,
            Node,
            NODE,
            {"spec": {"taints": [{"key": "sku", "value": "gpu", "effect": "NoExecute"}]}},
            True,
        ),
        (
            triggers.NODE_CHANGED,
            Node,
            NODE,
            {"spec": {"taints": [{"key": "sku", "value": "cpu", "effect": "NoSchedule"}]}},
            True,
        ),
        (triggers.NODE_CHANGED, Node, NODE, {"status": {"conditions": [READY | {"status": "Unknown"}]}}, True),
        (triggers.NODE_CHANGED, Node, NODE, {"status": {"capacity": {"nvidia.com/gpu": "0"}}}, True),
        (triggers.NODE_CHANGED, Node, NODE, {"status": {"allocatable": {"nvidia.com/gpu": "0"}}}, True),
        (triggers.NODE_CHANGED, Node, NODE, {"status": {"capacity": {"memory": "63Gi"}}}, False),
        (
            triggers.NODE_CHANGED,
            Node,
            NODE,
            {"status": {"conditions": [READY | {"lastHeartbeatTime": "2030-01-01T00:05:00Z"}]}},
            False,
        ),
        (triggers.NODE_CHANGED, Node, NODE, {"metadata": {"annotations": {"a": "b"}}}, False),
        (triggers.CLAIM_CHANGED, Machine, CLAIM, {"status": {"nodeName": "gpu-0"}}, True),
        (triggers.CLAIM_CHANGED, Machine, CLAIM, {"status": {"providerID": "azure:///x"}}, True),
        (triggers.CLAIM_CHANGED, Machine, CLAIM, {"status": {"conditions": [LAUNCHED | {"reason": "Other"}]}}, True),
        (triggers.CLAIM_CHANGED, Machine, CLAIM, {"status": {"conditions": [LAUNCHED | {"message": "1 left"}]}}, True),
        (
            triggers.CLAIM_CHANGED,
            Machine,
            CLAIM,
            {"status": {"conditions": [{"type": "Ready", "status": "True"}, LAUNCHED]}},
            True,
        ),
        (triggers.CLAIM_CHANGED, Machine, CLAIM, {"metadata": {"annotations": {"a": "b"}}}, False),
        (triggers.CLAIM_CHANGED, Machine, CLAIM, {"metadata": {"generation": 2}}, False),
        (triggers.POD_CHANGED, Pod, POD, {"spec": {"nodeName": "gpu-0"}}, True),
        (triggers.POD_CHANGED, Pod, POD, {"status": {"containerStatuses": [RUNNING]}}, True),
        (triggers.POD_CHANGED, Pod, POD, {"status": {"containerStatuses": [CRASH]}}, True),
        (triggers.POD_CHANGED, Pod, POD, {"metadata": {"labels": {"a": "b"}}}, False),
        (triggers.POD_CHANGED, Pod, POD, {"status": {"podIP": "10.0.0.1"}}, True),
        (triggers.SERVICE_CHANGED, Service, {}, {"spec": {"type": "LoadBalancer"}}, True),
        (triggers.SERVICE_CHANGED, Service, {}, {"metadata": {"labels": {"a": "b"}}}, True),
        (triggers.SERVICE_CHANGED, Service, {}, {"metadata": {"annotations": {"a": "b"}}}, False),
        (triggers.WORKLOAD_CHANGED, StatefulSet, {}, {"metadata": {"generation": 2}}, True),
        (triggers.WORKLOAD_CHANGED, StatefulSet, {}, {"status": {"readyReplicas": 1}}, True),
        (triggers.WORKLOAD_CHANGED, StatefulSet, {}, {"status": {"replicas": 1}}, True),
        (triggers.WORKLOAD_CHANGED, StatefulSet, {}, {"status": {"currentReplicas": 1}}, False),
        (triggers.JOB_CHANGED, Job, {}, {"metadata": {"generation": 2}}, True),
        (triggers.JOB_CHANGED, Job, {}, {"status": {"active": 1}}, True),
        (triggers.JOB_CHANGED, Job, {}, {"metadata": {"labels": {"a": "b"}}}, False),
    ],
)
def test_the_change_of_a_field_queues_a_workspace_or_does_not(
    predicate: Predicate, kind: type[Resource], document: Changes, changes: Changes, *, expected: bool
) -> None:
    assert passes(predicate, kind, document, merged(document, changes)) is expected
    assert not passes(predicate, kind, document, document)


@pytest.mark.parametrize(
    ("predicate", "kind", "created"),
    [
        (triggers.WORKSPACE_CHANGED, Workspace, True),
        (triggers.NODE_CHANGED, Node, True),
        (triggers.CLAIM_CHANGED, Machine, False),
        (triggers.POD_CHANGED, Pod, False),
        (triggers.SERVICE_CHANGED, Service, False),
        (triggers.WORKLOAD_CHANGED, StatefulSet, False),
        (triggers.JOB_CHANGED, Job, False),
    ],
)
def test_deletions_queue_a_workspace_and_creations_only_of_foreign_objects(
    predicate: Predicate, kind: type[Resource], *, created: bool
) -> None:
    assert passes(predicate, kind, None, {}) is created
    assert passes(predicate, kind, {}, None)


CACHED = ["Workspace", "Pod", "Node", "ConfigMap", "NetworkPolicy", "EndpointSlice"]
READ_LIVE = ["Secret", "PersistentVolumeClaim", "ServiceAccount", "PriorityClass", "RuntimeClass"]


@pytest.mark.parametrize(
    ("node_api", "cached", "live"),
    [
        (NodeApi.MACHINE, [*CACHED, "Namespace", "Machine"], [*READ_LIVE, "NodeClaim", "NodePool"]),
        (NodeApi.NODECLAIM, [*CACHED, "Namespace", "NodeClaim"], [*READ_LIVE, "Machine", "NodePool"]),
        (NodeApi.KARPENTER, [*CACHED, "Namespace", "NodePool", "NodeClaim"], [*READ_LIVE, "Machine"]),
        (NodeApi.BYO, CACHED, [*READ_LIVE, "Machine", "NodeClaim", "NodePool"]),
    ],
)
def test_what_is_cached_depends_on_the_node_api(node_api: NodeApi, cached: list[str], live: list[str]) -> None:
    settings = WorkspaceSettings(node_api=node_api)
    assert [entry.kind.kind for entry in controller.cached_kinds(settings)] == cached
    assert [kind.kind for kind in controller.live_kinds(settings)] == live
    assert ConfigMap.kind in cached


def test_the_orphan_collector_has_these_times() -> None:
    assert (300, timedelta(minutes=10)) == (PERIOD_SECONDS, MIN_AGE)


@pytest.mark.parametrize(
    ("labels", "survives"),
    [
        ({}, False),
        ({"kaito.sh/workspace-uid": None}, True),
        ({"kaito.sh/workspace": None}, True),
        ({"kaito.sh/workspacenamespace": None}, True),
    ],
)
async def test_only_a_claim_with_all_three_labels_can_be_an_orphan(
    cluster: "Cluster", phi: Workspace, labels: dict[str, str | None], *, survives: bool
) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        claim = cluster.claim()
        cluster.world.patch(Workspace, phi.name, {"metadata": {"finalizers": []}})
        cluster.world.delete(Workspace, phi.name)
        cluster.world.patch(cluster.kind, claim.name, {"metadata": {"labels": labels}})
        await cluster.world.advance(599)
        assert len(cluster.claims()) == 1, "too young"
        await cluster.world.advance(302)
        assert len(cluster.claims()) == (1 if survives else 0)


def cluster_event(
    reason: str, note: str = "", *, kind: str = "Warning", at: str = "", series: str = ""
) -> ClusterEvent:
    document: Changes = {
        "metadata": {"name": reason.lower(), "creationTimestamp": "2030-01-01T00:00:00Z"},
        "type": kind,
        "reason": reason,
        "note": note,
        "regarding": {"uid": "u"},
    }
    if at:
        document["deprecatedLastTimestamp"] = at
    if series:
        document["series"] = {"count": 2, "lastObservedTime": series}
    return ClusterEvent.model_validate(document)


class Server:
    """An API that lists these Events."""

    def __init__(self, *found: ClusterEvent) -> None:
        self.found = found
        self.requested: Changes = {}
        self.client = self

    async def list(self, kind: type[Resource], **arguments: Any) -> list[ClusterEvent]:
        assert kind is ClusterEvent
        self.requested = arguments
        return list(self.found)


LATE, LATER = "2030-01-01T00:01:00Z", "2030-01-01T00:02:00Z"


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ([], ""),
        ([cluster_event("Failed", " no quota ")], "Failed: no quota"),
        ([cluster_event("Failed")], "Failed"),
        ([cluster_event("Old", "a", at=LATER), cluster_event("New", "b", series=LATE)], "Old: a"),
        ([cluster_event("Old", "a", at=LATE), cluster_event("New", "b", series=LATER)], "New: b"),
        ([cluster_event("Failed", "a"), cluster_event("Deleted", "b", kind="Normal", at=LATER)], "Failed: a"),
        ([cluster_event("Created", "a node", kind="Normal")], ""),
        *(
            ([cluster_event(reason, "x", kind="Normal")], f"{reason}: x")
            for reason in ("Terminating", "Deleted", "Expired", "Disrupted", "Evicted", "Reclaimed")
        ),
        ([cluster_event("Note", "node was deleted", kind="Normal")], "Note: node was deleted"),
    ],
)
async def test_the_newest_warning_or_deletion_is_the_cause_of_a_loss(found: list[ClusterEvent], cause: str) -> None:
    server: Any = Server(*found)
    assert await events.find_loss_cause(server, Machine, "ws1") == cause
    fields = {"regarding.kind": "Machine", "regarding.name": "ws1"}
    assert server.requested == {"namespace": "default", "fields": fields}


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ([cluster_event("FailedCreate", " quota ")], "quota"),
        ([cluster_event("FailedCreate", "a", at=LATE), cluster_event("SuccessfulCreate", "b", at=LATER)], ""),
        ([cluster_event("FailedCreate", "a", at=LATER), cluster_event("SuccessfulCreate", "b", at=LATE)], "a"),
        ([cluster_event("FailedDelete", "a")], ""),
    ],
)
async def test_the_last_attempt_to_create_a_pod_counts(found: list[ClusterEvent], cause: str) -> None:
    server: Any = Server(*found)
    workload = StatefulSet.model_validate({"metadata": {"name": "x", "namespace": "team", "uid": "u"}})
    assert await events.find_pod_creation_failure(server, workload) == cause
    assert server.requested["namespace"] == "team"
    other = StatefulSet.model_validate({"metadata": {"name": "x", "namespace": "team", "uid": "another"}})
    assert await events.find_pod_creation_failure(server, other) == ""


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        *(
            ([cluster_event(reason, "x")], f"{reason}: x")
            for reason in (
                "FailedMount",
                "FailedAttachVolume",
                "FailedMapVolume",
                "FailedCreatePodSandBox",
                "FailedCreatePodContainer",
            )
        ),
        ([cluster_event("FailedMount", "x", kind="Normal")], ""),
        ([cluster_event("Unhealthy", "x")], ""),
    ],
)
async def test_these_events_of_a_pod_report_why_it_does_not_start(found: list[ClusterEvent], cause: str) -> None:
    server: Any = Server(*found)
    pod = Pod.model_validate({"metadata": {"name": "x", "namespace": "team", "uid": "u"}})
    assert await events.find_pod_start_failure(server, pod) == cause
    other = Pod.model_validate({"metadata": {"name": "x", "namespace": "team", "uid": "another"}})
    assert await events.find_pod_start_failure(server, other) == ""
