"""Pods that may not exist, do not start, or block an update."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.kinds import Event, Job, Pod, Secret, StatefulSet
from kaito.runtime.kinds.references import ObjectReference
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.workspace.pod_faults import find_fault
from test.unit.workspace.test_pod_faults import pod as sick_pod

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
FORBIDDEN = (
    'create Pod workspace-phi-3-mini-0 in StatefulSet workspace-phi-3-mini failed error: pods "workspace-phi-3-mini-0" '
    'is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
)


def tell(cluster: "Cluster", about: Resource, reason: str, note: str, *, event_type: str = "Warning") -> None:
    """An event as client-go's recorder of the core API writes it."""
    now = cluster.world.now
    cluster.world.put(
        Event(
            metadata=ObjectMeta(name=f"{about.name}.{reason.lower()}.{now:%H%M%S}", namespace="default"),
            event_time=now,
            reporting_controller="statefulset-controller",
            reporting_instance="controller-manager-0",
            action="Create",
            reason=reason,
            note=note,
            type="Warning" if event_type == "Warning" else "Normal",
            regarding=ObjectReference(
                api_version=about.api_version,
                kind=about.kind,
                namespace="default",
                name=about.name,
                uid=about.uid,
            ),
        )
    )


def put_pod(cluster: "Cluster", owner: Resource, name: str, *, revision: str = "", **status: Any) -> Pod:
    """A pod that the owner's controller made."""
    hashes = {"controller-revision-hash": revision} if revision else {}
    return cluster.world.put(
        Pod.model_validate(
            {
                "metadata": {
                    "name": name,
                    "labels": {labels.WORKSPACE: owner.name, **hashes},
                    "ownerReferences": [owner.owner_reference().to_dict()],
                },
                "spec": {
                    "nodeName": f"node-{cluster.claims()[0].name}",
                    "containers": [{"name": NAME, "image": "x"}],
                },
                "status": {"phase": "Pending", **status},
            }
        )
    )


def warnings(cluster: "Cluster", reason: str) -> list[str]:
    return [e.note for e in cluster.world.events() if e.reason == reason and e.regarding.kind == "Workspace"]


async def until_workload(cluster: "Cluster") -> StatefulSet:
    await cluster.world.settle()
    for claim in cluster.claims():
        cluster.join(claim)
    await cluster.world.settle()
    return cluster.world.get(StatefulSet, NAME)


@pytest.mark.parametrize(
    "refusal",
    [
        FORBIDDEN,
        'pods "x" is forbidden: exceeded quota: team-a, requested: nvidia.com/gpu=1',
        'pods "x" is forbidden: maximum memory usage per Container is 2Gi, but limit is 4Gi',
        'admission webhook "images.example.com" denied the request: unsigned image',
    ],
)
async def test_pods_that_cannot_be_created_are_reported(cluster: "Cluster", phi: Workspace, refusal: str) -> None:
    """The cause is only in an Event of the StatefulSet."""
    cluster.apply(phi)
    async with cluster.controller():
        workload = await until_workload(cluster)
        tell(cluster, workload, "FailedCreate", refusal)
        await cluster.world.advance(6)
        for column in ("InferenceReady", "WorkspaceReady"):
            status, reason, message = cluster.conditions()[column]
            assert (status, reason) == ("False", "PodCreationFailed")
            assert refusal in message
        await cluster.world.advance(120)
        assert len(warnings(cluster, "PodCreationFailed")) == 1

        tell(cluster, workload, "SuccessfulCreate", "create Pod succeeded", event_type="Normal")
        await cluster.world.advance(20)
        assert cluster.conditions()["InferenceReady"][1] == "WorkspaceInferenceStatusPending"
        cluster.serve()
        await cluster.world.settle()
        assert cluster.columns() == ("True", "True", "True")


