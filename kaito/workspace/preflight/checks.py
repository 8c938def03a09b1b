"""The table of preflight checks in the order in which they run. A check may use what earlier checks found."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, final

from kaito.api import Workspace
from kaito.workspace.preflight import (
    alternatives,
    budget,
    capacity,
    configuration,
    fields,
    model,
    objects,
    planning,
    template,
    weights,
    workload,
)
from kaito.workspace.preflight.context import PreflightContext
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import WorkspaceSettings


@final
@dataclass(frozen=True, slots=True)
class ObjectCheck:
    """A check that needs the object alone and also runs at admission."""

    name: str
    find: Callable[[Workspace, WorkspaceSettings], Iterable[Finding]]


@final
@dataclass(frozen=True, slots=True)
class ClusterCheck:
    """A check that needs other objects of the cluster, or the result of such a check."""

    name: str
    find: Callable[[PreflightContext], Awaitable[Iterable[Finding]]]


CHECKS: Final[tuple[ObjectCheck | ClusterCheck, ...]] = (
    ObjectCheck("fields, references and annotations", fields.rules),
    ObjectCheck("structure of the pod template and of volumes", template.structure),
    ObjectCheck("mounts of podOptions", fields.mounts),
    ClusterCheck("model of the catalog, or facts of another one", model.resolve),
    ClusterCheck("instance type, or existing nodes", planning.hardware),
    ClusterCheck("configuration file", configuration.file),
    ClusterCheck("source of the weights", weights.source),
    ClusterCheck("alternatives: one instance type of several", alternatives.select),
    ClusterCheck("plan: runtime, memory, parallelism", planning.plan),
    ClusterCheck("cost of the nodes", budget.cost),
    ClusterCheck("settings of the file that have no effect", configuration.effect),
    ClusterCheck("file of a tuning Workspace allows the download", configuration.download),
    ClusterCheck("sizes and credentials of the model", fields.catalog),
    ClusterCheck("rendered workload", workload.render),
    ClusterCheck("resource requests of pods", capacity.requests),
    ClusterCheck("Secrets and ConfigMaps that pods use", objects.used),
    ClusterCheck("names of the ConfigMaps that the controller writes", workload.config_maps),
    ClusterCheck("server-side dry run of the workload", workload.dry_run),
)
