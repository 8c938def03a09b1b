"""Simulates Kubernetes' workload controllers: Deployments, StatefulSets and DaemonSets become ready, Jobs complete.

    await world.start(*workloads(ready_after=20))

They are controllers of this framework; a manager on a real API server without workload controllers may run them, too.
`World.start` runs them in a separate manager, whose requests are not counted and not subject to faults. Pods have the
template's labels and spec, are owned by the workload, and are bound to a ready node that matches their `nodeSelector`,
if there is one; a DaemonSet has a pod on each matching node. The claims of a StatefulSet are created and bound. After a
pod has started, a test may change its status: if it sets the pod not ready, the workload's status follows. Rollouts,
ReplicaSets and probes are not simulated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, final

from kaito.runtime.cache import Cached, View
from kaito.runtime.client import Api, MergePatch
from kaito.runtime.client.status import StatusScope
from kaito.runtime.controller import Controller
from kaito.runtime.errors import AlreadyExists
from kaito.runtime.kinds import (
    DaemonSet,
    Deployment,
    Job,
    Node,
    PersistentVolumeClaim,
    Pod,
    PodTemplateSpec,
    StatefulSet,
)
from kaito.runtime.meta import ObjectKey, ObjectMeta, Resource
from kaito.runtime.meta.model import format_time
from kaito.runtime.ownership import controller_of
from kaito.runtime.reconcile import Again, Request

STARTED = "testing.kaito.dev/started"
"""Annotation of started pods, whose status these controllers do not change any more."""

Workload = Deployment | StatefulSet

CONTROLLED = frozenset({"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"})
"""Kinds of the owners whose pods these controllers create and start."""


def workloads(*, ready_after: float = 0.0, job_seconds: float = 0.0, bare_pods: bool = False) -> list[Controller[Any]]:
    """Returns controllers that simulate Deployments, StatefulSets, DaemonSets and Jobs.

    Args:
        ready_after: Seconds from the creation of a pod until its containers are ready.
        job_seconds: Seconds from the start of a Job's pods until they succeed.
        bare_pods: Whether to start pods without such an owner, too, which operators create. They are not bound to a
            node.
    """
    stage = _Stage(ready_after, job_seconds)
    nodes = [Cached(Node)]
    controllers: list[Controller[Any]] = [
        Controller(Deployment, stage.run_workload, name="deployments", cache=nodes).owns(Pod),
        Controller(StatefulSet, stage.run_workload, name="statefulsets", cache=nodes).owns(Pod),
        Controller(DaemonSet, stage.run_daemons, name="daemonsets").owns(Pod).watches(Node, to=_daemon_sets),
        Controller(Job, stage.run_job, name="jobs", cache=nodes).owns(Pod),
    ]
    return [*controllers, Controller(Pod, stage.run_pod, name="pods")] if bare_pods else controllers


@final
@dataclass(frozen=True, slots=True)
class _Stage:
    """The reconcile functions and their delays."""

    ready_after: float
    job_seconds: float

    async def run_workload(self, request: Request[Any]) -> Again | None:
        workload: Workload = request.object
        wanted = 1 if workload.spec.replicas is None else workload.spec.replicas
        names = {f"{workload.name}-{number}": "" for number in range(wanted)}
        pods, again = await _keep_pods(request, workload.spec.template, names, self.ready_after)
        ready = sum(_is_ready(pod) for pod in pods)
        async with request.api.status(workload) as status:
            status.set(
                observed_generation=workload.metadata.generation,
                replicas=wanted,
                ready_replicas=ready,
                updated_replicas=wanted,
                available_replicas=ready,
            )
            if isinstance(workload, Deployment):
                _tell_available(status, enough=ready >= wanted)
        return again

    async def run_daemons(self, request: Request[DaemonSet]) -> Again | None:
        daemons = request.object
        template = daemons.spec.template
        nodes = await _nodes(request.api, template.spec.to_dict().get("nodeSelector") or {})
        names = {f"{daemons.name}-{node}": node for node in nodes}
        pods, again = await _keep_pods(request, template, names, self.ready_after)
        ready = sum(_is_ready(pod) for pod in pods)
        wanted = dict.fromkeys(
            ("desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled"), len(names)
        )
        counts = wanted | {"numberReady": ready, "numberAvailable": ready}
        await _report(request.api, daemons, counts | {"observedGeneration": daemons.metadata.generation})
        return again

    async def run_pod(self, request: Request[Pod]) -> Again | None:
        pod = request.object
        owner = controller_of(pod.metadata)
        if STARTED in pod.annotations or pod.status.phase not in {"", "Pending"}:
            return None
        if owner is not None and owner.kind in CONTROLLED:
            return None
        left = self.ready_after - _age(pod, request.clock.now())
        if left > 0:
            return Again(left, "containers are starting")
        await _start(request.api, pod)
        return None

    async def run_job(self, request: Request[Job]) -> Again | None:
        job = request.object
        if job.has_condition("Complete") or job.has_condition("Failed") or job.spec.suspend:
            return None
        wanted = job.spec.completions or 1
        names = {f"{job.name}-{number}": "" for number in range(wanted)}
        pods, again = await _keep_pods(request, job.spec.template, names, self.ready_after)
        failed = [pod for pod in pods if pod.status.phase == "Failed"]
        if failed:
            await _finish(request, "Failed", {"failed": len(failed), "active": 0})
            return None
        if again is not None:
            await _report(request.api, job, {"active": wanted})
            return again
        left = self.ready_after + self.job_seconds - _age(job, request.clock.now())
        if left > 0:
            await _report(request.api, job, {"active": wanted, "ready": wanted})
            return Again(left, "the job's pods are running")
        for pod in pods:
            await request.api.patch(pod, MergePatch({"status": {"phase": "Succeeded"}}), subresource="status")
        await _finish(request, "Complete", {"succeeded": wanted, "active": 0, "ready": 0})
        return None


def _daemon_sets(_: Node, view: View) -> list[ObjectKey]:
    """Returns all DaemonSets: every change of a node may affect each of them."""
    return [daemons.key for daemons in view.list(DaemonSet)]


async def _keep_pods(
    request: Request[Any], template: PodTemplateSpec, names: Mapping[str, str], ready_after: float
) -> tuple[list[Pod], Again | None]:
    """Creates, starts and deletes pods to match the names, each on its node ("" for any).

    Returns the pods, and a requeue if some have not started.
    """
    api, owner = request.api, request.object
    present = {pod.name: pod for pod in await api.list(Pod, namespace=owner.namespace, owned_by=owner)}
    for name, pod in present.items():
        if name not in names and not pod.deleting:
            await api.delete(pod, grace_seconds=0)
    pods: list[Pod] = []
    again: Again | None = None
    for name, node in names.items():
        pod = present.get(name) or await api.create(await _pod(api, owner, name, template, node))
        if STARTED not in pod.annotations:
            left = ready_after - _age(pod, request.clock.now())
            if left > 0:
                again = Again(left, "containers are starting")
            else:
                pod = await _start(api, pod)
        pods.append(pod)
    return pods, again


async def _pod(api: Api, owner: Resource, name: str, template: PodTemplateSpec, node: str) -> Pod:
    spec = template.spec.to_dict()
    if isinstance(owner, StatefulSet):
        claimed = {claim.name: await _claim(api, owner, claim, name) for claim in owner.spec.volume_claim_templates}
        given: list[dict[str, Any]] = spec.get("volumes") or []
        others = [volume for volume in given if volume["name"] not in claimed]
        volumes = [{"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim in claimed.items()]
        spec["volumes"] = others + volumes
    fitting = [node] if node else await _nodes(api, spec.get("nodeSelector") or {})
    if fitting:
        spec["nodeName"] = fitting[0]
    metadata = ObjectMeta(
        name=name,
        namespace=owner.namespace,
        labels=dict(template.metadata.labels),
        annotations=dict(template.metadata.annotations),
        owner_references=[owner.owner_reference()],
    )
    return Pod.model_validate({"metadata": metadata.to_dict(), "spec": spec})


async def _claim(api: Api, owner: StatefulSet, template: PersistentVolumeClaim, pod: str) -> str:
    """Returns the name of the pod's claim, which is created and bound if it does not exist."""
    retention = owner.spec.persistent_volume_claim_retention_policy
    goes_too = retention is not None and retention.when_deleted == "Delete"
    metadata = template.metadata.evolve(
        name=f"{template.name}-{pod}",
        namespace=owner.namespace,
        labels={**template.labels, **(owner.spec.selector.match_labels or {})},
        owner_references=[owner.owner_reference(controller=False)] if goes_too else [],
    )
    try:
        claim = await api.create(template.evolve(metadata=metadata))
    except AlreadyExists:
        return metadata.name
    status = {
        "phase": "Bound",
        "accessModes": claim.spec.access_modes,
        "capacity": claim.spec.resources.to_dict()["requests"],
    }
    await api.patch(claim, MergePatch({"status": status}), subresource="status")
    return claim.name


