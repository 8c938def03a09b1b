"""Reads the objects that the checks need from manifests, for tools without a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from kaito.runtime.kinds import ConfigMap, Node, PersistentVolumeClaim, Secret, ServiceAccount
from kaito.workspace.classes import ClassKind, PriorityClass, RuntimeClass
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.record import FactsRecord
from kaito.workspace.measurements import MeasurementRecord
from kaito.workspace.preflight.context import LookupUnavailable, Workload
from kaito.workspace.preflight.finding import Finding


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestReader:
    """Objects from manifests. An object that is not among them is unknown, not absent.

    Its methods raise `LookupUnavailable` for unknown objects; see `ClusterReader`.
    """

    config_maps: Mapping[str, ConfigMap] = field(default_factory=dict[str, ConfigMap])
    secrets: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    nodes: Sequence[Node] | None = None

    async def config_map(self, name: str) -> ConfigMap | None:
        """Returns the ConfigMap from the manifests.

        Raises:
            LookupUnavailable: the manifests do not contain it.
        """
        if name not in self.config_maps:
            raise LookupUnavailable(name)
        return self.config_maps[name]

    async def secret(self, name: str) -> Secret | None:
        """Returns the Secret from the manifests.

        Raises:
            LookupUnavailable: the manifests do not contain it.
        """
        if name not in self.secrets:
            raise LookupUnavailable(name)
        return self.secrets[name]

    async def volume_claim(self, name: str) -> PersistentVolumeClaim | None:
        """Raises, because manifests of claims are not read.

        Raises:
            LookupUnavailable: always.
        """
        raise LookupUnavailable(name)

    async def service_account(self, name: str) -> ServiceAccount | None:
        """Raises, because manifests of service accounts are not read.

        Raises:
            LookupUnavailable: always.
        """
        raise LookupUnavailable(name)

    async def named_class(self, kind: ClassKind, name: str) -> PriorityClass | RuntimeClass | None:
        """Raises, because manifests of classes are not read.

        Raises:
            LookupUnavailable: always.
        """
        raise LookupUnavailable(f"{kind} {name}")

    async def kept_facts(self, reference: str) -> FactsRecord | None:  # noqa: ARG002 - of the interface
        """Returns None, because only a controller keeps facts."""
        return None

    async def foreign_config_map(self, name: str) -> ConfigMap | None:  # noqa: ARG002 - of the interface
        """Returns None, because owners are known in a cluster only."""
        return None

    async def model_facts(self, query: ModelQuery) -> FactsRecord | None:
        """Raises, because tools do not read models.

        Raises:
            LookupUnavailable: always.
        """
        raise LookupUnavailable(str(query.reference))

    async def measurements(self) -> Sequence[MeasurementRecord]:
        """Returns none, because only a controller keeps measurements."""
        return ()

    async def existing_nodes(self) -> Sequence[Node]:
        """Returns the nodes from the manifests.

        Raises:
            LookupUnavailable: no nodes were passed.
        """
        if self.nodes is None:
            raise LookupUnavailable("nodes")
        return self.nodes

    async def own_nodes(self) -> Sequence[Node]:
        """Raises, because the nodes of a Workspace are known only in its cluster.

        Raises:
            LookupUnavailable: always.
        """
        raise LookupUnavailable("nodes")

    async def server_version(self) -> Mapping[str, Any]:
        """Raises, because there is no API server.

        Raises:
            LookupUnavailable: always.
        """
        raise LookupUnavailable("version")

    async def present_workload(self) -> Workload | None:
        """Raises, because workloads are not read from manifests.

        Raises:
            LookupUnavailable: always.
        """
        raise LookupUnavailable("workload")

    async def find_rejection(self, workload: Workload) -> Finding | None:
        """Raises, because only an API server can run a dry run.

        Raises:
            LookupUnavailable: always.
        """
        raise LookupUnavailable(workload.kind)
