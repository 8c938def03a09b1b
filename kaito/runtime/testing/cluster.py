"""Stand-ins for Kubernetes' workload controllers: Deployments and StatefulSets get pods and become ready, Jobs finish.

    await world.start(*workloads(ready_after=20))

They are controllers of this framework, and a manager on a real API server without such controllers may run them, too.
`World.start` gives them a manager of their own, whose requests are neither counted nor hit by faults. Pods carry the
template's labels and spec, are owned by the workload and bound to a ready node that satisfies their `nodeSelector` if
there is one. The claims of a StatefulSet are made and bound. Once a pod has started, its status is the test's: set it
not ready, and the workload's status follows. Rollouts, ReplicaSets and probes are not simulated.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kaito.runtime.cache import Cached
from kaito.runtime.client import Api, MergePatch
from kaito.runtime.controller import Controller
from kaito.runtime.errors import AlreadyExists
from kaito.runtime.kinds import Deployment, Job, Node, PersistentVolumeClaim, Pod, PodTemplateSpec, StatefulSet
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.runtime.meta.model import format_time
from kaito.runtime.reconcile import Again, Request

STARTED = "testing.kaito.dev/started"
"""Annotation of pods whose containers have been started; from then on the stand-ins leave their status alone."""

Workload = Deployment | StatefulSet


def workloads(*, ready_after: float = 0.0, job_seconds: float = 0.0) -> list[Controller[Any]]:
    """Controllers that make Deployments, StatefulSets and Jobs come true.

    Args:
        ready_after: seconds from the creation of a pod until its containers are ready.
        job_seconds: seconds from the start of a job's pod until it succeeds.
    """

    async def run_workload(request: Request[Any]) -> Again | None:
        workload: Workload = request.object
        wanted = 1 if workload.spec.replicas is None else workload.spec.replicas
        pods, again = await _keep_pods(request, workload.spec.template, wanted, ready_after)
        ready = sum(_is_ready(pod) for pod in pods)
        counts = {"replicas": wanted, "readyReplicas": ready, "updatedReplicas": wanted, "availableReplicas": ready}
        await _report(request.api, workload, counts | {"observedGeneration": workload.metadata.generation})
        return again

    async def run_job(request: Request[Job]) -> Again | None:
        job = request.object
        if job.has_condition("Complete") or job.has_condition("Failed") or job.spec.suspend:
            return None
        wanted = job.spec.completions or 1
        pods, again = await _keep_pods(request, job.spec.template, wanted, ready_after)
        failed = [pod for pod in pods if pod.status.phase == "Failed"]
        if failed:
            await _finish(request, "Failed", {"failed": len(failed), "active": 0})
            return None
        if again is not None:
            await _report(request.api, job, {"active": wanted})
            return again
        left = ready_after + job_seconds - _age(job, request.clock.now())
        if left > 0:
            await _report(request.api, job, {"active": wanted, "ready": wanted})
            return Again(left, "the job's pods are working")
        for pod in pods:
            await request.api.patch(pod, MergePatch({"status": {"phase": "Succeeded"}}), subresource="status")
        await _finish(request, "Complete", {"succeeded": wanted, "active": 0, "ready": 0})
        return None

    nodes = [Cached(Node)]
    return [
        Controller(Deployment, run_workload, name="deployments", cache=nodes).owns(Pod),
        Controller(StatefulSet, run_workload, name="statefulsets", cache=nodes).owns(Pod),
        Controller(Job, run_job, name="jobs", cache=nodes).owns(Pod),
    ]


async def _keep_pods(
    request: Request[Any], template: PodTemplateSpec, wanted: int, ready_after: float
) -> tuple[list[Pod], Again | None]:
    """Make, start and remove pods. The pods, and when to come again if some have not started yet."""
    api, owner = request.api, request.object
    present = {pod.name: pod for pod in await api.list(Pod, namespace=owner.namespace, owned_by=owner)}
    names = [f"{owner.name}-{number}" for number in range(wanted)]
    for name, pod in present.items():
        if name not in names and not pod.deleting:
            await api.delete(pod, grace_seconds=0)
    pods: list[Pod] = []
    again: Again | None = None
    for name in names:
        pod = present.get(name) or await api.create(await _pod(api, owner, name, template))
        if STARTED not in pod.annotations:
            left = ready_after - _age(pod, request.clock.now())
            if left > 0:
                again = Again(left, "containers are starting")
            else:
                pod = await _start(api, pod)
        pods.append(pod)
    return pods, again


async def _pod(api: Api, owner: Resource, name: str, template: PodTemplateSpec) -> Pod:
    spec = template.spec.to_dict()
    if isinstance(owner, StatefulSet):
        claimed = {claim.name: await _claim(api, owner, claim, name) for claim in owner.spec.volume_claim_templates}
        given: list[dict[str, Any]] = spec.get("volumes") or []
        others = [volume for volume in given if volume["name"] not in claimed]
        volumes = [{"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim in claimed.items()]
        spec["volumes"] = others + volumes
    node = await _node(api, spec.get("nodeSelector") or {})
    if node:
        spec["nodeName"] = node
    metadata = ObjectMeta(
        name=name,
        namespace=owner.namespace,
        labels=dict(template.metadata.labels),
        annotations=dict(template.metadata.annotations),
        owner_references=[owner.owner_reference()],
    )
    return Pod.model_validate({"metadata": metadata.to_dict(), "spec": spec})


async def _claim(api: Api, owner: StatefulSet, template: PersistentVolumeClaim, pod: str) -> str:
    """The name of the pod's claim; it is made and bound if this is the first pod of that name."""
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


async def _node(api: Api, selector: Mapping[str, str]) -> str:
    for node in await api.list(Node):
        if node.is_ready and all(node.labels.get(label) == value for label, value in selector.items()):
            return node.name
    return ""


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


async def _finish(request: Request[Job], how: str, counts: Mapping[str, Any]) -> None:
    now = format_time(request.clock.now())
    conditions = [{"type": how, "status": "True", "lastTransitionTime": now, "reason": how}]
    status = dict(counts) | {"conditions": conditions} | ({"completionTime": now} if how == "Complete" else {})
    await request.api.patch(request.object, MergePatch({"status": status}), subresource="status")
