"""Determines the number of copies of a model that a Workspace requests, and with it the number of nodes.

`resource.count` is the number of copies. A copy may need several nodes (`InferencePlan.nodes_per_copy`), so that the
number of nodes is `count` x nodes of a copy. Upstream Kaito ignores `count` of a preset and uses the nodes of one copy.
A Workspace that upstream has reconciled therefore keeps the number of nodes that upstream computed, also if its `count`
is higher: it is the cheaper reading, and `count` cannot be changed any more.
"""

from kaito.api import labels
from kaito.api.workspace import Workspace
from kaito.api.workspace.node_count import MAX_NODE_COUNT, parse_node_count
from kaito.models.errors import PlanError

COUNT_FIELD = "resource.count"
OVERRIDE_FIELD = f"metadata.annotations[{labels.NODE_COUNT_OVERRIDE}]"


class InvalidNodeCount(PlanError):
    """The number of nodes is not possible for the model."""


def wanted_copies(workspace: Workspace, nodes_per_copy: int = 1) -> int:
    """Returns the number of copies.

    Args:
        workspace: the Workspace.
        nodes_per_copy: the number of nodes of one copy.

    Raises:
        InvalidNodeCount: there would be more than `MAX_NODE_COUNT` nodes, or the annotation with the number of nodes is
            not a multiple of the nodes of a copy.
    """
    override = parse_node_count(workspace.annotations.get(labels.NODE_COUNT_OVERRIDE, ""))
    if override is not None:
        copies, rest = divmod(override, nodes_per_copy)
        if rest:
            message = f"is {override}, and a copy of the model needs {nodes_per_copy} nodes: use a multiple of that"
            raise InvalidNodeCount(OVERRIDE_FIELD, message)
        return copies
    copies = _upstream_copies(workspace, nodes_per_copy) or max(workspace.resource.count, 1)
    most = MAX_NODE_COUNT // nodes_per_copy
    if copies > most and nodes_per_copy > 1:
        message = (
            f"is {copies}, and {copies} copies on {nodes_per_copy} nodes each are more than {MAX_NODE_COUNT} nodes: "
            f"use at most {most}"
        )
        raise InvalidNodeCount(COUNT_FIELD, message)
    return min(copies, most)


def _upstream_copies(workspace: Workspace, nodes_per_copy: int) -> int:
    """Returns the copies on the nodes that upstream's controller computed; 0 if it has not reconciled the Workspace."""
    if labels.REVISION not in workspace.annotations or workspace.preset_name == "":
        return 0
    return max(workspace.status.target_node_count // nodes_per_copy, 1) if workspace.status.target_node_count else 0
