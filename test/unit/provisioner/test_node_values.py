"""Which node belongs to a claim, which claims are reconciled, and what a refused deletion of an instance reports."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kaito.api import labels
from kaito.api.karpenter import Claim, Machine, NodeClaim
from kaito.cloud.errors import CloudError, ErrorCategory
from kaito.cloud.provider import Instance
from kaito.provisioner.context import Dependencies
from kaito.provisioner.installation import Installation
from kaito.provisioner.kinds import served_kinds
from kaito.provisioner.launch_attempts import combine
from kaito.provisioner.node_termination import finalize_node
from kaito.provisioner.nodes import claim_key, claim_of, is_managed, nodes_of, owns_instance, reports_ready
from kaito.provisioner.settings import NodeApi, ProvisionerSettings
from kaito.runtime import Api
from kaito.runtime.client import ConditionUpdate
from kaito.runtime.errors import Terminal
from kaito.runtime.kinds import Namespace, Node
from kaito.runtime.manager import Settings
from kaito.runtime.meta import ObjectKey
from kaito.runtime.testing import builders
from test.unit.provisioner.conftest import claim_manifest

pytestmark = pytest.mark.virtual_time


def launched(node_name: str = "n1", provider_id: str = "azure:///A/ws1") -> Claim:
    """A claim of upstream's provisioner, whose node has no labels of the claim."""
    document = claim_manifest(NodeClaim, "ws1", uid="uid-1").to_dict()
    document["status"] = {"nodeName": node_name, "providerID": provider_id}
    return NodeClaim.model_validate(document)


class Reads:
    """Reads of an API without claims in its index of nodes; records patches."""

    def __init__(self, *objects: Any, indexed: tuple[Node, ...] = ()) -> None:
        self._objects, self._indexed = objects, indexed
        self.patches: list[tuple[str, Any]] = []

    async def list(self, _: type[Any], **__: object) -> list[Any]:
        return [*self._indexed]

    async def find(self, kind: type[Any], name: str, **_: object) -> Any:
        return next((each for each in self._objects if isinstance(each, kind) and each.name == name), None)

    async def patch(self, node: Node, change: Any) -> Node:
        self.patches.append((node.name, change.document))
        return node


def node(provider_id: str = "azure:///a/ws1", **found: str) -> Node:
    return builders.node("n1", labels=found, provider_id=provider_id)


async def test_a_node_without_labels_is_adopted_by_its_provider_id() -> None:
    reads = Reads(node())
    assert [each.name for each in await nodes_of(cast("Api", reads), launched())] == ["n1"]
    added = {
        labels.MANAGED_BY: "gpu-provisioner",
        labels.CLAIM_NAME: "ws1",
        labels.CLAIM_KIND: "NodeClaim",
        labels.CLAIM_UID: "uid-1",
    }
    assert reads.patches == [("n1", {"metadata": {"labels": added}})]


@pytest.mark.parametrize(
    ("found", "claim"),
    [
        pytest.param(node("azure:///a/other"), launched(), id="another instance"),
        pytest.param(node(""), launched(provider_id=""), id="neither has a provider ID"),
        pytest.param(node(**{labels.CLAIM_UID: "uid-2"}), launched(), id="a node of another claim"),
        pytest.param(node(), launched("n2"), id="no such node"),
        pytest.param(node(), launched(""), id="a claim that never had a node"),
    ],
)
async def test_a_node_that_is_not_surely_the_claims_is_not_adopted(found: Node, claim: Claim) -> None:
    reads = Reads(found)
    assert await nodes_of(cast("Api", reads), claim) == []
    assert reads.patches == []


async def test_nodes_with_the_label_of_the_claim_are_not_adopted_again() -> None:
    own = node(**{labels.CLAIM_UID: "uid-1"})
    reads = Reads(own, indexed=(own,))
    assert await nodes_of(cast("Api", reads), launched()) == [own]
    assert reads.patches == []


