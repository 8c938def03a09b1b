"""Values that single steps write: metadata, registration, initialization, upstream's flags and the list of volumes."""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kaito.api import labels
from kaito.api.karpenter import Claim, NodeClaim
from kaito.provisioner.context import Dependencies, ReconcileContext
from kaito.provisioner.controllers import CLAIM_BACKOFF, NODE_BACKOFF
from kaito.provisioner.settings import ProvisionerSettings
from kaito.provisioner.status import StatusUpdate
from kaito.provisioner.steps.initialize import initialize
from kaito.provisioner.steps.register import register
from kaito.provisioner.upstream import ACCEPTED, HONORED, add_flags, apply, is_setting
from kaito.provisioner.volumes import VolumeAttachment, blocking_attachments
from kaito.runtime import Api
from kaito.runtime.flags import FlagParser
from kaito.runtime.kinds import Node, PersistentVolumeClaim, Pod
from kaito.runtime.testing import builders
from test.unit.provisioner.conftest import A100, claim_manifest

pytestmark = pytest.mark.virtual_time

NOW = datetime(2030, 1, 1, 2, tzinfo=UTC)


class Cluster:
    """Reads of nodes by the claim's index, and recorded patches."""

    def __init__(self, *nodes: Node) -> None:
        self._nodes = nodes
        self.patches: list[tuple[str, Any]] = []

    async def list(self, _: type[Any], **__: object) -> list[Any]:
        return [*self._nodes]

    async def patch(self, found: Any, change: Any) -> Any:
        self.patches.append((found.name, change.document))
        return found


class Cloud:
    """Names of instances in provider IDs; instance types with one GPU."""

    async def instance_type(self, name: str) -> Any:
        return SimpleNamespace(gpus=1) if name == A100 else None

    def instance_name(self, provider_id: str) -> str:
        return provider_id.rpartition("/")[2]


class Reconcile:
    """A request that records events."""

    def __init__(self, claim: Claim, cluster: Cluster) -> None:
        self.object, self.api = claim, cluster
        self.clock = SimpleNamespace(now=lambda: NOW)
        self.events: list[tuple[str, str, str]] = []
        self.changes: list[Mapping[str, object]] = []

    def event(self, level: str, reason: str, note: str) -> None:
        self.events.append((level, reason, note))

    def event_on_change(self, _: object, **details: object) -> bool:
        self.changes.append(details)
        return True


def context(cluster: Cluster, **metadata: Any) -> tuple[ReconcileContext, Reconcile]:
    document = claim_manifest(NodeClaim, "ws1", uid="uid-1").to_dict()
    document["metadata"]["labels"][labels.INSTANCE_TYPE] = A100
    document["metadata"] |= {"creationTimestamp": "2030-01-01T01:50:00Z", **metadata}
    claim = NodeClaim.model_validate(document)
    deps = Dependencies(cloud=cast("Any", Cloud()), settings=ProvisionerSettings(), kinds=(NodeClaim,))
    request = Reconcile(claim, cluster)
    return ReconcileContext(cast("Any", request), deps, claim, StatusUpdate(claim)), request


def node(name: str = "n1", provider_id: str = "azure:///x/ws1", **metadata: Any) -> Node:
    document = builders.node(name, capacity={labels.NVIDIA_GPU: "1"}, provider_id=provider_id).to_dict()
    document["metadata"] |= metadata
    return Node.model_validate(document)


def condition(ctx: ReconcileContext, condition_type: str) -> tuple[str, str, str]:
    update = ctx.status.conditions[condition_type]
    return update.status, update.reason, update.message


