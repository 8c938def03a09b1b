"""Builds the NodePool of a Workspace (`--node-api karpenter`): Karpenter creates one NodeClaim for each replica.

The pool is static: it has a number of nodes, and pods that wait for a node do not change it. The template contains only
what never changes for a Workspace with the same instance type and node class, because Karpenter replaces the nodes when
the template changes.
"""

import hashlib
import re
from typing import Final

from kaito.api import Claim, Workspace, labels
from kaito.api.karpenter import (
    Disruption,
    DisruptionBudget,
    NodePool,
    NodePoolSpec,
    NodeTemplate,
    NodeTemplateMetadata,
    NodeTemplateSpec,
)
from kaito.api.karpenter.nodepool import NODES
from kaito.runtime.meta import ObjectMeta, Quantity
from kaito.workspace.manifests.claim import EXPIRE_NEVER, claim_labels, claim_taints, node_requirements
from kaito.workspace.ownership import inference_set_name, owner_labels
from kaito.workspace.plan import Hardware
from kaito.workspace.settings import WorkspaceSettings

_MAX_PREFIX: Final = 40
"""Longest part of the Workspace's name: Karpenter's providers derive names of instances from that of the pool."""

SURGE: Final = 1
"""Nodes above the number of replicas while a node is replaced: the new one is Ready before the old one is drained."""


def node_pool_name(workspace: Workspace) -> str:
    """Returns the start of the Workspace's name and 9 hex digits of its UID.

    Workspaces of the same name in two namespaces, or one that is created again, have different pools.
    """
    digest = hashlib.sha256(workspace.uid.encode()).hexdigest()[:9]
    prefix = re.sub(r"[^a-z0-9-]", "-", workspace.name[:_MAX_PREFIX].lower()).strip("-")
    return f"{prefix}-{digest}"


def is_pool_claim(workspace: Workspace, claim: Claim) -> bool:
    """Whether Karpenter created the claim from the Workspace's pool, which may not exist any more."""
    return claim.labels.get(labels.NODEPOOL) == node_pool_name(workspace)


def permits_drift(pool: NodePool) -> bool:
    """Whether Karpenter may replace a node that differs from the template now."""
    return any(budget.nodes == "1" for budget in pool.spec.disruption.budgets)


def node_pool(
    workspace: Workspace,
    hardware: Hardware,
    settings: WorkspaceSettings,
    *,
    replicas: int,
    may_drift: bool | None = None,
    present: NodePool | None = None,
) -> NodePool:
    """Returns the pool with that number of nodes.

    Args:
        workspace: the owner.
        hardware: the planned nodes.
        settings: of the controller.
        replicas: number of nodes.
        may_drift: whether Karpenter may replace a node that differs from the template. By default it may, except for
            Workspaces of an InferenceSet, which take turns (`steps.drift`).
        present: the pool that exists. Its template keeps its labels: Karpenter replaces every node when they change.
    """
    drifts = not inference_set_name(workspace) if may_drift is None else may_drift
    found = claim_labels(workspace) if present is None else dict(present.spec.template.metadata.labels)
    node_class = settings.node_class.reference_for(workspace, settings.cloud)
    template = NodeTemplateSpec(
        node_class_ref=node_class,
        requirements=node_requirements(hardware, settings, node_class),
        taints=claim_taints(),
        expire_after=EXPIRE_NEVER,
    )
    return NodePool(
        metadata=ObjectMeta(
            name=node_pool_name(workspace), labels={**owner_labels(workspace), labels.WORKSPACE_UID: workspace.uid}
        ),
        spec=NodePoolSpec(
            replicas=replicas,
            limits={NODES: Quantity(replicas + SURGE)},
            template=NodeTemplate(metadata=NodeTemplateMetadata(labels=found), spec=template),
            disruption=Disruption(
                consolidation_policy="WhenEmpty",
                consolidate_after="Never",
                budgets=[
                    DisruptionBudget(nodes=str(int(drifts)), reasons=["Drifted"]),
                    DisruptionBudget(nodes="0", reasons=["Empty", "Underutilized"]),
                ],
            ),
        ),
    )
