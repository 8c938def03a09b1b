"""Types of the validation rules, and the controller's settings that they depend on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Self, final

from kaito.api.violation import Violation
from kaito.api.workspace.kind import Workspace

NodeApi = Literal["machine", "nodeclaim", "karpenter", "byo"]
"""What requests nodes (`--node-api`): Machine, NodeClaim, Karpenter's NodePool, or nothing with
existing nodes ("bring your own")."""


@final
@dataclass(frozen=True, slots=True)
class Policy:
    """Settings of the controller that the rules depend on."""

    node_api: NodeApi = "machine"
    """Kind of node claim."""

    in_cluster_data_urls: bool = False
    """Whether tuning data may be downloaded from addresses inside the cluster (`--allow-in-cluster-data-urls`)."""

    named_node_classes: bool = False
    """Whether node classes of the configured kind are objects with names (`--karpenter-node-class-kind`)."""

    cloud: Literal["azure", "aws", "arc"] = "azure"
    """Cloud whose zones are named."""

    region: str = ""
    """Region in which nodes are created (`--region`); empty if it is not known."""

    zones_need_region: bool = False
    """Whether the zones of Azure's Karpenter provider, which contain the region, cannot be completed by a number."""


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for one state of a Workspace, with a name for docs and tests."""

    name: str
    check: Callable[[Workspace, Policy], Iterator[Violation]]

    @classmethod
    def always(cls, name: str, check: Callable[[Workspace], Iterator[Violation]]) -> Self:
        """Returns a rule that does not depend on the policy."""
        return cls(name, lambda workspace, _: check(workspace))


@final
@dataclass(frozen=True, slots=True)
class TransitionRule:
    """A rule for the change from an old to a new state, with a name for docs and tests."""

    name: str
    check: Callable[[Workspace, Workspace], Iterator[Violation]]