async def _nodes(api: Api, selector: Mapping[str, str]) -> list[str]:
    return [
        node.name
        for node in await api.list(Node)
        if node.is_ready and all(node.labels.get(label) == value for label, value in selector.items())
    ]


async def _start(api: Api, pod: Pod) -> Pod:
    running: dict[str, Any] = {
        "phase": "Running",
        "conditions": [{"type": kind, "status": "True"} for kind in ("PodScheduled", "ContainersReady", "Ready")],
        "containerStatuses": [
            {
                "name": container.name,
                "image": container.image or "",
                "imageID": "",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {}},
            }
            for container in pod.spec.containers
        ],
    }
    pod = await api.patch(pod, MergePatch({"metadata": {"annotations": {STARTED: "true"}}}))
    return await api.patch(pod, MergePatch({"status": running}), subresource="status")


def _is_ready(pod: Pod) -> bool:
    conditions: Sequence[Mapping[str, Any]] = pod.to_dict().get("status", {}).get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and not pod.deleting


def _age(obj: Resource, now: datetime) -> float:
    created = obj.metadata.creation_timestamp
    return (now - created).total_seconds() if created is not None else 0.0


async def _report(api: Api, obj: Resource, wanted: Mapping[str, Any]) -> None:
    present: Mapping[str, Any] = obj.to_dict().get("status") or {}
    difference = {name: value for name, value in wanted.items() if present.get(name, 0) != value}
    if difference:
        await api.patch(obj, MergePatch({"status": difference}), subresource="status")


def _tell_available(status: StatusScope[Any], *, enough: bool) -> None:
    """Sets the two conditions of a Deployment as kube-controller-manager does."""
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    status.condition("Available", enough, reason, f"Deployment {'has' if enough else 'lacks'} minimum availability.")
    progress = "NewReplicaSetAvailable" if enough else "ReplicaSetUpdated"
    status.condition("Progressing", True, progress)  # noqa: FBT003 -- the condition's own word


async def _finish(request: Request[Job], how: str, counts: Mapping[str, Any]) -> None:
    now = format_time(request.clock.now())
    conditions = [{"type": how, "status": "True", "lastTransitionTime": now, "reason": how}]
    status = dict(counts) | {"conditions": conditions} | ({"completionTime": now} if how == "Complete" else {})
    await request.api.patch(request.object, MergePatch({"status": status}), subresource="status")
