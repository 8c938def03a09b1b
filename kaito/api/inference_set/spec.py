"""`spec` of an InferenceSet: the number of Workspaces, their template, and how a change reaches them."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kaito.api.schema import RawObject
from kaito.api.workspace.inference import InferenceSpec
from kaito.api.workspace.preset import PresetSpec
from kaito.api.workspace.resource import (
    AMOUNT_RULE,
    INSTANCE_TYPE_LIMIT,
    LABEL_VALUE,
    MAX_ALTERNATIVES,
    ZONE_PATTERN,
    CapacityTypeChoice,
    NodeSelector,
    Partition,
)
from kaito.api.workspace.scaling import Autoscaling
from kaito.runtime.crd import Rule
from kaito.runtime.meta import IntOrString, Model

MAX_REPLICAS = 1000
"""Maximum number of Workspaces of one InferenceSet."""


def _of_one_state(rules: Iterable[Rule]) -> list[Rule]:
    """Returns the rules of a field of Workspaces without those about its changes: a set replaces its Workspaces."""
    return [rule for rule in rules if "oldSelf" not in rule.rule]


class TemplateSelector(NodeSelector):
    """Labels of the nodes of all Workspaces of the set; see `resource.labelSelector` of a Workspace. A change replaces
    the Workspaces."""

    rules: ClassVar = _of_one_state(NodeSelector.rules)


class TemplatePreset(PresetSpec):
    """A model, by its name in the catalog or its Hugging Face ID. A change of the model replaces the Workspaces."""

    rules: ClassVar = _of_one_state(PresetSpec.rules)


class TemplateInference(InferenceSpec):
    """The model to serve; see `inference` of a Workspace. Exactly one of `preset` and `template`."""

    rules: ClassVar = _of_one_state(InferenceSpec.rules)

    preset: TemplatePreset | None = None  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen: never written
    """The model to serve. A change of the model replaces the Workspaces."""


class TemplateResource(Model):
    """The nodes of each Workspace."""

    rules: ClassVar = [AMOUNT_RULE]

    instance_type: Annotated[
        str, Field(json_schema_extra={"maxLength": INSTANCE_TYPE_LIMIT, "pattern": LABEL_VALUE})
    ] = ""
    """The cloud's name of the instance type; see `resource.instanceType` of a Workspace. A change replaces the
    Workspaces."""

    instance_types: Annotated[
        list[
            Annotated[
                str,
                Field(json_schema_extra={"minLength": 1, "maxLength": INSTANCE_TYPE_LIMIT, "pattern": LABEL_VALUE}),
            ]
        ],
        Field(json_schema_extra={"maxItems": MAX_ALTERNATIVES, "x-kubernetes-list-type": "atomic"}),
    ] = Field(default_factory=list[str])
    """Alternatives in order, of which each Workspace uses one; see `resource.instanceTypes` of a Workspace."""

    capacity_type: CapacityTypeChoice | None = None
    """`on-demand` (the default), `spot`, or `spot-preferred`; see `resource.capacityType` of a Workspace."""

    zones: Annotated[
        list[Annotated[str, Field(json_schema_extra={"maxLength": 63, "pattern": ZONE_PATTERN})]],
        Field(json_schema_extra={"maxItems": 16, "uniqueItems": True}),
    ] = Field(default_factory=list[str])
    """Availability zones of new nodes; see `resource.zones` of a Workspace."""

    max_hourly_cost: Annotated[str, Field(json_schema_extra={"maxLength": 16})] | None = None
    """The most that the nodes of each Workspace may cost per hour; see `resource.maxHourlyCost` of a Workspace. The
    annotation `kaito.sh/hourly-budget` of the namespace limits all of them together."""

    partition: Partition | None = None
    """Use a part of a node's GPUs; see `resource.partition` of a Workspace. With mode mig on new nodes, each Workspace
    has a copy on every slice of one node."""


class WorkspaceTemplate(Model):
    """The Workspaces of the set. Each serves one copy of the model on its own nodes, or one on each slice of a node
    whose GPUs are divided."""

    metadata: RawObject = Field(default_factory=dict)
    """`labels` and `annotations` of the Workspaces; nothing else."""

    resource: TemplateResource = Field(default_factory=TemplateResource)
    """The nodes of each Workspace."""

    inference: TemplateInference
    """The model to serve."""


class RollingUpdate(Model):
    """Bounds of a rolling update."""

    rules: ClassVar = [
        Rule(
            "!has(self.partition) || self.partition == 0",
            "is not supported: remove it; type OnDelete keeps Workspaces with the old template until you delete them",
            field_path=".partition",
        ),
    ]

    max_unavailable: IntOrString = 1
    """Number, or percentage (rounded up) of `replicas`, of Workspaces that may be unavailable because of the update. 0
    updates only with new Workspaces, also for changes that a Workspace could take in place."""

    max_surge: IntOrString = 1
    """Number, or percentage (rounded up) of `replicas`, of Workspaces above `replicas`, with nodes of their own, while
    Workspaces are replaced. 0 deletes an old Workspace before the new one is created, within `maxUnavailable`."""

    partition: int = 0
    """A field of StatefulSets. Only 0."""


class UpdateStrategy(Model):
    """How a change of the template reaches the Workspaces."""

    rules: ClassVar = [
        Rule(
            "self.type == 'RollingUpdate' || !has(self.rollingUpdate)",
            "belongs to type RollingUpdate: remove it",
            field_path=".rollingUpdate",
        ),
    ]

    type: Literal["RollingUpdate", "OnDelete"] = "RollingUpdate"
    """`RollingUpdate` changes a Workspace in place where a Workspace allows the change, and replaces it otherwise: a
    new one serves before an old one is deleted. `OnDelete` uses the new template only for new Workspaces."""

    rolling_update: RollingUpdate | None = None
    """Bounds of type RollingUpdate."""


class MaintenanceWindow(Model):
    """Times at which upgrades start."""

    schedule: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 256})]
    """Start of the window: a cron expression with five fields, in UTC, for example `0 2 * * 6`."""

    duration: Annotated[str, Field(json_schema_extra={"maxLength": 32})] = "4h"
    """Length of the window, for example `4h` or `90m`. An upgrade that has started may finish later."""


class AutoUpgrade(Model):
    """Upgrades of the Workspaces to the images of a new release of the controller."""

    enabled: bool = False
    """Whether Workspaces follow the release of the controller. Without it, their pods stay as an earlier release
    rendered them until the template changes."""

    strategy: Literal["InPlace", "Surge"] = "InPlace"
    """`InPlace` restarts the pods of Workspaces, within `rollingUpdate.maxUnavailable`; `Surge` replaces each Workspace
    by a new one, with `rollingUpdate.maxSurge` at a time."""

    maintenance_window: MaintenanceWindow | None = None
    """When upgrades may start; at any time by default."""


class InferenceSetSpec(Model):
    """The desired state."""

    replicas: Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": MAX_REPLICAS, "format": "int32"})] = 1
    """Number of Workspaces. `kubectl scale`, HorizontalPodAutoscalers and KEDA write it. 0 deletes all of them and
    their nodes."""

    node_count_limit: Annotated[int, Field(json_schema_extra={"minimum": 0, "format": "int32"})] = 0
    """Maximum number of nodes of all Workspaces together, also while they are replaced. 0: not limited."""

    autoscaling: Autoscaling | None = None
    """Limits of the number of Workspaces, and scaling by load: the controller writes `replicas`. A Workspace of the set
    is a copy. `minReplicas` 0 and `idleSeconds` are only for Workspaces without a set."""

    label_selector: Annotated[TemplateSelector, Field(json_schema_extra={"x-kubernetes-map-type": "atomic"})]
    """Labels of the nodes: `resource.labelSelector` of each Workspace."""

    update_strategy: UpdateStrategy = Field(
        default_factory=lambda: UpdateStrategy(type="RollingUpdate", rolling_update=RollingUpdate(max_unavailable=1)),
        json_schema_extra={"default": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}},
    )
    """How a change of the template reaches the Workspaces."""

    auto_upgrade: AutoUpgrade | None = None
    """Upgrades to the images of a new release of the controller."""

    template: WorkspaceTemplate
    """The Workspaces to create."""