async def test_events_of_an_earlier_workload_of_the_name_are_ignored(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        workload = await until_workload(cluster)
        tell(cluster, workload.with_metadata(uid="another"), "FailedCreate", FORBIDDEN)
        await cluster.world.advance(30)
        assert cluster.conditions()["InferenceReady"][1] == "WorkspaceInferenceStatusPending"


async def test_events_are_not_read_for_a_healthy_workload(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        await cluster.world.advance(600)
        assert cluster.world.count("list", Event) == 0


async def test_a_mount_that_waits_is_reported(cluster: "Cluster", phi: Workspace) -> None:
    """A Secret that a volume needs does not exist."""
    missing = 'MountVolume.SetUp failed for volume "pull" : secret "no-such-secret" not found'
    cluster.apply(phi)
    async with cluster.controller():
        workload = await until_workload(cluster)
        waiting = {"name": NAME, "state": {"waiting": {"reason": "ContainerCreating"}}}
        pod = put_pod(cluster, workload, f"{NAME}-0", containerStatuses=[waiting])
        tell(cluster, pod, "FailedMount", missing)
        await cluster.world.advance(5)
        assert cluster.conditions()["InferenceReady"][1] == "WorkspaceInferenceStatusPending", (
            "a mount may need a moment"
        )
        await cluster.world.advance(60)
        status, reason, message = cluster.conditions()["InferenceReady"]
        assert (status, reason) == ("False", "ContainerStartError")
        assert missing in message


# ── updates ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def revisions(cluster: "Cluster", workload: StatefulSet, update: str, *, observed: bool = True) -> None:
    generation = workload.metadata.generation if observed else workload.metadata.generation - 1
    status = {"replicas": 2, "readyReplicas": 0, "updateRevision": update, "observedGeneration": generation}
    cluster.world.patch(StatefulSet, NAME, {"status": status}, subresource="status")


def staying(cluster: "Cluster") -> list[str]:
    return [pod.name for pod in cluster.world.list(Pod) if not pod.deleting]


async def test_a_broken_pod_of_the_old_revision_does_not_block_the_update(cluster: "Cluster", phi: Workspace) -> None:
    """The updated pod waits for the old one, the update for the updated pod: the old one has to go."""
    broken = {"name": NAME, "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    cluster.apply(phi.evolve(resource=phi.resource.evolve(count=2)))
    async with cluster.controller():
        workload = await until_workload(cluster)
        put_pod(cluster, workload, f"{NAME}-0", revision="old", containerStatuses=[broken])
        put_pod(cluster, workload, f"{NAME}-1", revision="new", containerStatuses=[{"name": NAME}])
        revisions(cluster, workload, "new", observed=False)
        await cluster.world.advance(61)
        assert staying(cluster) == [f"{NAME}-0", f"{NAME}-1"], "the status is not about this template yet"
        revisions(cluster, workload, "new")
        await cluster.world.advance(61)
        assert staying(cluster) == [f"{NAME}-1"]
        assert any(event.reason == "PodReplaced" for event in cluster.world.events())


async def test_pods_that_are_ready_or_of_this_revision_are_left_alone(cluster: "Cluster", phi: Workspace) -> None:
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    cluster.apply(phi.evolve(resource=phi.resource.evolve(count=2)))
    async with cluster.controller():
        workload = await until_workload(cluster)
        put_pod(cluster, workload, f"{NAME}-0", revision="old", **ready)
        put_pod(cluster, workload, f"{NAME}-1", revision="new")
        put_pod(cluster, cluster.workspace(), "stranger", revision="old")
        revisions(cluster, workload, "new")
        await cluster.world.advance(120)
        assert len(staying(cluster)) == 3


# ── tuning ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tuning(phi: Workspace) -> Workspace:
    document = {name: value for name, value in phi.to_dict().items() if name != "inference"}
    document["tuning"] = {
        "preset": {"name": "phi-3-mini-128k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://data.example/train.parquet"]},
        "output": {"image": "registry.example/tuned:1", "imagePushSecret": "push"},
    }
    return Workspace.model_validate(document)


async def until_job(cluster: "Cluster", tuning: Workspace) -> Job:
    await cluster.world.settle()
    cluster.join(cluster.claim())
    await cluster.world.settle()
    return cluster.world.get(Job, tuning.name)


def put_push_secret(cluster: "Cluster") -> None:
    metadata = ObjectMeta(name="push", namespace="default")
    data = {".dockerconfigjson": "eyJhdXRocyI6e319"}
    cluster.world.put(Secret(metadata=metadata, type="kubernetes.io/dockerconfigjson", data=data))


WAITING = {"name": NAME, "state": {"waiting": {"reason": "ContainerCreating"}}}
RUNNING = {"name": NAME, "state": {"running": {"startedAt": "2030-01-01T00:00:00Z"}}}


@pytest.mark.parametrize(
    ("statuses", "started", "state"),
    [
        ({}, "False", "Pending"),
        ({"containerStatuses": [WAITING]}, "False", "Pending"),
        ({"initContainerStatuses": [WAITING], "containerStatuses": [WAITING]}, "False", "Pending"),
        ({"initContainerStatuses": [RUNNING], "containerStatuses": [WAITING]}, "True", "Running"),
        ({"phase": "Running", "containerStatuses": [RUNNING]}, "True", "Running"),
    ],
)
async def test_a_job_has_started_only_when_a_container_has(
    cluster: "Cluster", tuning: Workspace, statuses: dict[str, Any], started: str, state: str
) -> None:
    """An active pod that waits for its mounts has started nothing."""
    put_push_secret(cluster)
    cluster.apply(tuning)
    async with cluster.controller():
        job = await until_job(cluster, tuning)
        put_pod(cluster, job, f"{NAME}-abc", **statuses)
        cluster.world.patch(Job, NAME, {"status": {"active": 1}}, subresource="status")
        await cluster.world.advance(5)
        assert cluster.conditions()["JobStarted"][0] == started, cluster.conditions()["JobStarted"]
        assert cluster.conditions()["WorkspaceSucceeded"][0] == "False"
        assert cluster.workspace().status.state == state
        if started == "False":
            assert "no container" in cluster.conditions()["WorkspaceReady"][2]


async def test_a_job_whose_pod_may_not_be_created_is_reported(cluster: "Cluster", tuning: Workspace) -> None:
    put_push_secret(cluster)
    cluster.apply(tuning)
    async with cluster.controller():
        job = await until_job(cluster, tuning)
        tell(cluster, job, "FailedCreate", FORBIDDEN)
        await cluster.world.advance(6)
        for column in ("JobStarted", "WorkspaceSucceeded", "WorkspaceReady"):
            status, reason, message = cluster.conditions()[column]
            assert (status, reason) == ("False", "PodCreationFailed")
            assert "violates PodSecurity" in message


async def test_a_job_whose_pod_waits_for_a_mount_is_reported(cluster: "Cluster", tuning: Workspace) -> None:
    put_push_secret(cluster)
    cluster.apply(tuning)
    async with cluster.controller():
        job = await until_job(cluster, tuning)
        pod = put_pod(cluster, job, f"{NAME}-abc", containerStatuses=[WAITING])
        cluster.world.patch(Job, NAME, {"status": {"active": 1}}, subresource="status")
        tell(cluster, pod, "FailedMount", 'secret "no-such-secret" not found')
        await cluster.world.advance(60)
        assert cluster.conditions()["JobStarted"][:2] == ("False", "ContainerStartError")
        assert 'secret "no-such-secret" not found' in cluster.conditions()["WorkspaceReady"][2]


# ── wording ──────────────────────────────────────────────────────────────────────────────────────────────────────────

ENDED: dict[str, Any] = {"terminated": {"exitCode": 137, "reason": "Error"}}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"state": ENDED}, "pod ws-0 ended; last exit code 137"),
        ({"restartCount": 1, "state": {"running": {}}, "lastState": ENDED}, "pod ws-0 ended and was restarted once;"),
        (
            {"restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ENDED},
            "pod ws-0 ended twice and is about to be restarted again;",
        ),
        (
            {"restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ENDED},
            "pod ws-0 ends repeatedly (5 restarts);",
        ),
    ],
)
def test_a_single_end_is_not_a_crash_loop(status: dict[str, Any], words: str) -> None:
    fault = find_fault([sick_pod(main=status)])
    assert fault is not None
    assert words in fault.message
