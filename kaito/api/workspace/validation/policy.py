"""What the rules are made of: the controller's settings they depend on, and the shape of a rule."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Self, final

from kaito.api.violation import Violation
from kaito.api.workspace.kind import Workspace

NodeApi = Literal["machine", "nodeclaim", "byo"]
"""Where nodes come from (`--node-api`): Machines, NodeClaims, or existing nodes ("bring your own")."""


@final
@dataclass(frozen=True, slots=True)
class Policy:
    """How the controller was started, as far as the rules depend on it."""

    node_api: NodeApi = "machine"
    """Where nodes come from."""

    in_cluster_data_urls: bool = False
    """Whether tuning data may be downloaded from addresses inside the cluster (`--allow-in-cluster-data-urls`)."""

    partitions: bool = False
    """Whether the controller places workloads on parts of a node's GPUs."""


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: a name for docs and tests, and the check of one state."""

    name: str
    check: Callable[[Workspace, Policy], Iterator[Violation]]

    @classmethod
    def always(cls, name: str, check: Callable[[Workspace], Iterator[Violation]]) -> Self:
        """A rule that holds whatever the policy."""
        return cls(name, lambda workspace, _: check(workspace))


@final
@dataclass(frozen=True, slots=True)
class TransitionRule:
    """One line of the table of changes: a name, and the check of the old against the new state."""

    name: str
    check: Callable[[Workspace, Workspace], Iterator[Violation]]
