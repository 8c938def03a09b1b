"""Reports the nodes of Karpenter's kwok provider as Ready, in place of kubelet, device plugin and node controller.

The provider creates Node objects without a kubelet: without conditions, and with the sizes of the instance type in
`allocatable` only. kube-apiserver adds the taint `node.kubernetes.io/not-ready`, which the node lifecycle controller
removes. This program copies the sizes to `capacity`, sets the condition Ready and removes the taint. Run as its own
process: `python -m hack.karpenter.nodes KUBECONFIG`.
"""

import sys
from pathlib import Path

from kaito.runtime import Controller, Manager, Request, Settings
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import Node

PREFIX = "kwok://"
NOT_READY = "node.kubernetes.io/not-ready"


async def report_ready(request: Request[Node]) -> None:
    """Sets capacity and the condition Ready, and removes the taint of nodes that are not Ready."""
    node = request.object
    if not (node.spec.provider_id or "").startswith(PREFIX):
        return
    if any(taint.key == NOT_READY for taint in node.spec.taints):
        await _remove_taint(request)
    ready = node.condition("Ready")
    if ready is None:
        await _set_ready(request)


async def _remove_taint(request: Request[Node]) -> None:
    node = request.object
    taints = [taint.to_dict() for taint in node.spec.taints if taint.key != NOT_READY]
    version = node.metadata.resource_version  # a taint that Karpenter adds meanwhile is not lost
    await request.api.patch(node, MergePatch({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}}))


async def _set_ready(request: Request[Node]) -> None:
    node = request.object
    now = request.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "no kubelet runs",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    capacity = {name: str(amount) for name, amount in node.status.allocatable.items()}
    status = {"status": {"capacity": capacity, "conditions": [condition]}}
    await request.api.patch(node, MergePatch(status), subresource="status")


def settings(kubeconfig: str) -> Settings:
    """Returns the settings of a program that runs beside Karpenter: one process, without endpoints."""
    return Settings(
        kubeconfig=Path(kubeconfig),
        metrics_bind_address="0",
        health_probe_bind_address="0",
        leader_elect=False,
        log_level="warning",
    )


def main() -> None:
    """Runs until stopped."""
    Manager(
        settings(sys.argv[1]), controllers=[Controller(Node, report_ready, name="kwok-nodes")], name="kwok-nodes"
    ).run()


if __name__ == "__main__":
    main()
