"""Determines the number of copies of a model that a Workspace requests, and with it the number of nodes.

`spec.replicas` is the number of copies. While it is not set, `resource.count` is, or the annotation with a number of
nodes. A copy may need several nodes (`InferencePlan.nodes_per_copy`), so that the number of nodes is copies x nodes of
a copy. If the GPUs of new nodes are divided, several copies share a node (`InferencePlan.copies_per_node`), and each
Workspace of an InferenceSet has as many copies as a node has slices.

Upstream Kaito has no `spec.replicas`, ignores `count` of a preset and uses the nodes of one copy. A Workspace that
upstream has reconciled therefore keeps the number of nodes that upstream computed, also if its `count` is higher, until
it is scaled: it is the cheaper reading.
"""

import math
from collections.abc import Iterable

from kaito.api import InferenceSet, labels
from kaito.api.workspace import Workspace
from kaito.api.workspace.node_count import MAX_NODE_COUNT, parse_node_count
from kaito.models.errors import PlanError
from kaito.models.partitions import slices_by_type

COUNT_FIELD = "resource.count"
REPLICAS_FIELD = "spec.replicas"
OVERRIDE_FIELD = f"metadata.annotations[{labels.NODE_COUNT_OVERRIDE}]"


class InvalidNodeCount(PlanError):
    """The number of nodes is not possible for the model."""


def wanted_copies(workspace: Workspace, nodes_per_copy: int = 1, copies_per_node: int = 1) -> int:
    """Returns the number of copies; 0 if the Workspace is scaled to zero.

    Args:
        workspace: the Workspace.
        nodes_per_copy: the number of nodes of one copy.
        copies_per_node: the number of copies that share a node.

    Raises:
        InvalidNodeCount: there would be more than `MAX_NODE_COUNT` nodes or copies, or the annotation with the number
            of nodes is not a multiple of the nodes of a copy.
    """
    if workspace.tuning is not None:
        return 1
    replicas = workspace.spec.replicas
    if replicas is not None:
        return _limited(max(replicas, 0), nodes_per_copy, REPLICAS_FIELD)
    override = node_count_override(workspace)
    if override is not None:
        copies, rest = divmod(override, nodes_per_copy)
        if rest:
            message = f"is {override}, and a copy of the model needs {nodes_per_copy} nodes: use a multiple of that"
            raise InvalidNodeCount(OVERRIDE_FIELD, message)
        if copies * copies_per_node > MAX_NODE_COUNT:
            message = (
                f"is {override}, and {copies_per_node} copies on each node are more than {MAX_NODE_COUNT} copies: use "
                f"at most {MAX_NODE_COUNT // copies_per_node}"
            )
            raise InvalidNodeCount(OVERRIDE_FIELD, message)
        return copies * copies_per_node
    # Upstream has no divided GPUs on new nodes.
    upstream = _upstream_copies(workspace, nodes_per_copy) if copies_per_node == 1 else 0
    copies = upstream or max(workspace.resource.count, 1)
    return _limited(copies, nodes_per_copy, COUNT_FIELD)


def copies_per_workspace(inference_set: InferenceSet) -> int:
    """Returns the copies of each Workspace of the set: the slices of a new node if its GPUs are divided, else 1.

    Admission refuses alternatives with different numbers of slices.
    """
    return min(slices_of_set(inference_set).values(), default=1)


def slices_of_set(inference_set: InferenceSet) -> dict[str, int]:
    """Returns the slices of a new node by its instance type; empty if its GPUs are not divided."""
    resource = inference_set.spec.template.resource
    return slices_by_type(resource.instance_types or [resource.instance_type], resource.partition)


def nodes_of(copies: int, nodes_per_copy: int, copies_per_node: int) -> int:
    """Returns the number of nodes of copies, of which each needs several nodes or several share one."""
    return math.ceil(copies / copies_per_node) * nodes_per_copy


def existing_nodes_of(copies: int, places: Iterable[int], *, largest: int) -> int:
    """Returns the smallest number of existing nodes that serve the copies.

    Args:
        copies: the number of copies.
        places: the copies that each node can serve.
        largest: the copies that a node can serve which is missing.
    """
    used = 0
    for each in sorted(places, reverse=True):
        if copies <= 0:
            return used
        copies, used = copies - each, used + 1
    return used + math.ceil(max(copies, 0) / max(largest, 1))


def nodes_before_plan(workspace: Workspace) -> int:
    """Returns the number of nodes of the last plan. Before the first plan, that is one for each copy; at least one if
    copies share nodes, because how many share one is not known yet."""
    if workspace.status.target_node_count:
        return workspace.status.target_node_count
    partition = workspace.resource.partition
    return 1 if partition is not None and partition.mode == "mig" else workspace.resource.count


def _limited(copies: int, nodes_per_copy: int, field: str) -> int:
    most = MAX_NODE_COUNT // nodes_per_copy
    if copies > most and nodes_per_copy > 1:
        message = (
            f"is {copies}, and {copies} copies on {nodes_per_copy} nodes each are more than {MAX_NODE_COUNT} nodes: "
            f"use at most {most}"
        )
        raise InvalidNodeCount(field, message)
    return min(copies, most)


def node_count_override(workspace: Workspace) -> int | None:
    """Returns the number of nodes in the annotation; None if it is missing or not a number of nodes."""
    return parse_node_count(workspace.annotations.get(labels.NODE_COUNT_OVERRIDE, ""))


def counts_nodes(workspace: Workspace) -> bool:
    """Whether the copies are derived from a number of nodes, that of an annotation or of upstream's controller.

    Each copy then has a node of its own or several, also on existing nodes that have GPUs for more.
    """
    is_upstream = labels.REVISION in workspace.annotations and workspace.preset_name != ""
    return workspace.spec.replicas is None and (is_upstream or node_count_override(workspace) is not None)


def _upstream_copies(workspace: Workspace, nodes_per_copy: int) -> int:
    """Returns the copies on the nodes that upstream's controller computed; 0 if it has not reconciled the Workspace."""
    if labels.REVISION not in workspace.annotations or workspace.preset_name == "":
        return 0
    return max(workspace.status.target_node_count // nodes_per_copy, 1) if workspace.status.target_node_count else 0


def with_replicas(workspace: Workspace, old: Workspace | None) -> Workspace:
    """Returns the Workspace with `spec.replicas` as admission sets it.

    `resource.count` sets `spec.replicas` when the Workspace is created, and when `count` changes but `spec.replicas`
    does not. An update that leaves `spec.replicas` out, as a client that replaces the object does, keeps the stored
    number. With the annotation `kaito.sh/node-count-override`, `spec.replicas` stays unset for the controller, which
    knows the number of nodes of one copy.

    Args:
        workspace: the Workspace as the client requests it.
        old: the stored Workspace; None on creation.
    """
    if workspace.inference is None or workspace.deleting:
        return workspace
    replicas, count = workspace.spec.replicas, workspace.resource.count
    if old is None:
        wanted = count if replicas is None and node_count_override(workspace) is None else replicas
    elif replicas is not None and replicas != old.spec.replicas:
        wanted = replicas
    elif node_count_override(workspace) != node_count_override(old):
        wanted = None
    elif count != old.resource.count and node_count_override(workspace) is None:
        wanted = count
    else:
        wanted = old.spec.replicas
    if wanted == replicas:
        return workspace
    return workspace.evolve(spec=workspace.spec.evolve(replicas=wanted))