@pytest.mark.parametrize(
    ("found", "claim"),
    [
        ({labels.CLAIM_NAME: "ws1", labels.CLAIM_UID: "uid-1", labels.CLAIM_KIND: "NodeClaim"}, "ws1"),
        ({labels.CLAIM_NAME: "ws1", labels.CLAIM_UID: "uid-1"}, "ws1"),
        ({labels.CLAIM_NAME: "ws1", labels.CLAIM_UID: "uid-2"}, None),
        ({labels.CLAIM_NAME: "ws1", labels.CLAIM_UID: "uid-1", labels.CLAIM_KIND: "Machine"}, None),
        ({labels.CLAIM_NAME: "ws2", labels.CLAIM_UID: "uid-1"}, None),
        ({labels.CLAIM_UID: "uid-1"}, None),
    ],
)
async def test_the_claim_of_a_node_has_its_name_kind_and_uid(found: dict[str, str], claim: str | None) -> None:
    reads = Reads(launched())
    read = await claim_of(cast("Api", reads), node(**found), (Machine, NodeClaim))
    assert (read.name if read is not None else None) == claim


def test_a_node_maps_to_the_cluster_scoped_key_of_its_claim() -> None:
    assert claim_key(node(**{labels.CLAIM_NAME: "ws1"})) == ObjectKey("", "ws1")
    assert claim_key(node()) is None


def test_an_instance_belongs_to_a_claim_by_its_tag_or_by_the_claims_provider_id() -> None:
    tagged = cast("Instance", SimpleNamespace(name="ws1", owner=SimpleNamespace(claim_uid="uid-1")))
    untagged = cast("Instance", SimpleNamespace(name="ws1", owner=None))
    assert owns_instance(tagged, "uid-1", launched=None)
    assert not owns_instance(tagged, "uid-2", launched="ws1")
    assert owns_instance(untagged, "uid-1", launched="ws1")
    assert not owns_instance(untagged, "uid-1", launched="ws2")
    assert not owns_instance(untagged, "uid-1", launched=None)


@pytest.mark.parametrize(
    ("kind", "found", "group", "node_class", "managed"),
    [
        (Machine, {labels.WORKSPACE: "w"}, "", "", True),
        (Machine, {labels.RAGENGINE: "r"}, "", "", True),
        (Machine, {"apps": "x"}, "", "", False),
        (NodeClaim, {labels.WORKSPACE: "w"}, "karpenter.azure.com", "AKSNodeClass", True),
        (NodeClaim, {"apps": "x"}, "kaito.sh", "KaitoNodeClass", True),
        (NodeClaim, {"apps": "x"}, "kaito.sh", "Other", False),
        (NodeClaim, {"apps": "x"}, "karpenter.azure.com", "KaitoNodeClass", False),
    ],
)
def test_claims_of_kaito_are_reconciled_and_those_of_others_are_not(
    kind: type[Claim], found: dict[str, str], group: str, node_class: str, managed: bool
) -> None:
    document = claim_manifest(kind).to_dict()
    document["metadata"]["labels"] = found
    if kind is NodeClaim:
        document["spec"]["nodeClassRef"] = {"group": group, "kind": node_class, "name": "x"}
    assert is_managed(kind.model_validate(document)) is managed


def test_only_the_condition_true_is_ready() -> None:
    assert reports_ready(builders.node("n"))
    assert not reports_ready(builders.node("n", ready=False))
    assert not reports_ready(Node.model_validate({"metadata": {"name": "n"}}))


@pytest.mark.parametrize(
    ("node_api", "kinds"),
    [
        (NodeApi.MACHINE, (Machine,)),
        (NodeApi.NODECLAIM, (NodeClaim,)),
        (NodeApi.BOTH, (Machine, NodeClaim)),
    ],
)
async def test_the_flag_determines_the_kinds(node_api: NodeApi, kinds: tuple[type[Claim], ...]) -> None:
    assert tuple(await served_kinds(node_api, Settings())) == kinds


