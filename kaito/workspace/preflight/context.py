"""Context of the preflight checks of one Workspace, and the interface through which the checks read the cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from kaito.api import Workspace
from kaito.models.engine import DEFAULT_ENGINE, EngineSettings
from kaito.models.gpu import InstanceType
from kaito.models.preset import Preset
from kaito.runtime.kinds import ConfigMap, Job, Node, PersistentVolumeClaim, Secret, ServiceAccount, StatefulSet
from kaito.workspace.alternatives import Choice, SelectionInputs
from kaito.workspace.classes import ClassKind, PriorityClass, RuntimeClass
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.record import FactsRecord
from kaito.workspace.measurements import MeasurementRecord
from kaito.workspace.plan import Plan
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.weights import WeightsChoice

Workload = StatefulSet | Job


class LookupUnavailable(Exception):
    """An object cannot be looked up, because a tool runs without a cluster. The check is skipped."""


class ClusterReader(Protocol):
    """Reads what the checks need besides the Workspace. Each method may raise `LookupUnavailable`."""

    async def config_map(self, name: str) -> ConfigMap | None:
        """Returns a ConfigMap of the Workspace's namespace; None if it does not exist."""
        ...

    async def secret(self, name: str) -> Secret | None:
        """Returns a Secret of the Workspace's namespace; None if it does not exist."""
        ...

    async def volume_claim(self, name: str) -> PersistentVolumeClaim | None:
        """Returns a PersistentVolumeClaim of the Workspace's namespace; None if it does not exist."""
        ...

    async def service_account(self, name: str) -> ServiceAccount | None:
        """Returns a ServiceAccount of the Workspace's namespace; None if it does not exist."""
        ...

    async def named_class(self, kind: ClassKind, name: str) -> PriorityClass | RuntimeClass | None:
        """Returns a class that pods name; None if it does not exist."""
        ...

    async def kept_facts(self, reference: str) -> FactsRecord | None:
        """Returns the facts that the controller keeps for the Workspace; None if there are none for this model."""
        ...

    async def foreign_config_map(self, name: str) -> ConfigMap | None:
        """Returns a ConfigMap of that name that the Workspace does not control; it may lack its data.

        The controller must not write to it: with an owner reference it would be deleted with the Workspace.
        """
        ...

    async def model_facts(self, query: ModelQuery) -> FactsRecord | None:
        """Returns the facts of a model from its artifact or from Hugging Face; None while they are being read.

        Raises:
            ModelUnavailable: they cannot be read.
        """
        ...

    async def measurements(self) -> Sequence[MeasurementRecord]:
        """Returns what servers measured when they started, of all models."""
        ...

    async def existing_nodes(self) -> Sequence[Node]:
        """Returns the nodes that the Workspace's selector matches."""
        ...

    async def own_nodes(self) -> Sequence[Node]:
        """Returns the nodes that the Workspace has so far."""
        ...

    async def server_version(self) -> Mapping[str, Any]:
        """Returns the version of the API server: the content of `GET /version`."""
        ...

    async def present_workload(self) -> Workload | None:
        """Returns the workload of the Workspace; None if it does not exist or has another controller."""
        ...

    async def find_rejection(self, workload: Workload) -> Finding | None:
        """Returns why the API server would reject the workload; None if it accepts it."""
        ...


@final
@dataclass(slots=True)
class PreflightContext:
    """What is known about a Workspace so far. A check may use what earlier checks filled in."""

    workspace: Workspace
    settings: WorkspaceSettings
    cluster: ClusterReader
    selection: SelectionInputs = field(default_factory=SelectionInputs)
    """What the choice of an instance type depends on besides the Workspace."""
    preset: Preset | None = None
    """None for a pod template."""
    facts: FactsRecord | None = None
    """Facts of a model outside the catalog."""
    instance: InstanceType | None = None
    """None for a pod template on an instance type that the table does not contain."""
    nodes: Sequence[Node] = ()
    """The existing nodes (`--node-api byo`); empty if nodes are claimed."""
    config: ConfigMap | None = None
    """The ConfigMap that the Workspace names."""
    engine: EngineSettings = DEFAULT_ENGINE
    """The engine settings in that ConfigMap."""
    weights: WeightsChoice | None = None
    """Source of the weights; None for a pod template."""
    choice: Choice | None = None
    """The chosen alternative of `resource.instanceTypes`; `workspace` then names only this one."""
    plan: Plan | None = None
    workload: Workload | None = None
    """The workload as it would be applied."""
    findings: list[Finding] = field(default_factory=list[Finding])
    """Warnings of all checks, and the errors of the first check that has errors."""

    @property
    def errors(self) -> list[Finding]:
        """Findings that prevent a plan."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that do not prevent a plan."""
        return [finding for finding in self.findings if finding.severity == "warning"]
