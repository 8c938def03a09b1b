"""Reads the objects that a Workspace names: from the files first, then from the cluster, if there is one.

An object that neither contains is unknown without a cluster, and absent with one. What could not be read is recorded,
so that the report lists the checks that were left out.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, final

from kaito.planning.documents import Documents
from kaito.runtime.errors import Forbidden
from kaito.runtime.kinds import ConfigMap, Node, PersistentVolumeClaim, Secret, ServiceAccount
from kaito.runtime.meta import Resource
from kaito.workspace.classes import ClassKind, PriorityClass, RuntimeClass
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.reads import ReadModel
from kaito.workspace.hub.record import FactsRecord
from kaito.workspace.measurements import MeasurementRecord
from kaito.workspace.preflight import ClusterReader, Finding
from kaito.workspace.preflight.context import LookupUnavailable, Workload

T = TypeVar("T")
R = TypeVar("R", bound=Resource)


@final
class PlanReader:
    """Implements `ClusterReader` for one Workspace."""

    def __init__(
        self,
        documents: Documents,
        namespace: str,
        cluster: ClusterReader | None = None,
        *,
        read_model: ReadModel | None = None,
    ) -> None:
        self._documents, self._namespace, self._cluster = documents, namespace, cluster
        self._read_model = read_model
        self.unknown: dict[str, str] = {}
        """What could not be read, with the reason."""

    async def config_map(self, name: str) -> ConfigMap | None:
        """Returns the ConfigMap of the files, else of the cluster."""
        found = self._of_files(self._documents.config_maps, name)
        return found or await self._read(f"ConfigMap {name!r}", lambda cluster: cluster.config_map(name))

    async def secret(self, name: str) -> Secret | None:
        """Returns the Secret of the files, else of the cluster."""
        found = self._of_files(self._documents.secrets, name)
        return found or await self._read(f"Secret {name!r}", lambda cluster: cluster.secret(name))

    async def volume_claim(self, name: str) -> PersistentVolumeClaim | None:
        """Returns the PersistentVolumeClaim of the files, else of the cluster."""
        found = self._of_files(self._documents.volume_claims, name)
        return found or await self._read(f"PersistentVolumeClaim {name!r}", lambda cluster: cluster.volume_claim(name))

    async def service_account(self, name: str) -> ServiceAccount | None:
        """Returns the ServiceAccount of the files, else of the cluster."""
        found = self._of_files(self._documents.service_accounts, name)
        return found or await self._read(f"ServiceAccount {name!r}", lambda cluster: cluster.service_account(name))

    async def named_class(self, kind: ClassKind, name: str) -> PriorityClass | RuntimeClass | None:
        """Returns the class of the cluster."""
        return await self._read(f"{kind} {name!r}", lambda cluster: cluster.named_class(kind, name))

    async def kept_facts(self, reference: str) -> FactsRecord | None:
        """Returns the facts that the controller keeps for the Workspace; None without a cluster."""
        try:
            return await self._read("", lambda cluster: cluster.kept_facts(reference))
        except LookupUnavailable:
            return None

    async def foreign_config_map(self, name: str) -> ConfigMap | None:
        """Returns a ConfigMap of another owner; None without a cluster."""
        try:
            return await self._read("", lambda cluster: cluster.foreign_config_map(name))
        except LookupUnavailable:
            return None

    async def model_facts(self, query: ModelQuery) -> FactsRecord | None:
        """Reads the facts of a model outside the catalog from its artifact or from Hugging Face.

        Raises:
            ModelUnavailable: they cannot be read.
            LookupUnavailable: the network must not be used.
        """
        if self._read_model is None:
            raise LookupUnavailable(str(query.reference))
        return await self._read_model(query)

    async def measurements(self) -> Sequence[MeasurementRecord]:
        """Returns what servers measured in the cluster; raises without one."""
        what = "the memory that servers measured" if self._cluster is not None else ""
        return await self._read(what, lambda cluster: cluster.measurements())

    async def existing_nodes(self) -> Sequence[Node]:
        """Returns the nodes of the cluster; without a cluster, those of the files."""
        if self._cluster is None and self._documents.nodes:
            return self._documents.nodes
        return await self._read("the nodes", lambda cluster: cluster.existing_nodes())

    async def own_nodes(self) -> Sequence[Node]:
        """Returns the nodes that the Workspace has in the cluster."""
        return await self._read("", lambda cluster: cluster.own_nodes())

    async def server_version(self) -> Mapping[str, Any]:
        """Returns the version of the API server."""
        return await self._read("", lambda cluster: cluster.server_version())

    async def present_workload(self) -> Workload | None:
        """Returns the workload that the Workspace has in the cluster."""
        return await self._read("", lambda cluster: cluster.present_workload())

    async def find_rejection(self, workload: Workload) -> Finding | None:
        """Runs a server-side dry run of the workload."""
        what = f"the server-side dry run of the {workload.kind}" if self._cluster is not None else ""
        return await self._read(what, lambda cluster: cluster.find_rejection(workload))

    def _of_files(self, objects: Iterable[R], name: str) -> R | None:
        return next((obj for obj in objects if obj.name == name and obj.namespace in {"", self._namespace}), None)

    async def _read(self, what: str, read: Callable[[ClusterReader], Awaitable[T]]) -> T:
        """Reads from the cluster.

        Raises:
            LookupUnavailable: there is no cluster, or it forbids the request.
        """
        if self._cluster is None:
            if what:
                self.unknown[what] = "not in the files"
            raise LookupUnavailable(what)
        try:
            return await read(self._cluster)
        except Forbidden as error:
            if what:
                self.unknown[what] = error.message
            raise LookupUnavailable(what) from error
