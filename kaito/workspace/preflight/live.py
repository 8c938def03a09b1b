"""Reads the cluster for the checks of the controller: live reads of the objects a Workspace names, and dry runs."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from kaito.api import Workspace, conditions, labels
from kaito.runtime import Api
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import AlreadyExists, ApiError, Forbidden, NotFound
from kaito.runtime.kinds import ConfigMap, Job, Node, PersistentVolumeClaim, Secret, ServiceAccount, StatefulSet
from kaito.workspace.classes import ClassKind, PriorityClass, RuntimeClass
from kaito.workspace.digest import digest
from kaito.workspace.failure import is_rejection
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.reads import ModelReads
from kaito.workspace.hub.record import FactsRecord, InvalidFacts, read_record, record_name
from kaito.workspace.indexes import NODES
from kaito.workspace.measurements import MeasurementRecord, Measurements
from kaito.workspace.ownership import is_controller_of, name_conflict_message
from kaito.workspace.preflight.context import LookupUnavailable, Workload
from kaito.workspace.preflight.finding import Finding, workload_field
from kaito.workspace.settings import NodeApi, WorkspaceSettings

_MAX_ACCEPTED: Final = 4096
"""Number of accepted workloads that are stored, one digest each."""

VERSION_SECONDS: Final = 300.0
"""Time for which the version of the API server is taken as unchanged: an upgrade takes minutes."""


@final
class AcceptedWorkloads:
    """Workloads that the API server accepted in a dry run, so that each is tried once and not in every reconcile."""

    def __init__(self) -> None:
        self._digests: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, identity: str) -> bool:
        return identity in self._digests

    def add(self, identity: str) -> None:
        """Stores a workload; the oldest one is dropped if there are too many."""
        self._digests[identity] = None
        while len(self._digests) > _MAX_ACCEPTED:
            self._digests.popitem(last=False)


@final
class ClusterFacts:
    """What the process knows about its cluster; shared by all reconciles.

    Args:
        namespace: of the controller; empty if it is not known.
    """

    def __init__(self, namespace: str = "") -> None:
        self.accepted = AcceptedWorkloads()
        self.measurements = Measurements(namespace)
        self.kept: OrderedDict[str, FactsRecord] = OrderedDict()
        """Facts of models outside the catalog by UID of the Workspace, so that they are read once."""
        self._version: Mapping[str, Any] = {}
        self._read_at: float | None = None

    async def server_version(self, api: Api) -> Mapping[str, Any]:
        """Returns the content of `GET /version`; empty if the path is forbidden or not served.

        Raises:
            KaitoRuntimeError: the API server cannot be reached.
        """
        now = monotonic()
        if self._read_at is None or now - self._read_at >= VERSION_SECONDS:
            try:
                self._version = await api.client.raw("GET", "/version")
            except (Forbidden, NotFound):
                self._version = {}
            self._read_at = now
        return self._version


@final
class LiveCluster:
    """Reads from the API server; see `ClusterReader`. Secrets are not cached, so they are read live."""

    def __init__(
        self, api: Api, workspace: Workspace, settings: WorkspaceSettings, facts: ClusterFacts, models: ModelReads
    ) -> None:
        self._api, self._workspace, self._settings, self._facts = api, workspace, settings, facts
        self._models = models

    async def config_map(self, name: str) -> ConfigMap | None:
        """Reads the ConfigMap live, because the cache contains only its metadata."""
        return await self._api.find(ConfigMap, name, self._workspace.namespace, consistency="live")

    async def secret(self, name: str) -> Secret | None:
        """Reads the Secret live."""
        return await self._api.find(Secret, name, self._workspace.namespace, consistency="live")

    async def volume_claim(self, name: str) -> PersistentVolumeClaim | None:
        """Reads the PersistentVolumeClaim live."""
        return await self._api.find(PersistentVolumeClaim, name, self._workspace.namespace, consistency="live")

    async def service_account(self, name: str) -> ServiceAccount | None:
        """Reads the ServiceAccount live."""
        return await self._api.find(ServiceAccount, name, self._workspace.namespace, consistency="live")

    async def named_class(self, kind: ClassKind, name: str) -> PriorityClass | RuntimeClass | None:
        """Reads the class live.

        Raises:
            LookupUnavailable: the controller's role lacks the permission, as that of an earlier release does.
        """
        wanted: type[PriorityClass | RuntimeClass] = PriorityClass if kind == "PriorityClass" else RuntimeClass
        try:
            return await self._api.find(wanted, name, consistency="live")
        except Forbidden as error:
            raise LookupUnavailable(f"{kind} {name}") from error

    async def kept_facts(self, reference: str) -> FactsRecord | None:
        """Reads the ConfigMap of the Workspace, once in the life of the process."""
        kept = self._facts.kept.get(self._workspace.uid)
        if kept is None:
            found = await self.config_map(record_name(self._workspace))
            if found is None or not is_controller_of(self._workspace, found):
                return None
            try:
                kept = read_record(found)
            except InvalidFacts:
                return None  # it is read from the hub again and replaced
            self.keep_facts(kept)
        return kept if kept.reference == reference else None

    def keep_facts(self, record: FactsRecord) -> None:
        """Remembers the facts that the ConfigMap of the Workspace contains."""
        self._facts.kept[self._workspace.uid] = record
        while len(self._facts.kept) > _MAX_ACCEPTED:
            self._facts.kept.popitem(last=False)

    async def foreign_config_map(self, name: str) -> ConfigMap | None:
        """Reads the metadata from the cache."""
        found = await self._api.find(ConfigMap, name, self._workspace.namespace)
        return None if found is None or is_controller_of(self._workspace, found) else found

    async def model_facts(self, query: ModelQuery) -> FactsRecord | None:
        """Returns the result of a read in the background."""
        return self._models.find(self._workspace.key, query)

    async def measurements(self) -> Sequence[MeasurementRecord]:
        """Reads the ConfigMap of the controller, again if it has changed."""
        return await self._facts.measurements.records(self._api)

    async def existing_nodes(self) -> Sequence[Node]:
        """Lists the matching nodes from the cache."""
        return await self._api.list(Node, labels=self._workspace.resource.label_selector)

    async def own_nodes(self) -> Sequence[Node]:
        """Lists the Workspace's nodes from the cache: by owner label, or by selector with existing nodes."""
        if self._settings.node_api is NodeApi.BYO:
            return [node for node in await self.existing_nodes() if not node.deleting]
        nodes = await self._api.list(Node, index=NODES(str(self._workspace.key)))
        return [node for node in nodes if not node.deleting]

    async def server_version(self) -> Mapping[str, Any]:
        """Reads the version live, at most every `VERSION_SECONDS`."""
        return await self._facts.server_version(self._api)

    async def present_workload(self) -> Workload | None:
        """Reads the workload from the cache."""
        name, namespace = self._workspace.name, self._workspace.namespace
        present: Workload | None = (
            await self._api.find(StatefulSet, name, namespace)
            if self._workspace.tuning is None
            else await self._api.find(Job, name, namespace)
        )
        return present if present is not None and is_controller_of(self._workspace, present) else None

    async def find_rejection(self, workload: Workload) -> Finding | None:
        """Runs a dry run, once for each content of the workload.

        Raises:
            ApiError: the dry run failed for another reason than the workload's content.
        """
        identity = f"{self._workspace.uid}/{workload.kind}/{digest(workload.to_dict())}"
        present = await self._present(workload)
        if present is not None and not is_controller_of(self._workspace, present):
            if present.deleting:
                return None
            return Finding(
                conditions.NAME_CONFLICT, "metadata.name", name_conflict_message(present), resolved_by="poll"
            )
        if identity in self._facts.accepted or (present is not None and _same_template(present, workload)):
            return None
        try:
            await self._dry_run(_dry_run_object(workload, present), exists=present is not None)
        except ApiError as error:
            if not is_rejection(error):
                raise
            return self._rejection(workload, error)
        self._facts.accepted.add(identity)
        return None

    async def _dry_run(self, workload: Workload, *, exists: bool) -> None:
        """Runs a dry run as a create request if the workload is new: it costs the server half of an apply request.

        The field validation is strict: an apply request rejects unknown fields, a create request drops them by default.
        """
        api = self._api.dry_run(field_validation="Strict")
        if not exists:
            try:
                await api.create(workload, owner=self._workspace)
            except AlreadyExists:  # the cache does not contain it yet
                pass
            else:
                return
        await api.ensure(workload, owner=self._workspace)

    async def _present(self, workload: Workload) -> Workload | None:
        if isinstance(workload, Job):
            return await self._api.find(Job, workload.name, workload.namespace)
        return await self._api.find(StatefulSet, workload.name, workload.namespace)

    def _rejection(self, workload: Workload, error: ApiError) -> Finding:
        message = f"the API server rejects the {workload.kind}: {error.message}"
        return Finding(conditions.WORKLOAD_REFUSED, workload_field(self._workspace), message, resolved_by="poll")


def _dry_run_object(workload: Workload, present: Workload | None) -> Workload:
    """Returns the object for the dry run. A Job's template is immutable, so a changed Job is tried under a new name."""
    if present is None or not isinstance(workload, Job):
        return workload
    return workload.evolve(metadata=workload.metadata.evolve(name=f"{workload.name}-next"))


def _same_template(present: Workload, wanted: Workload) -> bool:
    """Whether the workload runs with this template, which the API server therefore accepted."""
    return present.annotations.get(labels.TEMPLATE_HASH) == wanted.annotations.get(labels.TEMPLATE_HASH)
