"""`workspace.resource`: the nodes that a Workspace needs, and the labels that select them."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from kaito.api import labels
from kaito.api.schema import LabelKey, LabelValue, ObjectName
from kaito.api.workspace.node_count import MAX_NODE_COUNT
from kaito.runtime.crd import Rule
from kaito.runtime.meta import LabelSelector, LabelSelectorRequirement, Model, Operator

LABEL_VALUE = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
"""Pattern of a label value."""

INSTANCE_TYPE_LIMIT = 63
"""Longest instance type: the value of the node label `node.kubernetes.io/instance-type`."""


ZONE_PATTERN = "^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$"

MAX_ALTERNATIVES = 16
"""Most entries of `instanceTypes`."""

CapacityTypeChoice = Literal["on-demand", "spot", "spot-preferred"]

_RESERVED = ", ".join(f"'{key}'" for key in sorted(labels.RESERVED_KEYS))
_FREE_KEY = f"!(k in [{_RESERVED}]) && " + " && ".join(
    f"!k.startsWith('{domain}/')" for domain in labels.RESERVED_DOMAINS
)
"""CEL expression: the label key `k` is not reserved. The same rule as `labels.is_reserved`."""


class NodeSelectorRequirement(LabelSelectorRequirement):
    """A requirement for a node label."""

    rules: ClassVar = [
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "operators In and NotIn need at least one value, Exists and DoesNotExist none",
            field_path=".values",
        ),
    ]

    key: LabelKey
    """Label key."""

    operator: Operator
    """`In` and `NotIn` compare the label with the values; `Exists` and `DoesNotExist` check only the key."""

    values: Annotated[list[LabelValue], Field(json_schema_extra={"maxItems": 16})] = Field(default_factory=list[str])
    """Values for `In` and `NotIn`; empty for `Exists` and `DoesNotExist`."""


class NodeSelector(LabelSelector):
    """Labels of the Workspace's nodes. New nodes are created with `matchLabels`. A node belongs to the Workspace only
    if it matches all labels and expressions. Must not be empty."""

    rules: ClassVar = [
        Rule(
            "(has(self.matchLabels) && size(self.matchLabels) > 0) || "
            "(has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            "is empty and would match every node: add a label, for example matchLabels: {apps: my-model}",
        ),
        Rule(
            f"!has(self.matchLabels) || self.matchLabels.all(k, {_FREE_KEY})",
            "has a label key reserved for the controllers: use one of your own, for example apps",
            field_path=".matchLabels",
        ),
        Rule(
            f"!has(self.matchExpressions) || self.matchExpressions.map(e, e.key).all(k, {_FREE_KEY})",
            "has a label key reserved for the controllers: use one of your own, for example apps",
            field_path=".matchExpressions",
        ),
        Rule("self == oldSelf", "cannot be changed: delete the Workspace and create a new one"),
    ]

    match_labels: Annotated[dict[str, LabelValue], Field(json_schema_extra={"maxProperties": 32})] = Field(
        default_factory=dict[str, str]
    )
    """Labels with their values. Keys in `karpenter.sh`, and keys in `kaito.sh` that the controllers own, are
    reserved."""

    match_expressions: Annotated[list[NodeSelectorRequirement], Field(json_schema_extra={"maxItems": 16})] = Field(  # type: ignore[assignment]  # list of a narrower requirement; never written to
        default_factory=list[NodeSelectorRequirement]
    )
    """Further requirements for the labels."""


class Partition(Model):
    """A part of a node's GPUs for each copy, instead of the whole node."""

    rules: ClassVar = [
        Rule(
            "self.mode != 'mig' || (has(self.profile) && !has(self.count))",
            "mode mig needs a profile such as 1g.10gb and no count",
        ),
        Rule(
            "self.mode != 'accelerator' || (has(self.count) && !has(self.profile))",
            "mode accelerator needs the count of GPUs and no profile",
        ),
    ]

    mode: Literal["mig", "accelerator"]
    """`mig` uses one slice of a GPU with Multi-Instance GPU; `accelerator` uses `count` whole GPUs of an existing
    node."""

    profile: Annotated[str, Field(json_schema_extra={"maxLength": 16})] | None = None
    """MIG profile such as `1g.10gb`. Required with mode `mig`, and not allowed otherwise."""

    count: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 64})] | None = None
    """Number of GPUs. Required with mode `accelerator`, and not allowed otherwise."""


AMOUNT_RULE: Final = Rule(
    "!has(self.maxHourlyCost) || self.maxHourlyCost.matches('^[0-9]{1,7}([.][0-9]{1,4})?$')",
    "is not an amount of money: use a decimal number as text, such as '12.50', without a currency",
    field_path=".maxHourlyCost",
)
"""A rule and not a pattern, because the message of a pattern contains no remedy."""