DELETING: dict[str, Any] = {"deletionTimestamp": "2030-01-01T01:59:00Z", "finalizers": ["x/y"]}


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        pytest.param([], ("Unknown", "NodeNotFound", "Node not registered with cluster"), id="no node"),
        pytest.param(
            [node("n1"), node("n2")],
            ("False", "MultipleNodesFound", "Invariant violated, matched multiple nodes: n1, n2"),
            id="two nodes",
        ),
        pytest.param([node(**DELETING)], ("Unknown", "NodeNotFound", "node n1 is being deleted"), id="deleting"),
        pytest.param(
            [node(provider_id="")],
            ("Unknown", "ProviderIDMissing", "node n1 has joined and has no providerID yet"),
            id="no provider ID",
        ),
        pytest.param(
            [node(provider_id="azure:///x/ws2")],
            (
                "False",
                "ProviderIDMismatch",
                "node n1 has providerID azure:///x/ws2, which does not belong to claim ws1",
            ),
            id="another instance",
        ),
    ],
)
async def test_a_node_that_is_not_registered_has_its_reason(nodes: list[Node], found: tuple[str, str, str]) -> None:
    cluster = Cluster(*nodes)
    ctx, _ = context(cluster)
    assert await register(ctx) is None
    assert condition(ctx, NodeClaim.stages.registered) == found
    assert cluster.patches == []


async def test_a_registered_node_is_counted_with_its_age_and_initialized_at_once() -> None:
    cluster = Cluster(node(labels={labels.REGION: "eastus", labels.ZONE: "0"}))
    ctx, request = context(cluster)
    assert await register(ctx) is not None
    assert condition(ctx, NodeClaim.stages.registered)[0] == "True"
    assert request.events == [("Normal", "Registered", "node n1 has joined")]
    assert ctx.pending == {"labels": {labels.REGION: "eastus"}}, "zone 0 stands for a node without a zone"
    ((_, change),) = cluster.patches
    assert change["metadata"]["labels"][labels.REGISTERED] == change["metadata"]["labels"][labels.INITIALIZED] == "true"
    (seconds,) = ctx.deps.metrics.stage_seconds.collect()
    sums = {tuple(s.labels.values()): s.value for s in seconds.samples if s.name.endswith("_sum")}
    assert sums == {("registered", A100): 600}


async def test_an_initialized_node_is_reported_with_its_amounts() -> None:
    ready = node()
    ctx, request = context(Cluster(ready))
    await initialize(ctx, ready)
    assert condition(ctx, NodeClaim.stages.initialized)[0] == "True"
    assert request.events == [("Normal", "Initialized", "node n1 is usable")]
    assert ctx.status.fields == {"capacity": ready.status.capacity, "allocatable": ready.status.allocatable}
    (seconds,) = ctx.deps.metrics.stage_seconds.collect()
    sums = {tuple(s.labels.values()): s.value for s in seconds.samples if s.name.endswith("_sum")}
    assert sums == {("initialized", A100): 600}


async def test_a_node_that_is_not_ready_is_mirrored_with_its_cause() -> None:
    document = builders.node("n1", ready=False).to_dict()
    document["status"]["conditions"][0] |= {"reason": "KubeletNotReady", "message": "PLEG is not healthy"}
    broken = Node.model_validate(document)
    ctx, request = context(Cluster(broken))
    await initialize(ctx, broken)
    cause = "KubeletNotReady PLEG is not healthy"
    assert condition(ctx, "NodeReady") == ("False", "NodeNotReady", f"Node status is NotReady: {cause}")
    note = f"node n1 is NotReady: {cause}"
    assert request.changes == [{"on": "status", "reason": "NodeUnhealthy", "note": note}]


async def test_staged_metadata_is_what_differs_and_is_sent_once() -> None:
    cluster = Cluster()
    ctx, _ = context(cluster, annotations={"a": "1", "b": "2"})
    ctx.stage_metadata(annotations={"a": None, "b": "2", "c": "3"}, add_labels={labels.INSTANCE_TYPE: A100, "x": "y"})
    assert ctx.claim.annotations == {"b": "2", "c": "3"}
    assert ctx.claim.labels["x"] == "y"
    await ctx.write_metadata()
    await ctx.write_metadata()
    assert cluster.patches == [("ws1", {"metadata": {"annotations": {"a": None, "c": "3"}, "labels": {"x": "y"}}})]


