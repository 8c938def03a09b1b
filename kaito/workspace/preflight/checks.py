"""The table of checks, in the order in which they run. Each may rely on what those before it found."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, final

from kaito.api import Workspace
from kaito.workspace.preflight import capacity, configuration, fields, objects, planning, template, workload
from kaito.workspace.preflight.examination import Examination
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import WorkspaceSettings


@final
@dataclass(frozen=True, slots=True)
class ObjectCheck:
    """Needs the object alone: runs at admission, too."""

    name: str
    find: Callable[[Workspace, WorkspaceSettings], Iterable[Finding]]


@final
@dataclass(frozen=True, slots=True)
class ClusterCheck:
    """Needs other objects of the cluster, or what such a check found."""

    name: str
    find: Callable[[Examination], Awaitable[Iterable[Finding]]]


CHECKS: Final[tuple[ObjectCheck | ClusterCheck, ...]] = (
    ObjectCheck("fields, references and annotations", fields.rules),
    ObjectCheck("structure of the pod template and of volumes", template.structure),
    ClusterCheck("preset and instance type, or existing nodes", planning.hardware),
    ClusterCheck("configuration file", configuration.file),
    ClusterCheck("plan: runtime, memory, parallelism", planning.plan),
    ClusterCheck("settings of the file that have no effect", configuration.effect),
    ObjectCheck("catalog: sizes and credentials", fields.catalog),
    ClusterCheck("rendered workload", workload.render),
    ClusterCheck("requests of pods against their nodes", capacity.requests),
    ClusterCheck("Secrets and ConfigMaps that pods use", objects.used),
    ClusterCheck("server-side dry run of the workload", workload.dry_run),
)
