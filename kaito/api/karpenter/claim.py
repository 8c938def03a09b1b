"""The common base of Machine and NodeClaim: a cluster-scoped claim of one node.

Controllers that serve both kinds (`--node-api machine|nodeclaim`) use `Claim`. The kinds differ in the condition types
(`stages`) and in a few fields.
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
    """A taint of the node. Pods without a matching toleration are not scheduled on it."""

    key: LabelKey
    """Taint key, for example `sku`."""

    value: LabelValue = ""
    """Taint value."""

    effect: Effect
    """Effect on pods that do not tolerate the taint."""

    time_added: str | None = None
    """When the taint was added; written by the node controller for NoExecute."""

    def __str__(self) -> str:
        """`key=value:effect`, as `kubectl taint` writes it."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"

    def matches(self, other: Self) -> bool:
        """Whether both taints have the same key and effect, which identify a taint."""
        return self.key == other.key and self.effect == other.effect


class Requirement(Model):
    """A constraint on a label of the node."""

    key: LabelKey
    """Label key, for example `node.kubernetes.io/instance-type`."""

    operator: Operator
    """Relation between the label and the values."""

    values: Annotated[
        list[LabelValue], Field(json_schema_extra={"maxItems": 256, "x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list[str])
    """Values for `In` and `NotIn`; one number for `Gt` and `Lt`; none for `Exists` and `DoesNotExist`."""

    min_values: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 50})] | None = None
    """Minimum number of values that must be available. Used by Karpenter only."""

    @classmethod
    def is_in(cls, key: str, *values: str) -> Self:
        """Returns the requirement that the label has one of the values."""
        return cls(key=key, operator="In", values=list(values))


class ResourceRequirements(Model):
    """Resources that the node must have."""

    requests: dict[str, Quantity] = Field(default_factory=dict[str, Quantity])
    """Amounts by resource name; `storage` is the size of the operating system disk."""


class ClaimSpec(Model):
    """Desired properties of the node."""

    taints: Annotated[list[Taint], Field(json_schema_extra={"maxItems": 50, "x-kubernetes-list-type": "atomic"})] = (
        Field(default_factory=list[Taint])
    )
    """Permanent taints of the node."""

    startup_taints: Annotated[
        list[Taint], Field(json_schema_extra={"maxItems": 50, "x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list[Taint])
    """Taints that the node starts with. Another component removes them before the node is initialized."""

    requirements: Annotated[
        list[Requirement], Field(json_schema_extra={"maxItems": 100, "x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list[Requirement])
    """Constraints on the node's labels, including the instance type."""

    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
    """Minimum resources of the node."""

    def values(self, key: str) -> tuple[str, ...]:
        """Returns the values that `In` requirements allow for a label; empty if there is no such requirement.

        If several requirements name the label, only the values that all of them contain are returned.
        """
        lists = [r.values for r in self.requirements if r.key == key and r.operator == "In"]
        return tuple(value for value in lists[0] if all(value in other for other in lists[1:])) if lists else ()


class ClaimStatus(Model):
    """Observed state of the claim."""

    node_name: str = ""
    """Name of the node; set when it registers."""

    provider_id: str = Field(default="", validation_alias="providerID", serialization_alias="providerID")
    """The cloud's ID of the instance, equal to the node's `spec.providerID`."""

    image_id: str = Field(default="", validation_alias="imageID", serialization_alias="imageID")
    """Operating system image of the instance, if the cloud reports it."""

    capacity: dict[str, Quantity] = Field(default_factory=dict[str, Quantity])
    """The node's capacity."""

    allocatable: dict[str, Quantity] = Field(default_factory=dict[str, Quantity])
    """The part of the capacity that pods can use."""

    conditions: list[Condition] = Field(default_factory=list[Condition])
    """Stages of the claim, and their summary `Ready`."""


class Claim(Resource):
    """A claim of one node: the abstract base of Machine and NodeClaim."""

    stages: ClassVar[conditions.Stages]
    """Condition types of the stages launched, registered and initialized."""

    spec: ClaimSpec
    """Desired properties of the node."""

    status: ClaimStatus = Field(default_factory=ClaimStatus)
    """Observed state of the claim."""

    @property
    def instance_type(self) -> str:
        """The requested instance type if the requirements allow exactly one, else empty."""
        values = self.spec.values(labels.INSTANCE_TYPE)
        return values[0] if len(values) == 1 else ""

    @property
    def owner(self) -> tuple[str, str]:
        """Namespace and name of the Workspace that the claim belongs to; empty strings if there is none."""
        return self.labels.get(labels.WORKSPACE_NAMESPACE, ""), self.labels.get(labels.WORKSPACE, "")

    @property
    def is_ready(self) -> bool:
        """Whether the claim is Ready. Without that condition (old provisioners), whether it has a node name."""
        ready = self.condition(conditions.READY)
        return ready.is_true if ready else bool(self.status.node_name)

    @property
    def is_drifted(self) -> bool:
        """Whether Karpenter reports that the node differs from its NodePool or node class."""
        drifted = self.condition(conditions.DRIFTED)
        return drifted is not None and drifted.is_true

    def condition(self, condition_type: str) -> Condition | None:
        """Returns the condition of a type, if it exists."""
        return find_condition(self.status.conditions, condition_type)

    def blocking_condition(self) -> Condition | None:
        """Returns the first stage that is not True and has a reason or message; None if there is none.

        A stage that has not been reconciled yet is returned only if there is no other.
        """
        not_true = [c for c in map(self.condition, self.stages) if c and not c.is_true and (c.message or c.reason)]
        with_cause = [c for c in not_true if c.reason != conditions.AWAITING_RECONCILIATION]
        return next(iter(with_cause or not_true), None)

    def blocking_termination_condition(self) -> Condition | None:
        """Returns the last stage of the claim's termination that is not complete and has a message.

        The instance is checked before volumes and pods: if the cloud rejects its deletion, the other stages are
        complete. Returns None if the claim is not being deleted, or no stage has a message.
        """
        if not self.deleting:
            return None
        stages = (conditions.INSTANCE_TERMINATING, conditions.VOLUMES_DETACHED, conditions.DRAINED)
        not_true = [c for c in map(self.condition, stages) if c and not c.is_true and c.message]
        return next((c for c in not_true if c.reason != conditions.AWAITING_RECONCILIATION), None)
