"""The cluster as the controller asks it: live reads of what a Workspace names, and server-side dry runs."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, final

from kaito.api import Workspace, conditions, labels
from kaito.runtime import Api
from kaito.runtime.errors import ApiError
from kaito.runtime.kinds import ConfigMap, Job, Node, PersistentVolumeClaim, Secret, ServiceAccount, StatefulSet
from kaito.workspace.digest import digest
from kaito.workspace.failure import is_refusal
from kaito.workspace.ownership import controls, name_conflict
from kaito.workspace.preflight.examination import Workload
from kaito.workspace.preflight.finding import Finding, workload_field

_REMEMBERED: Final = 4096
"""Accepted workloads that are remembered; one digest each."""


@final
class AcceptedWorkloads:
    """Workloads that the API server took in a dry run, so that each is tried once and not in every reconcile."""

    def __init__(self) -> None:
        self._digests: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, identity: str) -> bool:
        return identity in self._digests

    def add(self, identity: str) -> None:
        """Remember one; the oldest is forgotten when there are too many."""
        self._digests[identity] = None
        while len(self._digests) > _REMEMBERED:
            self._digests.popitem(last=False)


@final
class LiveCluster:
    """Answers from the API server. ConfigMaps and Secrets are read when named: Secrets are not cached."""

    def __init__(self, api: Api, workspace: Workspace, accepted: AcceptedWorkloads) -> None:
        self._api, self._workspace, self._accepted = api, workspace, accepted

    async def config_map(self, name: str) -> ConfigMap | None:
        """The ConfigMap, read live: the cache has its metadata only."""
        return await self._api.find(ConfigMap, name, self._workspace.namespace, consistency="live")

    async def secret(self, name: str) -> Secret | None:
        """The Secret, read live."""
        return await self._api.find(Secret, name, self._workspace.namespace, consistency="live")

    async def volume_claim(self, name: str) -> PersistentVolumeClaim | None:
        """The PersistentVolumeClaim, read live."""
        return await self._api.find(PersistentVolumeClaim, name, self._workspace.namespace, consistency="live")

    async def service_account(self, name: str) -> ServiceAccount | None:
        """The ServiceAccount, read live."""
        return await self._api.find(ServiceAccount, name, self._workspace.namespace, consistency="live")

    async def own_nodes(self) -> Sequence[Node]:
        """Nodes from the cache."""
        return await self._api.list(Node, labels=self._workspace.resource.label_selector)

    async def refusal(self, workload: Workload) -> Finding | None:
        """The API server's answer to the workload in a dry run; asked once for each content.

        Raises:
            ApiError: an answer that is not about the workload's content.
        """
        identity = f"{self._workspace.uid}/{workload.kind}/{digest(workload.to_dict())}"
        present = await self._present(workload)
        if present is not None and not controls(self._workspace, present):
            if present.deleting:
                return None
            return Finding(conditions.NAME_CONFLICT, "metadata.name", name_conflict(present), cure="polled")
        if identity in self._accepted or (present is not None and _same_template(present, workload)):
            return None
        try:
            await self._api.dry_run().ensure(_tried(workload, present), owner=self._workspace)
        except ApiError as error:
            if not is_refusal(error):
                raise
            return self._refused(workload, error)
        self._accepted.add(identity)
        return None

    async def _present(self, workload: Workload) -> Workload | None:
        if isinstance(workload, Job):
            return await self._api.find(Job, workload.name, workload.namespace)
        return await self._api.find(StatefulSet, workload.name, workload.namespace)

    def _refused(self, workload: Workload, error: ApiError) -> Finding:
        message = f"the API server refuses the {workload.kind}: {error.message}"
        return Finding(conditions.WORKLOAD_REFUSED, workload_field(self._workspace), message, cure="polled")


def _tried(workload: Workload, present: Workload | None) -> Workload:
    """The workload to try. A Job's template is immutable and another Job replaces it, so it is tried as a new one."""
    if present is None or not isinstance(workload, Job):
        return workload
    return workload.evolve(metadata=workload.metadata.evolve(name=f"{workload.name}-next"))


def _same_template(present: Workload, wanted: Workload) -> bool:
    """Whether the workload runs with this template already: then the API server took it."""
    return present.annotations.get(labels.TEMPLATE_HASH) == wanted.annotations.get(labels.TEMPLATE_HASH)
