"""NodeClaim, `karpenter.sh/v1`: the claim of current Karpenter."""

import re
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field

from kaito.api.karpenter import conditions
from kaito.api.karpenter.claim import Claim, ClaimSpec, ClaimStatus, Requirement
from kaito.api.object_names import is_subdomain
from kaito.runtime.crd import Rule, rules as field_rules
from kaito.runtime.meta import Model, Time

KAITO_NODE_CLASS_GROUP = "kaito.sh"
KAITO_NODE_CLASS_KIND = "KaitoNodeClass"

NODE_CLASS_KIND_PATTERN: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
"""Form of a node class's kind."""

NODE_CLASS_EXAMPLE: Final = "karpenter.azure.com/AKSNodeClass/default"
"""A reference in messages."""

_REQUIREMENT_RULES = (
    Rule(
        "self.all(x, x.operator != 'In' || (has(x.values) && size(x.values) > 0))",
        "requirements with operator 'In' must have a value defined",
    ),
    Rule(
        "self.all(x, !(x.operator in ['Gt', 'Lt', 'Gte', 'Lte']) || "
        "(has(x.values) && size(x.values) == 1 && x.values[0].matches('^[0-9]+$')))",
        "requirements operator 'Gt', 'Lt', 'Gte' or 'Lte' must have a single positive integer value",
    ),
    Rule(
        "self.all(x, x.operator != 'In' || !has(x.minValues) || (has(x.values) && size(x.values) >= x.minValues))",
        "requirements with 'minValues' must have at least that many values specified in the 'values' field",
    ),
    Rule(
        "self.all(x, x.key in ['karpenter.sh/capacity-type', 'karpenter.sh/nodepool'] || "
        "!x.key.matches('^([^/]*[.])?karpenter[.]sh/'))",
        'label domain "karpenter.sh" is restricted',
    ),
    Rule(
        "self.all(x, x.key != 'kubernetes.io/hostname')",
        'label "kubernetes.io/hostname" is restricted',
    ),
)
"""Rules of Karpenter v1.14, with `has()` where the original fails on absent values without its message."""


class NodeClassRef(Model):
    """Reference to the cloud provider's settings of the node."""

    group: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 253, "pattern": "^[^/]*$"})]
    """API group of the node class; `kaito.sh` for claims that gpu-provisioner fulfills."""

    kind: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 63})]
    """Kind of the node class; `KaitoNodeClass` for claims that gpu-provisioner fulfills."""

    name: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 253})]
    """Name of the node class."""

    def __str__(self) -> str:
        """`group/kind/name`, as the annotation `kaito.sh/node-class` contains it."""
        return f"{self.group}/{self.kind}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the reference that `group/kind/name` denotes.

        Raises:
            ValueError: the text has another form; the message contains the remedy.
        """
        parts = text.strip().split("/")
        if len(parts) != 3:
            raise ValueError(f"{text[:80]!r} is not valid: write group/kind/name, such as {NODE_CLASS_EXAMPLE}")
        group, kind, name = parts
        if not is_subdomain(group):
            raise ValueError(f"{group[:80]!r} is not an API group: write group/kind/name, such as {NODE_CLASS_EXAMPLE}")
        if not NODE_CLASS_KIND_PATTERN.fullmatch(kind):
            raise ValueError(f"{kind[:80]!r} is not a kind: write group/kind/name, such as {NODE_CLASS_EXAMPLE}")
        if not is_subdomain(name):
            raise ValueError(
                f"{name[:80]!r} is not the name of an object: use lower-case letters, digits, dashes and dots"
            )
        return cls(group=group, kind=kind, name=name)


class NodeClaimSpec(ClaimSpec):
    """Desired properties of the node. Cannot be changed."""

    rules: ClassVar = [Rule("self == oldSelf", "spec is immutable")]

    requirements: Annotated[  # pyright: ignore[reportGeneralTypeIssues]  # required here; fields are keyword-only
        list[Requirement],
        Field(json_schema_extra=field_rules(*_REQUIREMENT_RULES, maxItems=100, **{"x-kubernetes-list-type": "atomic"})),
    ]
    """Constraints on the node's labels; the instance type is one of them."""

    node_class_ref: NodeClassRef
    """Node class: determines the provisioner that fulfills the claim, and its settings."""

    termination_grace_period: (
        Annotated[str, Field(json_schema_extra={"maxLength": 32, "pattern": "^([0-9]+(s|m|h))+$"})] | None
    ) = None
    """Time limit for draining, for example `1h`. After it, the remaining pods are deleted. Without it there is no
    limit."""

    expire_after: (
        Annotated[str, Field(json_schema_extra={"maxLength": 32, "pattern": "^(([0-9]+(s|m|h))+|Never)$"})] | None
    ) = None
    """Maximum lifetime of the node, or `Never`. gpu-provisioner does not expire nodes, so there is no default."""


class NodeClaimStatus(ClaimStatus):
    """Observed state of the claim."""

    last_pod_event_time: Time | None = None
    """Written by Karpenter only."""


class NodeClaim(Claim, api="karpenter.sh/v1", kind="NodeClaim", namespaced=False):
    """A claim of one node (Karpenter v1)."""

    stages: ClassVar[conditions.Stages] = conditions.NODE_CLAIM_STAGES

    spec: NodeClaimSpec  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """Desired properties of the node. Cannot be changed."""

    status: NodeClaimStatus = Field(default_factory=NodeClaimStatus)  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """Observed state of the claim."""
