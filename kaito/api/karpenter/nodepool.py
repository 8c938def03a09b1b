"""NodePool, `karpenter.sh/v1`: the fields that Kaito writes and reads. Karpenter owns the definition of the kind."""

from typing import Final

from pydantic import Field

from kaito.api.karpenter.claim import Requirement, Taint
from kaito.api.karpenter.nodeclaim import NodeClassRef
from kaito.runtime.meta import Condition, Model, Quantity, Resource, find_condition

NODES: Final = "nodes"
"""Key of `limits` for the number of nodes."""


class NodeTemplateMetadata(Model):
    """Labels and annotations of the NodeClaims. Karpenter copies the labels to the nodes."""

    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels of NodeClaims and nodes."""

    annotations: dict[str, str] = Field(default_factory=dict[str, str])
    """Annotations of NodeClaims and nodes."""


class NodeTemplateSpec(Model):
    """Desired properties of the nodes."""

    node_class_ref: NodeClassRef
    """Node class of the nodes."""

    requirements: list[Requirement] = Field(default_factory=list[Requirement])
    """Constraints on the nodes' labels; the instance type is one of them."""

    taints: list[Taint] = Field(default_factory=list[Taint])
    """Permanent taints of the nodes."""

    expire_after: str | None = None
    """Maximum lifetime of a node, or `Never`."""


class NodeTemplate(Model):
    """Template of the NodeClaims."""

    metadata: NodeTemplateMetadata = Field(default_factory=NodeTemplateMetadata)
    """Labels and annotations."""

    spec: NodeTemplateSpec
    """Desired properties of the nodes."""


class DisruptionBudget(Model):
    """How many nodes Karpenter may replace or delete at the same time."""

    nodes: str
    """Number, or percentage."""

    reasons: list[str] = Field(default_factory=list[str])
    """`Drifted`, `Empty` and `Underutilized`; empty for all."""


class Disruption(Model):
    """When Karpenter replaces or deletes nodes of the pool."""

    consolidation_policy: str | None = None
    """Which nodes consolidation may delete."""

    consolidate_after: str | None = None
    """Time after which consolidation may delete a node, or `Never`."""

    budgets: list[DisruptionBudget] = Field(default_factory=list[DisruptionBudget])
    """Limits; the smallest one for a reason applies."""


class NodePoolSpec(Model):
    """Desired nodes."""

    replicas: int | None = None
    """Number of nodes. A pool with it is static: pods that wait for a node do not change it."""

    template: NodeTemplate
    """Template of the NodeClaims. A change replaces the nodes (drift)."""

    disruption: Disruption = Field(default_factory=Disruption)
    """When nodes are replaced or deleted."""

    limits: dict[str, Quantity] = Field(default_factory=dict[str, Quantity])
    """Maximum resources of the pool; `nodes` for a static pool."""


class NodePoolStatus(Model):
    """Observed state of the pool."""

    conditions: list[Condition] = Field(default_factory=list[Condition])
    """`ValidationSucceeded`, `NodeClassReady`, and their summary `Ready`."""


class NodePool(Resource, api="karpenter.sh/v1", kind="NodePool", namespaced=False):
    """Nodes with the same template (Karpenter v1)."""

    spec: NodePoolSpec
    """Desired nodes."""

    status: NodePoolStatus = Field(default_factory=NodePoolStatus)
    """Observed state of the pool."""

    def condition(self, kind: str) -> Condition | None:
        """Returns a condition; None if Karpenter has not reported it."""
        return find_condition(self.status.conditions, kind)
