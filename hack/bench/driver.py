"""Makes nodes and workloads ready at once, so that a benchmark measures only the workspace controller.

It replaces provisioner, node, StatefulSet controller and kubelet on a real API server: a claim gets its node and turns
Ready, a StatefulSet turns ready, and only the requests take time. A small operator on the framework, run as its own
process: `python -m hack.bench.driver KUBECONFIG machine|nodeclaim|workloads`; with `workloads`, another process handles
claims and nodes.
"""

import contextlib
import sys
from pathlib import Path

from kaito.api import labels
from kaito.api.karpenter import Claim, Machine, NodeClaim
from kaito.runtime import Again, AlreadyExists, Controller, Manager, ObjectMeta, Quantity, Request, Settings
from kaito.runtime.kinds import Node, NodeCondition, NodeSpec, NodeStatus, StatefulSet
from kaito.runtime.predicate import changed

GPUS = Quantity("1")


async def give_node(request: Request[Claim]) -> Again | None:
    """Creates the claim's node, ready with its GPU, and marks the claim Ready."""
    claim = request.object
    if claim.is_ready:
        return None
    capacity = {labels.NVIDIA_GPU: GPUS}
    ready = NodeCondition(type="Ready", status="True", reason="KubeletReady", message="bench")
    node = Node(
        metadata=ObjectMeta(name=claim.name, labels=claim.labels | {labels.INSTANCE_TYPE: claim.instance_type}),
        spec=NodeSpec(provider_id=f"bench:///{claim.name}"),
        status=NodeStatus(capacity=capacity, allocatable=capacity, conditions=[ready]),
    )
    with contextlib.suppress(AlreadyExists):
        await request.api.create(node)  # a node's status may come with it, as a kubelet registers
    async with request.status() as scope:
        for stage in (claim.stages.launched, claim.stages.registered, claim.stages.initialized, "Ready"):
            scope.condition(stage, True, "Bench")  # noqa: FBT003
        scope.set(node_name=claim.name, provider_id=f"bench:///{claim.name}", capacity=capacity)
    return None


async def make_ready(request: Request[StatefulSet]) -> Again | None:
    """Reports every replica ready."""
    workload = request.object
    replicas = 1 if workload.spec.replicas is None else workload.spec.replicas
    async with request.status() as status:
        status.set(
            observed_generation=workload.metadata.generation,
            replicas=replicas,
            ready_replicas=replicas,
            available_replicas=replicas,
            current_replicas=replicas,
            updated_replicas=replicas,
        )
    return None


def main() -> None:
    """Runs until stopped."""
    kubeconfig, node_api = sys.argv[1:3]
    settings = Settings(
        kubeconfig=Path(kubeconfig),
        metrics_bind_address="0",
        health_probe_bind_address="0",
        leader_elect=False,
        log_level="warning",
    )
    kinds: dict[str, type[Claim]] = {"machine": Machine, "nodeclaim": NodeClaim}
    workloads = Controller(StatefulSet, make_ready, name="driver-workloads", workers=16, when=changed("generation"))
    claims = [
        Controller(kind, give_node, name="driver-claims", workers=16, when=changed("generation"))
        for name, kind in kinds.items()
        if name == node_api
    ]
    Manager(settings, controllers=[workloads, *claims], name="bench-driver").run()


if __name__ == "__main__":
    main()