class ResourceSpec(Model):
    """The nodes that a Workspace needs."""

    rules: ClassVar = [
        Rule(
            "!has(oldSelf.instanceType) || oldSelf.instanceType == '' || !has(self.instanceType) || "
            "self.instanceType == '' || self.instanceType == oldSelf.instanceType",
            "cannot be changed once set: delete the Workspace and create a new one",
            field_path=".instanceType",
        ),
        Rule(
            "!has(self.instanceType) || self.instanceType == '' || !has(self.instanceTypes) || "
            "size(self.instanceTypes) == 0",
            "instanceType and instanceTypes are both set: remove one",
            field_path=".instanceTypes",
        ),
        Rule(
            "!has(self.instanceTypes) || "
            "self.instanceTypes.all(a, self.instanceTypes.exists_one(b, b.lowerAscii() == a.lowerAscii()))",
            "names an instance type twice: remove one of them",
            field_path=".instanceTypes",
        ),
        AMOUNT_RULE,
        Rule(
            "!has(self.onDemandCopies) || (has(self.capacityType) && self.capacityType == 'spot-preferred')",
            "is only for capacityType spot-preferred, whose other copies are on spot nodes: set it, or remove this",
            field_path=".onDemandCopies",
        ),
        Rule(
            "has(self.partition) == has(oldSelf.partition) && "
            "(!has(self.partition) || self.partition == oldSelf.partition)",
            "cannot be added, changed or removed: delete the Workspace and create a new one",
            field_path=".partition",
        ),
    ]

    count: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": MAX_NODE_COUNT, "format": "int32"})] = 1
    """Number of copies of the model while `spec.replicas` is not set. Each serves a part of the requests, on one node,
    or on as many as the model needs; tuning runs on one node. A change also sets `spec.replicas`."""

    instance_type: Annotated[
        str, Field(json_schema_extra={"maxLength": INSTANCE_TYPE_LIMIT, "pattern": LABEL_VALUE})
    ] = ""
    """The cloud's name of the instance type, for example `Standard_NC24ads_A100_v4`. Either this field or
    `instanceTypes` is required, except with existing nodes (`--node-api byo`), where both must be empty. Cannot be
    changed once set, but can be replaced by `instanceTypes`."""

    instance_types: Annotated[
        list[
            Annotated[
                str,
                Field(json_schema_extra={"minLength": 1, "maxLength": INSTANCE_TYPE_LIMIT, "pattern": LABEL_VALUE}),
            ]
        ],
        Field(json_schema_extra={"maxItems": MAX_ALTERNATIVES, "x-kubernetes-list-type": "atomic"}),
    ] = Field(default_factory=list[str])
    """Alternatives in order: the first one that the cloud has capacity and quota for is used, for all nodes of the
    Workspace. Each is planned for itself. Nodes that exist keep theirs; see the annotation `kaito.sh/replan`."""

    capacity_type: CapacityTypeChoice | None = None
    """`on-demand` (the default), `spot`, or `spot-preferred`: spot nodes, and on-demand nodes where the cloud has no
    spot capacity. The cloud can evict spot nodes at any time. A change affects only nodes that are created later.
    Must be empty with existing nodes (`--node-api byo`)."""

    on_demand_copies: (
        Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": MAX_NODE_COUNT, "format": "int32"})] | None
    ) = None
    """Copies on on-demand nodes while the others are on spot nodes, so that an eviction does not end them. Only with
    `capacityType: spot-preferred`. A change affects only nodes that are created later."""

    zones: Annotated[
        list[Annotated[str, Field(json_schema_extra={"maxLength": 63, "pattern": ZONE_PATTERN})]],
        Field(json_schema_extra={"maxItems": 16, "uniqueItems": True}),
    ] = Field(default_factory=list[str])
    """Availability zones of new nodes, for example `["1", "2"]` on Azure; empty for any. A change affects only nodes
    that are created later. Must be empty with existing nodes (`--node-api byo`)."""

    max_hourly_cost: Annotated[str, Field(json_schema_extra={"maxLength": 16})] | None = None
    """The most that the Workspace's nodes may cost per hour, for example `"12.50"`, in the currency of the price table.
    Nodes beyond it, or of an unknown price, are not bought; nodes that exist stay. Must be empty with existing nodes
    (`--node-api byo`)."""

    label_selector: Annotated[NodeSelector, Field(json_schema_extra={"x-kubernetes-map-type": "atomic"})]
    """Labels of the Workspace's nodes. Cannot be changed."""

    preferred_nodes: Annotated[list[ObjectName], Field(json_schema_extra={"maxItems": 128})] = Field(
        default_factory=list[str]
    )
    """Names of existing nodes to use before new nodes are created. They must match the label selector."""

    partition: Partition | None = None
    """Use a part of the GPUs of a node for each copy. With mode `mig`, gpu-provisioner divides the GPUs of new nodes on
    Azure, and the copies of the Workspace share these nodes. Existing nodes are shared by as many copies as they have
    such parts for. Cannot be changed."""
