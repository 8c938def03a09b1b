"""What Machine and NodeClaim have in common: a request for one node, cluster-scoped.

Controllers that serve both kinds (`--node-api machine|nodeclaim`) are written against `Claim`; the differences are
the condition names (`stages`) and the few fields of the subclasses.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from kaito.api import labels
from kaito.api.karpenter import conditions
from kaito.api.schema import LabelKey, LabelValue
from kaito.runtime.meta import Condition, Model, Quantity, Resource, find_condition

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Gte", "Lte"]
Effect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class Taint(Model):
    """A taint the node carries; pods without a matching toleration stay away."""

    key: LabelKey
    """Taint key, for example `sku`."""

    value: LabelValue = ""
    """Taint value."""

    effect: Effect
    """What happens to pods that do not tolerate it."""

    time_added: str | None = None
    """When the taint was added; written by the node controller for NoExecute."""

    def __str__(self) -> str:
        """`key=value:effect`, as `kubectl taint` writes it."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"

    def matches(self, other: Self) -> bool:
        """Whether it is the same taint to the scheduler: key and effect, not the value."""
        return self.key == other.key and self.effect == other.effect


class Requirement(Model):
    """A constraint on a label of the node to be made."""

    key: LabelKey
    """Label key, for example `node.kubernetes.io/instance-type`."""

    operator: Operator
    """How the label relates to the values."""

    values: Annotated[
        list[LabelValue], Field(json_schema_extra={"maxItems": 256, "x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list[str])
    """Values for `In` and `NotIn`; one number for `Gt` and `Lt`; none for `Exists` and `DoesNotExist`."""

    min_values: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 50})] | None = None
    """At least so many of the values must be offered. Read by Karpenter only."""

    @classmethod
    def is_in(cls, key: str, *values: str) -> Self:
        """The requirement that the label has one of the values."""
        return cls(key=key, operator="In", values=list(values))


class ResourceRequirements(Model):
    """What the node must offer at least."""

    requests: dict[str, Quantity] = Field(default_factory=dict[str, Quantity])
    """Amounts by resource name; `storage` is the size of the operating system disk."""


class ClaimSpec(Model):
    """The node that is asked for."""

    taints: Annotated[list[Taint], Field(json_schema_extra={"maxItems": 50, "x-kubernetes-list-type": "atomic"})] = (
        Field(default_factory=list[Taint])
    )
    """Taints the node carries for its whole life."""

    startup_taints: Annotated[
        list[Taint], Field(json_schema_extra={"maxItems": 50, "x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list[Taint])
    """Taints the node starts with; something else removes them before the node counts as initialized."""

    requirements: Annotated[
        list[Requirement], Field(json_schema_extra={"maxItems": 100, "x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list[Requirement])
    """Constraints on the node's labels; the instance type is one of them."""

    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
    """Least amounts the node must offer."""

    def values(self, key: str) -> tuple[str, ...]:
        """The values that `In` requirements allow for a label; empty when there is no such requirement.

        Several requirements on one label must all hold, so the values are what they share, in the first one's order.
        """
        lists = [r.values for r in self.requirements if r.key == key and r.operator == "In"]
        return tuple(value for value in lists[0] if all(value in other for other in lists[1:])) if lists else ()


class ClaimStatus(Model):
    """What became of the request."""

    node_name: str = ""
    """Name of the node, once it has registered."""

    provider_id: str = Field(default="", validation_alias="providerID", serialization_alias="providerID")
    """The cloud's id of the machine, equal to the node's `spec.providerID`."""

    image_id: str = Field(default="", validation_alias="imageID", serialization_alias="imageID")
    """The operating system image of the machine, when the cloud tells."""

    capacity: dict[str, Quantity] = Field(default_factory=dict[str, Quantity])
    """The node's capacity as last seen."""

    allocatable: dict[str, Quantity] = Field(default_factory=dict[str, Quantity])
    """What of it pods can use."""

    conditions: list[Condition] = Field(default_factory=list[Condition])
    """Stages of the request, and their root `Ready`."""


class Claim(Resource):
    """A request for one node: a Machine or a NodeClaim. Not a kind of its own."""

    stages: ClassVar[conditions.Stages]
    """The kind's names for launched, registered, initialized."""

    spec: ClaimSpec
    """The node that is asked for."""

    status: ClaimStatus = Field(default_factory=ClaimStatus)
    """What became of it."""

    @property
    def instance_type(self) -> str:
        """The instance type asked for when the requirements leave exactly one, else empty."""
        values = self.spec.values(labels.INSTANCE_TYPE)
        return values[0] if len(values) == 1 else ""

    @property
    def owner(self) -> tuple[str, str]:
        """Namespace and name of the Workspace it belongs to; empty strings when it belongs to none."""
        return self.labels.get(labels.WORKSPACE_NAMESPACE, ""), self.labels.get(labels.WORKSPACE, "")

    @property
    def is_ready(self) -> bool:
        """Whether the node is there and usable. Without a `Ready` condition (old provisioners) a node name counts."""
        ready = self.condition(conditions.READY)
        return ready.is_true if ready else bool(self.status.node_name)

    def condition(self, condition_type: str) -> Condition | None:
        """The condition of that type, if present."""
        return find_condition(self.status.conditions, condition_type)

    def blocking_condition(self) -> Condition | None:
        """The condition that says best why the claim is not ready: the first stage that is not True and has words.

        A stage that only awaits its turn counts when nothing better is there. None when ready or nothing is known.
        """
        waiting = [c for c in map(self.condition, self.stages) if c and not c.is_true and (c.message or c.reason)]
        speaking = [c for c in waiting if c.reason != conditions.AWAITING_RECONCILIATION]
        return next(iter(speaking or waiting), None)

    def blocking_termination_condition(self) -> Condition | None:
        """What blocks the deletion of a claim: the last stage of its termination that is not done and has a message.

        The instance comes before volumes and pods: when the cloud refuses to delete it, the others are done. None when
        the claim is not being deleted, or no stage has a message.
        """
        if not self.deleting:
            return None
        stages = (conditions.INSTANCE_TERMINATING, conditions.VOLUMES_DETACHED, conditions.DRAINED)
        waiting = [c for c in map(self.condition, stages) if c and not c.is_true and c.message]
        speaking = [c for c in waiting if c.reason != conditions.AWAITING_RECONCILIATION]
        return next(iter(speaking), None)
