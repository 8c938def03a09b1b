"""Fixtures of InferenceSets: the sample set, and a cluster that plays provisioner and workload controllers."""

from typing import Any

import pytest

from kaito.api import InferenceSet, Workspace, labels
from kaito.runtime.kinds import StatefulSet
from kaito.runtime.testing import World
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.unit.workspace.conftest import Cluster


def inference_set(**spec: Any) -> InferenceSet:
    """Returns the sample InferenceSet with other fields of `spec`."""
    return InferenceSet.model_validate(
        {
            "metadata": {"name": "phi", "namespace": "default"},
            "spec": {
                "replicas": 2,
                "labelSelector": {"matchLabels": {"apps": "phi"}},
                "template": {
                    "resource": {"instanceType": "Standard_NC6s_v3"},
                    "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
                },
                **spec,
            },
        }
    )


class Sets(Cluster):
    """A cluster in which nodes join and pods become ready on request."""

    def put(self, **spec: Any) -> InferenceSet:
        return self.world.put(inference_set(**spec))

    def current(self) -> InferenceSet:
        return self.world.get(InferenceSet, "phi")

    def change(self, spec: dict[str, Any]) -> None:
        """Merge-patches the spec, as `kubectl patch` does."""
        self.world.patch(InferenceSet, "phi", {"spec": spec})

    def scale(self, replicas: int) -> None:
        self.change({"replicas": replicas})

    def children(self) -> dict[str, Workspace]:
        """Workspaces by name, without those that are being deleted."""
        return {each.name: each for each in self.world.list(Workspace) if not each.deleting}

    def names(self) -> list[str]:
        return sorted(self.children())

    def condition(self, kind: str = "InferenceSetReady") -> tuple[str, str, str]:
        found = next(c for c in self.current().status.conditions if c.type == kind)
        return found.status, found.reason, found.message

    async def provision(self, *, serving: bool = True, only: str = "") -> None:
        """Joins the nodes of all claims and makes the pods of all Workspaces, or of one, ready."""
        for _ in range(3):
            await self.world.settle()
            nodes = {claim.status.node_name for claim in self.claims()}
            for claim in self.claims():
                if f"node-{claim.name}" not in nodes and not claim.deleting:
                    self.join(claim)
            await self.world.settle()
            for name in self.names() if serving else ():
                if self.world.find(StatefulSet, name) is not None and only in {"", name}:
                    self.serve(name)
        await self.world.settle()

    def unready(self, name: str) -> None:
        self.serve(name, ready=0)


@pytest.fixture
def node_api() -> NodeApi:
    return NodeApi.MACHINE


@pytest.fixture
async def sets(world: World, settings: WorkspaceSettings) -> Sets:
    return Sets(world, settings)


REVISION = labels.INFERENCESET_REVISION
