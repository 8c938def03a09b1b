"""Step: which nodes does the Workspace have, and do they carry what it needs?

Looks before claims are counted, because nodes that are already there need none. Writes only labels: ownership onto
preferred nodes, and the label the NVIDIA device plugin waits for onto nodes without GPUs.
"""

from kaito.api import labels
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import Node
from kaito.workspace import nodes
from kaito.workspace.context import Pass
from kaito.workspace.indexes import NODES
from kaito.workspace.ownership import owner_labels
from kaito.workspace.plan import Hardware
from kaito.workspace.settings import NodeApi

SAFETY_SECONDS = 30.0
"""How often a Workspace without enough nodes is looked at although nothing was heard."""


async def observe(run: Pass) -> None:
    """Judge the Workspace's nodes; take preferred ones that are free."""
    hardware = run.seen.hardware(run.workspace)
    found = await _own(run)
    _report(run, hardware, found)
    if run.plan is None or run.settings.node_api is NodeApi.BYO:
        return
    taken = await _take_preferred(run, hardware)
    if taken:
        _report(run, hardware, [*found, *taken])
    await _ask_for_device_plugin(run, hardware, found)


def _report(run: Pass, hardware: Hardware, found: list[Node]) -> None:
    """Note what the nodes are worth, before anything is done about them: what follows may fail."""
    report = nodes.report(run.workspace, hardware, found, node_api=run.settings.node_api)
    run.seen.nodes = report
    run.seen.node_objects = {node.name: node for node in found}
    if not report.enough:
        run.wake(SAFETY_SECONDS, "nodes pending")


async def _own(run: Pass) -> list[Node]:
    if run.settings.node_api is NodeApi.BYO:
        return await run.api.list(Node, labels=run.workspace.resource.label_selector)
    return await run.api.list(Node, index=NODES(str(run.workspace.key)))


async def _take_preferred(run: Pass, hardware: Hardware) -> list[Node]:
    """Label free preferred nodes as the Workspace's own, so that nobody else takes them and pods may land there."""
    missing = hardware.count - len(run.seen.nodes.usable if run.seen.nodes else ())
    if missing <= 0 or not run.workspace.resource.preferred_nodes:
        return []
    wanted = run.workspace.resource.preferred_nodes
    named = [await run.api.find(Node, name, consistency="live") for name in wanted]
    free = nodes.preferred(run.workspace, hardware, [node for node in named if node is not None])
    ours = {**owner_labels(run.workspace), labels.PREFERRED: labels.TRUE}
    return [await run.api.patch(node, MergePatch({"metadata": {"labels": ours}})) for node in free[:missing]]


async def _ask_for_device_plugin(run: Pass, hardware: Hardware, found: list[Node]) -> None:
    """Put `accelerator=nvidia` onto ready nodes that advertise too few GPUs: the plugin's DaemonSet selects it."""
    if hardware.gpu_resource != labels.NVIDIA_GPU:
        return
    wanted = {labels.ACCELERATOR: labels.ACCELERATOR_NVIDIA}
    for node in found:
        offered = int(node.status.capacity.get(hardware.gpu_resource, 0))
        if node.is_ready and offered < hardware.gpus and labels.ACCELERATOR not in node.labels:
            await run.api.patch(node, MergePatch({"metadata": {"labels": wanted}}))