async def test_an_installation_is_the_uid_of_kube_system_or_what_is_configured() -> None:
    namespace = Namespace.model_validate({"metadata": {"name": "kube-system", "uid": "cluster-uid"}})
    api = cast("Api", SimpleNamespace(client=Reads(namespace)))
    installation = Installation()
    assert await installation.id(api) == "cluster-uid"
    assert installation.namespace == namespace
    empty = cast("Api", SimpleNamespace(client=Reads()))
    assert await installation.id(empty) == "cluster-uid", "it is read once"
    assert await Installation("mine").id(empty) == "mine"
    with pytest.raises(Terminal, match=r"^namespace kube-system does not exist: set --installation-id$"):
        await Installation().id(empty)


def test_what_is_kept_about_a_claim_is_dropped() -> None:
    deps = Dependencies(cloud=cast("Any", None), settings=ProvisionerSettings(), kinds=())
    for uid in ("uid-1", "uid-2"):
        deps.backoff.attempts(uid).failures = 3
        deps.deletions.set_condition(uid, ConditionUpdate.true("InstanceTerminating", "InstanceTerminating"))
    deps.forget("uid-1")
    assert [deps.backoff.attempts(uid).failures for uid in ("uid-1", "uid-2")] == [0, 3]
    assert [deps.deletions.condition(uid) is None for uid in ("uid-1", "uid-2")] == [True, False]


def test_errors_of_several_offerings_are_the_most_temporary_one_with_every_message() -> None:
    errors = [
        CloudError("no such size", code="Size", category=ErrorCategory.SIZE),
        CloudError("no zone", code="Zone", category=ErrorCategory.ZONE),
        CloudError("none left", code="Capacity", category=ErrorCategory.CAPACITY),
        CloudError("over quota", code="Quota", category=ErrorCategory.QUOTA),
        CloudError("no zone", code="Zone", category=ErrorCategory.ZONE),
    ]
    found = combine(errors)
    assert (found.code, found.category) == ("Capacity", ErrorCategory.CAPACITY)
    assert found.message == "no such size; no zone; none left; over quota"
    assert combine(errors[:2]).code == "Zone"
    assert combine([errors[1], errors[3]]).code == "Quota"


class _Cloud:
    def __init__(self, error: CloudError | None = None) -> None:
        self._error = error

    async def get(self, name: str) -> Instance | None:
        del name
        if self._error is not None:
            raise self._error
        return None

    def instance_name(self, provider_id: str) -> str:
        return provider_id.rpartition("/")[2]


def _ignore(*_: object, **__: object) -> None:
    """Logs nothing."""


def _finalizing(deps: Dependencies, found: Node) -> Any:
    del deps
    log = SimpleNamespace(warning=_ignore)
    return cast("Any", SimpleNamespace(object=found, api=Reads(), log=log))


async def test_a_node_without_an_instance_is_counted_by_its_pool() -> None:
    for number, (key, pool) in enumerate(((labels.NODEPOOL, "kaito"), (labels.PROVISIONER_NAME, "default")), 1):
        deps = Dependencies(cloud=cast("Any", _Cloud()), settings=ProvisionerSettings(), kinds=(NodeClaim,))
        found = builders.node("n", ready=False, labels={labels.CLAIM_NAME: "ws1", labels.CLAIM_UID: "u", key: pool})
        assert await finalize_node(_finalizing(deps, found), deps=deps) is None, number
        (metric,) = deps.metrics.nodes_terminated.collect()
        counted = {s.labels["nodepool"]: s.value for s in metric.samples if s.name.endswith("_total")}
        assert counted == {pool: 1}


async def test_a_refused_read_of_the_instance_is_retried_and_stored_for_the_claim() -> None:
    error = CloudError("service unavailable", code="ServiceUnavailable", category=ErrorCategory.BLOCKED)
    deps = Dependencies(cloud=cast("Any", _Cloud(error)), settings=ProvisionerSettings(), kinds=(NodeClaim,))
    found = builders.node("n", ready=False, labels={labels.CLAIM_NAME: "ws1", labels.CLAIM_UID: "uid-1"})
    again = await finalize_node(_finalizing(deps, found), deps=deps)
    assert again is not None
    stored = deps.deletions.condition("uid-1")
    assert stored is not None
    assert (stored.status, stored.reason) == ("False", again.why)
    assert "service unavailable" in stored.message
