"""The objects of a cluster read from files, for tools that plan without a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from kaito.runtime.kinds import ConfigMap, Node, PersistentVolumeClaim, Secret, ServiceAccount
from kaito.workspace.preflight.examination import Unknown, Workload
from kaito.workspace.preflight.finding import Finding


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Objects that were read from manifests. What is not among them is unknown, not absent."""

    config_maps: Mapping[str, ConfigMap] = field(default_factory=dict[str, ConfigMap])
    secrets: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    nodes: Sequence[Node] | None = None

    async def config_map(self, name: str) -> ConfigMap | None:
        """The ConfigMap of that name.

        Raises:
            Unknown: it was not given.
        """
        if name not in self.config_maps:
            raise Unknown(name)
        return self.config_maps[name]

    async def secret(self, name: str) -> Secret | None:
        """The Secret of that name.

        Raises:
            Unknown: it was not given.
        """
        if name not in self.secrets:
            raise Unknown(name)
        return self.secrets[name]

    async def volume_claim(self, name: str) -> PersistentVolumeClaim | None:
        """Always unknown: none are given.

        Raises:
            Unknown: in every case.
        """
        raise Unknown(name)

    async def service_account(self, name: str) -> ServiceAccount | None:
        """Always unknown: none are given.

        Raises:
            Unknown: in every case.
        """
        raise Unknown(name)

    async def own_nodes(self) -> Sequence[Node]:
        """The nodes that were given.

        Raises:
            Unknown: none were given.
        """
        if self.nodes is None:
            raise Unknown("nodes")
        return self.nodes

    async def refusal(self, workload: Workload) -> Finding | None:
        """Always unknown: only an API server knows its schema and policies.

        Raises:
            Unknown: in every case.
        """
        raise Unknown(workload.kind)
