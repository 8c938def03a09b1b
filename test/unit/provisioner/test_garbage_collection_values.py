"""The defects for which a claim is deleted, each with its message, on fakes of the API and the cloud."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kaito.api.karpenter import Claim, NodeClaim
from kaito.cloud.errors import CloudError
from kaito.cloud.provider import Instance, InstanceOwner
from kaito.provisioner.context import Dependencies
from kaito.provisioner.garbage_collection import GarbageCollector
from kaito.provisioner.installation import Installation
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime.clock import LoopClock
from kaito.runtime.errors import TransportError
from kaito.runtime.kinds import Node
from kaito.runtime.testing import builders
from test.unit.provisioner.conftest import claim_manifest

pytestmark = pytest.mark.virtual_time


def registered_claim(name: str = "ws1") -> Claim:
    """A registered claim whose node is `node-<name>`."""
    claim = claim_manifest(NodeClaim, name, uid=f"uid-{name}").to_dict()
    claim["status"] = {
        "nodeName": f"node-{name}",
        "providerID": f"azure:///{name}",
        "conditions": [
            {"type": stage, "status": "True", "reason": stage, "lastTransitionTime": "2030-01-01T00:00:00Z"}
            for stage in NodeClaim.stages
        ],
    }
    return NodeClaim.model_validate(claim)


def node(name: str = "node-ws1", *, ready: bool = True) -> Node:
    return builders.node(name, ready=ready, provider_id="azure:///ws1")


def instance(claim: Claim) -> Instance:
    owner = InstanceOwner(claim_uid=claim.uid, claim_kind="NodeClaim", claim_name=claim.name, installation="i")
    return cast("Instance", SimpleNamespace(name=claim.name, owner=owner, state="running", created=None))


class Cluster:
    """Claims and nodes that the collector reads, and what it writes. The installed kinds cannot be read."""

    def __init__(self, claims: list[Claim], nodes: list[Node]) -> None:
        self._claims, self._nodes = claims, nodes
        self.client = SimpleNamespace(raw=self._unreachable)
        self.events: list[tuple[str, str, str, str]] = []
        self.deleted: list[str] = []

    async def _unreachable(self, *_: object, **__: object) -> None:
        raise TransportError("unreachable")

    async def list(self, kind: type[Any], **_: object) -> list[Any]:
        return [*self._nodes] if kind is Node else [*self._claims]

    async def find(self, _: type[Any], name: str, **__: object) -> Any:
        return next((each for each in self._nodes if each.name == name), None)

    def event(self, claim: Claim, level: str, reason: str, message: str, **_: object) -> None:
        self.events.append((claim.name, level, reason, message))

    async def delete(self, claim: Claim) -> None:
        self.deleted.append(claim.name)


class Cloud:
    """A cloud that lists some instances and has others, or an error for every read of one."""

    def __init__(self, listed: Sequence[Instance], present: Sequence[Instance], error: Exception | None = None) -> None:
        self._listed, self._present, self._error = listed, present, error

    async def list(self) -> list[Instance]:
        return [*self._listed]

    async def get(self, name: str) -> Instance | None:
        if self._error is not None:
            raise self._error
        return next((each for each in self._present if each.name == name), None)

    def instance_name(self, provider_id: str) -> str:
        return provider_id.rpartition("/")[2]


def _ignore(*_: object, **__: object) -> None:
    """Logs nothing."""


async def collect(cluster: Cluster, cloud: Cloud, *, runs: int = 2) -> Dependencies:
    """Runs garbage collection; returns its dependencies with the metrics."""
    deps = Dependencies(
        cloud=cast("Any", cloud),
        settings=ProvisionerSettings(),
        kinds=(NodeClaim,),
        installation=Installation("i"),
    )
    garbage = GarbageCollector(deps)
    log = SimpleNamespace(warning=_ignore)
    for _ in range(runs):
        await garbage.collect(cast("Any", SimpleNamespace(api=cluster, log=log, clock=LoopClock())))
    return deps


GONE = "agent pool ws1 does not exist: deleting the claim"
LOST = "node node-ws1 does not exist and its instance cannot register again: deleting the claim"


@pytest.mark.parametrize(
    ("nodes", "listed", "in_cloud", "defect"),
    [
        pytest.param([node()], True, True, "", id="everything exists"),
        pytest.param([], True, True, LOST, id="instance without its node"),
        pytest.param([node("node-other")], True, True, LOST, id="another node of the claim does not count"),
        pytest.param([node()], False, False, "", id="a ready node although the list lacks its instance"),
        pytest.param([node(ready=False)], False, False, GONE, id="neither instance nor a ready node"),
        pytest.param([], False, False, GONE, id="neither instance nor node"),
        pytest.param([node(ready=False)], False, True, "", id="the list lacks an instance that exists"),
    ],
)
async def test_a_claim_is_deleted_if_it_cannot_become_ready_again(
    nodes: list[Node], listed: bool, in_cloud: bool, defect: str
) -> None:
    claim = registered_claim()
    own = [instance(claim)]
    cluster = Cluster([claim], nodes)
    await collect(cluster, Cloud(own if listed else [], own if in_cloud else []))
    assert cluster.events == ([("ws1", "Warning", "InstanceGone", defect)] if defect else [])
    assert cluster.deleted == (["ws1"] if defect else [])


async def test_an_instance_of_another_claim_is_not_the_claims() -> None:
    claim, other = registered_claim(), registered_claim("ws2")
    theirs = cast("Instance", SimpleNamespace(name="ws1", owner=instance(other).owner, state="running", created=None))
    cluster = Cluster([claim], [])
    await collect(cluster, Cloud([theirs], []))
    assert [note for *_, note in cluster.events] == [GONE]


async def test_a_failed_read_of_the_instance_is_not_a_defect() -> None:
    cluster = Cluster([registered_claim()], [])
    await collect(cluster, Cloud([], [], CloudError("unavailable")))
    assert cluster.deleted == []


async def test_a_claim_that_is_not_registered_or_not_managed_is_kept() -> None:
    unregistered = claim_manifest(NodeClaim, "ws1", uid="uid-ws1")
    document = registered_claim("ws2").to_dict()
    document["metadata"]["labels"] = {"apps": "x"}
    document["spec"]["nodeClassRef"] = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "x"}
    cluster = Cluster([unregistered, NodeClaim.model_validate(document)], [])
    await collect(cluster, Cloud([], []))
    assert cluster.deleted == []


async def test_a_defect_is_acted_on_at_its_second_observation() -> None:
    claim, well = registered_claim(), registered_claim("ws2")
    cluster = Cluster([claim, well], [node("node-ws2")])
    cloud = Cloud([instance(well)], [instance(well)])
    await collect(cluster, cloud, runs=1)
    assert (cluster.deleted, cluster.events) == ([], [])
    deps = await collect(cluster, cloud)
    assert cluster.deleted == ["ws1"]
    (metric,) = deps.metrics.disrupted.collect()
    counted = [(s.labels, s.value) for s in metric.samples if s.name.endswith("_total")]
    assert counted == [({"reason": "garbage_collected", "nodepool": "kaito"}, 1)]
