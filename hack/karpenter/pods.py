"""Runs the pods of StatefulSets on kwok nodes, in place of StatefulSet controller, scheduler and kubelet.

A pod is created on a node of its Workspace that is Ready, has no pod of it, and has no taint but that of GPU nodes, and
is Ready at once. A pod that is being deleted (scaled down, or evicted when Karpenter drains its node) ends at once:
without a kubelet it would stay Terminating, and Karpenter waits for it. Run as its own process:
`python -m hack.karpenter.pods KUBECONFIG`.
"""

import sys
from collections.abc import Sequence

from hack.karpenter.nodes import settings
from kaito.api import labels
from kaito.runtime import Again, AlreadyExists, Controller, Manager, Request
from kaito.runtime.cache import Cached
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import Node, Pod, StatefulSet
from kaito.workspace.ownership import is_controller_of

RESYNC_SECONDS = 1.0
"""Interval at which a StatefulSet without all pods is reconciled without an event."""


async def run_pods(request: Request[StatefulSet]) -> Again | None:
    """Creates and ends the pods of a StatefulSet, and reports how many are Ready."""
    workload, client = request.object, request.api.client
    workspace = workload.labels.get(labels.WORKSPACE, "")
    pods = [pod for pod in await client.list(Pod, namespace=workload.namespace) if is_controller_of(workload, pod)]
    wanted = 0 if workload.deleting else workload.spec.replicas or 0
    for pod in pods:
        if pod.deleting or int(pod.name.rpartition("-")[2]) >= wanted:
            await client.delete(pod, grace_seconds=0)
    live = [pod for pod in pods if not pod.deleting and int(pod.name.rpartition("-")[2]) < wanted]
    free = _free(await client.list(Node, labels={labels.WORKSPACE: workspace}), live)
    names = {pod.name for pod in live}
    for name in (f"{workload.name}-{number}" for number in range(wanted)):
        if name not in names and free:
            await _create(request, name, free.pop(0))
            names.add(name)
    async with request.status() as status:
        status.set(
            observed_generation=workload.metadata.generation,
            replicas=len(names),
            ready_replicas=len(names),
            available_replicas=len(names),
            current_replicas=len(names),
            updated_replicas=len(names),
        )
    return Again(RESYNC_SECONDS, "pods are missing") if len(names) < wanted else None


async def end_pod(request: Request[Pod]) -> Again | None:
    """Ends a pod that is being deleted, as a kubelet does, and one without its StatefulSet, as garbage collection."""
    pod, client = request.object, request.api.client
    owner = next((each for each in pod.metadata.owner_references if each.kind == "StatefulSet"), None)
    if owner is None:
        return None
    if pod.deleting or await client.find(StatefulSet, owner.name, pod.namespace) is None:
        await client.delete(pod, grace_seconds=0)
        return None
    return Again(RESYNC_SECONDS, "the StatefulSet may be deleted")


def _free(nodes: Sequence[Node], pods: Sequence[Pod]) -> list[str]:
    busy = {pod.spec.node_name for pod in pods}
    return [
        node.name
        for node in nodes
        if node.is_ready and not node.deleting and node.name not in busy
        if all(taint.key == labels.TAINT_SKU for taint in node.spec.taints)
    ]


async def _create(request: Request[StatefulSet], name: str, node: str) -> None:
    workload = request.object
    template = workload.spec.template
    document = {
        "metadata": {"name": name, "namespace": workload.namespace, "labels": dict(template.metadata.labels)},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "main", "image": "registry.example.com/none:1"}],
            "tolerations": [{"key": labels.TAINT_SKU, "operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
        },
    }
    try:
        pod = await request.api.create(Pod.model_validate(document), owner=workload)
    except AlreadyExists:
        return
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2030-01-01T00:00:00Z"}
    status = {"status": {"phase": "Running", "conditions": [condition]}}
    await request.api.client.patch(pod, MergePatch(status), subresource="status")


def main() -> None:
    """Runs until stopped."""
    controller = Controller(StatefulSet, run_pods, name="kwok-pods").owns(Pod)
    ends = Controller(Pod, end_pod, name="kwok-kubelet")
    Manager(
        settings(sys.argv[1]), controllers=[controller, ends], cache=[Cached(Pod)], live=[Node], name="kwok-pods"
    ).run()


if __name__ == "__main__":
    main()