def test_the_backoff_of_claims_and_nodes() -> None:
    assert (CLAIM_BACKOFF.base, CLAIM_BACKOFF.cap) == (1, 60)
    assert (NODE_BACKOFF.base, NODE_BACKOFF.cap) == (0.1, 10)


@pytest.mark.parametrize(
    ("value", "setting"),
    [("8080", True), ("", False), (None, False), ("tcp://10.0.0.1:80", False), ("udp://x", False), ("sctp://x", False)],
)
def test_a_variable_of_a_service_is_not_a_setting(value: str | None, setting: bool) -> None:
    assert is_setting(value) is setting


def parsed(*given: str) -> argparse.Namespace:
    flags = FlagParser(prog="x", description="upstream")
    add_flags(flags)
    args = flags.parse_args([*given])
    args.metrics_bind_address = args.health_probe_bind_address = "default"
    args.debug_endpoints, args.leader_elect = False, True
    return args


@pytest.mark.parametrize(("port", "address"), [("0", "0"), ("1", ":1"), ("65535", ":65535"), ("00080", ":80")])
def test_a_port_of_upstream_is_an_address(port: str, address: str) -> None:
    args = parsed("--metrics-port", port, "--health-probe-port", port)
    assert apply(args, {}) == ()
    assert (args.metrics_bind_address, args.health_probe_bind_address) == (address, address)


@pytest.mark.parametrize("port", ["65536", "-1", "x", "000080", "\u0663"])
def test_what_is_not_a_port_is_refused(port: str) -> None:
    with pytest.raises(ValueError, match=r"--metrics-port is .*: use a port from 0 to 65535"):
        apply(parsed(f"--metrics-port={port}"), {})


def test_the_help_of_each_flag_of_upstream_has_its_effect_and_the_reason() -> None:
    helps: dict[str, str] = {}

    def record(name: str, *, help: str, **_: object) -> None:  # noqa: A002 -- the parameter of argparse
        helps[name] = help

    add_flags(cast("FlagParser", SimpleNamespace(add_argument=record)))
    assert helps == {
        **{name: f"upstream's flag, honored: {reason}" for name, reason in HONORED.items()},
        **{name: f"upstream's flag, no effect: {reason}" for name, reason in ACCEPTED.items()},
    }


class Volumes:
    """Attachments and claims of volumes."""

    def __init__(self, attachments: list[VolumeAttachment], claims: dict[str, str]) -> None:
        self._attachments = attachments
        self._claims = claims

    async def list(self, _: type[Any]) -> list[Any]:
        return [*self._attachments]

    async def find(self, kind: type[Any], name: str, namespace: str) -> Any:
        assert (kind, namespace) == (PersistentVolumeClaim, "default")
        if name not in self._claims:
            return None
        document = {"metadata": {"name": name}, "spec": {"volumeName": self._claims[name]}}
        return PersistentVolumeClaim.model_validate(document)


def attachment(name: str, node_name: str, volume: str) -> VolumeAttachment:
    spec = {"attacher": "disk", "nodeName": node_name, "source": {"persistentVolumeName": volume}}
    return VolumeAttachment.model_validate({"metadata": {"name": name}, "spec": spec})


def pod(*claims: str) -> Pod:
    document = builders.pod("p").to_dict()
    document["spec"]["volumes"] = [
        {"name": "tmp", "emptyDir": {}},
        *({"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims),
    ]
    return Pod.model_validate(document)


async def test_attachments_block_unless_their_pods_stay_on_the_node() -> None:
    attachments = [attachment("a", "n1", "v1"), attachment("b", "n1", "v2"), attachment("c", "n2", "v3")]
    api = cast("Api", SimpleNamespace(client=Volumes(attachments, {"one": "v1", "unbound": ""})))
    assert [each.name for each in await blocking_attachments(api, "n1", [])] == ["a", "b"]
    remaining = [pod("one", "unbound", "absent")]
    assert [each.name for each in await blocking_attachments(api, "n1", remaining)] == ["b"]
    assert await blocking_attachments(api, "n3", remaining) == []
