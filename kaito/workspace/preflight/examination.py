"""One examination of one Workspace: what the checks share and leave for each other, and what they ask the cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

from kaito.api import Workspace
from kaito.models.engine import NO_OPTIONS, EngineOptions
from kaito.models.gpu import InstanceType
from kaito.models.preset import Preset
from kaito.runtime.kinds import ConfigMap, Job, Node, PersistentVolumeClaim, Secret, ServiceAccount, StatefulSet
from kaito.workspace.plan import Plan
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import WorkspaceSettings

Workload = StatefulSet | Job


class Unknown(Exception):
    """The question cannot be answered here: an offline tool has no cluster. The check is left out."""


class Cluster(Protocol):
    """What the checks read besides the Workspace. Each method may raise `Unknown`."""

    async def config_map(self, name: str) -> ConfigMap | None:
        """The ConfigMap of that name in the Workspace's namespace."""
        ...

    async def secret(self, name: str) -> Secret | None:
        """The Secret of that name in the Workspace's namespace."""
        ...

    async def volume_claim(self, name: str) -> PersistentVolumeClaim | None:
        """The PersistentVolumeClaim of that name in the Workspace's namespace."""
        ...

    async def service_account(self, name: str) -> ServiceAccount | None:
        """The ServiceAccount of that name in the Workspace's namespace."""
        ...

    async def own_nodes(self) -> Sequence[Node]:
        """The nodes that the Workspace's selector matches."""
        ...

    async def refusal(self, workload: Workload) -> Finding | None:
        """Why the API server would not take the workload; None when it would."""
        ...


@final
@dataclass(slots=True)
class Examination:
    """What is known about a Workspace so far. Later checks may rely on what earlier ones filled in."""

    workspace: Workspace
    settings: WorkspaceSettings
    cluster: Cluster
    preset: Preset | None = None
    """None for a pod template."""
    instance: InstanceType | None = None
    """None for a pod template on a size that the table does not have."""
    nodes: Sequence[Node] = ()
    """The existing nodes; empty where nodes are claimed."""
    config: ConfigMap | None = None
    """The ConfigMap that the Workspace names."""
    engine: EngineOptions = NO_OPTIONS
    """The engine's settings in that ConfigMap."""
    plan: Plan | None = None
    workload: Workload | None = None
    """The workload as it would be applied."""
    findings: list[Finding] = field(default_factory=list[Finding])
    """Warnings of all checks, and the errors of the first check that has any."""

    @property
    def errors(self) -> list[Finding]:
        """Why there is nothing to run."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """What does not stop the Workspace."""
        return [finding for finding in self.findings if finding.severity == "warning"]
