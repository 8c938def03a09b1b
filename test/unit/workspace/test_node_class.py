"""The node class of claims: flags, annotations, what a claim contains for each provider, and checks before a claim."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import Field, ValidationError

from kaito.api import NodeClaim, Workspace, labels
from kaito.api.karpenter import NodeClassRef
from kaito.runtime.crd import Version, crd
from kaito.runtime.kinds import Event, Node
from kaito.runtime.meta import Condition, Model, ObjectMeta, Resource
from kaito.runtime.testing import World
from kaito.workspace.flags import parse
from kaito.workspace.manifests.claim import node_claim
from kaito.workspace.node_class import NodeClassSettings
from kaito.workspace.plan import Hardware
from kaito.workspace.preflight import validate_workspace
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.steps.status import NEW_WORKLOAD_SECONDS
from test.unit.workspace.test_replacement import Life, delete_at_once

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

AKS = "karpenter.azure.com/AKSNodeClass"
KWOK = NodeClassSettings(karpenter_node_class_group="karpenter.kwok.sh")
MINE = NodeClassSettings(karpenter_node_class_group="mine.example.com", karpenter_node_class_kind="Recipe")


class ClassStatus(Model):
    conditions: list[Condition] = Field(default_factory=list[Condition])


class KwokClass(
    Resource, api="karpenter.kwok.sh/v1alpha1", kind="KWOKNodeClass", plural="kwoknodeclasses", namespaced=False
):
    status: ClassStatus = Field(default_factory=ClassStatus)


class Recipe(Resource, api="mine.example.com/v2", kind="Recipe", plural="recipebooks", namespaced=False):
    status: ClassStatus = Field(default_factory=ClassStatus)


@pytest.fixture
def node_api() -> NodeApi:
    return NodeApi.NODECLAIM


def claims_of(settings: NodeClassSettings, cloud: str = "azure") -> WorkspaceSettings:
    return WorkspaceSettings.model_validate({"node_api": "nodeclaim", "node_class": settings, "cloud": cloud})


@pytest.fixture
def settings() -> WorkspaceSettings:
    return claims_of(KWOK)


def annotated(workspace: Workspace, **annotations: str) -> Workspace:
    found = {f"kaito.sh/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return workspace.with_metadata(annotations=found)


def put_class(world: World, name: str = "default", status: str = "True", message: str = "") -> None:
    world.put(KwokClass(metadata=ObjectMeta(name=name)))
    condition = {"type": "Ready", "status": status, "reason": "Subnets", "message": message}
    condition["lastTransitionTime"] = "2030-01-01T00:00:00Z"
    world.patch(KwokClass, name, {"status": {"conditions": [condition]}}, subresource="status")


@asynccontextmanager
async def running(cluster: "Cluster", workspace: Workspace) -> AsyncGenerator[None]:
    cluster.apply(workspace)
    async with cluster.controller():
        await cluster.world.settle()
        yield


def blocked(cluster: "Cluster", reason: str, words: str) -> None:
    """No claim, and the same cause in every column."""
    assert cluster.claims() == []
    for column in ("NodeClaimReady", "ResourceReady", "WorkspaceReady"):
        status, found, message = cluster.conditions()[column]
        assert (status, found) == ("False", reason)
        assert words in message


# ── flags ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("argv", "cloud", "expected"),
    [
        ([], "azure", "kaito.sh/KaitoNodeClass/default"),
        ([], "aws", "karpenter.k8s.aws/EC2NodeClass/default"),
        (["--karpenter-node-class-group=karpenter.azure.com"], "azure", "karpenter.azure.com/AKSNodeClass/default"),
        (["--karpenter-node-class-kind=AKSNodeClass"], "azure", "karpenter.azure.com/AKSNodeClass/default"),
        (
            [
                "--karpenter-node-class-group=a.test",
                "--karpenter-node-class-kind=B",
                "--karpenter-node-class-name=c",
            ],
            "arc",
            "a.test/B/c",
        ),
    ],
)
def test_flags_set_the_node_class(phi: Workspace, argv: list[str], cloud: str, expected: str) -> None:
    found = parse(["--node-api=nodeclaim", *argv], {"CLOUD_PROVIDER": cloud}).workspace
    assert str(found.node_class.reference_for(phi, cloud)) == expected


def test_upstreams_four_flags_set_how_the_class_is_read(phi: Workspace) -> None:
    argv = [
        "--karpenter-node-class-group=mine.example.com",
        "--karpenter-node-class-kind=Recipe",
        "--karpenter-node-class-version=v2",
        "--karpenter-node-class-resource-name=recipebooks",
    ]
    classes = parse(["--node-api=nodeclaim", *argv], {}).workspace.node_class
    kind = classes.kind_of(classes.reference_for(phi, "azure"), "azure")
    assert tuple(kind) == ("mine.example.com", "Recipe", "v2", "recipebooks")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--node-api=machine", "--karpenter-node-class-group=karpenter.azure.com"], "needs --node-api=nodeclaim"),
        (["--node-api=nodeclaim", "--karpenter-node-class-group=a.test"], "--karpenter-node-class-kind is required"),
        (["--node-api=nodeclaim", "--karpenter-node-class-kind=Mine"], "--karpenter-node-class-group is required"),
        (["--node-api=nodeclaim", "--karpenter-node-class-version=v1"], "-group and -kind are required"),
        (["--node-api=nodeclaim", "--karpenter-node-class-group=A/b"], "not an API group"),
        (["--node-api=nodeclaim", "--karpenter-node-class-kind=aks"], "not a kind, such as AKSNodeClass"),
        (["--node-api=nodeclaim", "--karpenter-node-class-name=A b"], "not the name of an object"),
        (["--node-api=karpenter", "--karpenter-node-class-kind=KaitoNodeClass"], "does not fulfill NodePools"),
    ],
)
def test_a_node_class_that_cannot_be_used_stops_the_start(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(argv, {})
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("provisioner", ["azure-gpu-provisioner", "byo"])
def test_a_node_class_without_effect_is_noted(phi: Workspace, provisioner: str) -> None:
    """gpu-provisioner fulfills claims of its own class only; upstream ignores the flags with it."""
    argv = [f"--node-provisioner={provisioner}", "--karpenter-node-class-group=karpenter.k8s.aws"]
    invocation = parse(argv, {})
    assert [note for note in invocation.notes if "--karpenter-node-class-* has no effect" in note]
    assert invocation.workspace.node_class == NodeClassSettings()


# ── annotations ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, "karpenter.kwok.sh/KWOKNodeClass/default"),
        ({"node_class_name": " gpu "}, "karpenter.kwok.sh/KWOKNodeClass/gpu"),
        ({"node_class": "karpenter.k8s.aws/EC2NodeClass/gpu.large"}, "karpenter.k8s.aws/EC2NodeClass/gpu.large"),
    ],
)
def test_an_annotation_chooses_the_class_of_one_workspace(
    phi: Workspace, hardware: Hardware, annotations: dict[str, str], expected: str
) -> None:
    chosen = annotated(phi, **annotations)
    assert validate_workspace(chosen, None, claims_of(KWOK)) == []
    claim = node_claim(chosen, hardware, claims_of(KWOK), index=0, serial=0)
    assert isinstance(claim, NodeClaim)
    assert str(claim.spec.node_class_ref) == expected


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"node_class": "AKSNodeClass/default"}, "write group/kind/name"),
        ({"node_class": "a/B/c/d"}, "write group/kind/name"),
        ({"node_class": "Karpenter/AKSNodeClass/default"}, "is not an API group"),
        ({"node_class": "karpenter.azure.com/aksnodeclasses/default"}, "is not a kind"),
        ({"node_class": "karpenter.azure.com/AKSNodeClass/My Class"}, "is not the name of an object"),
        ({"node_class": ""}, "write group/kind/name"),
        ({"node_class": "a.test/B/c", "node_class_name": "default"}, "cannot be combined"),
        ({"node_class_name": "My Class"}, "is not the name of an object"),
    ],
)
def test_a_malformed_annotation_is_rejected_at_admission(
    phi: Workspace, annotations: dict[str, str], words: str
) -> None:
    (found,) = validate_workspace(annotated(phi, **annotations), None, claims_of(KWOK))
    assert found.severity == "error"
    assert words in found.message


@pytest.mark.parametrize(
    ("settings", "severity", "words"),
    [
        (WorkspaceSettings(), "error", "Machines have no node class"),
        (WorkspaceSettings(node_api=NodeApi.BYO), "warning", "uses existing nodes"),
    ],
)
def test_an_annotation_without_a_claim_that_could_have_it(
    phi: Workspace, settings: WorkspaceSettings, severity: str, words: str
) -> None:
    chosen = annotated(phi, node_class="karpenter.azure.com/AKSNodeClass/default")
    found = [v for v in validate_workspace(chosen, None, settings) if "node-class" in v.field]
    assert [(v.severity, words in v.message) for v in found] == [(severity, True)]


def test_gpu_provisioners_class_has_one_name(phi: Workspace) -> None:
    (found,) = validate_workspace(annotated(phi, node_class_name="big"), None, claims_of(NodeClassSettings()))
    assert "use default" in found.message


@pytest.mark.parametrize("text", ["", "a", "a/b", "//", "a/B/", "/B/c", "a/B/c/", "a.b/C/d/e"])
def test_a_reference_has_three_parts(text: str) -> None:
    with pytest.raises(ValueError, match=r"write group/kind/name|not the name of an object"):
        NodeClassRef.parse(text)


def test_settings_report_the_flag() -> None:
    with pytest.raises(ValidationError, match=r"--karpenter-node-class-kind is required with a\.test"):
        NodeClassSettings(karpenter_node_class_group="a.test")


# ── claims by provider ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("group", "keys", "requests"),
    [
        ("kaito.sh", ["karpenter.azure.com/sku-name"], ["storage"]),
        (
            "karpenter.azure.com",
            ["karpenter.azure.com/sku-name", "karpenter.azure.com/placement-scope", "karpenter.sh/capacity-type"],
            [],
        ),
        ("karpenter.kwok.sh", ["karpenter.sh/capacity-type"], []),
    ],
)
def test_a_claim_contains_only_what_its_provider_can_satisfy(
    phi: Workspace, hardware: Hardware, group: str, keys: list[str], requests: list[str]
) -> None:
    settings = claims_of(NodeClassSettings(karpenter_node_class_group=group))
    spec: dict[str, Any] = node_claim(phi, hardware, settings, index=0, serial=0).to_dict()["spec"]
    common = ["karpenter.sh/nodepool", "node.kubernetes.io/instance-type", "kubernetes.io/os"]
    assert [each["key"] for each in spec["requirements"]] == [*common, *keys]
    assert list(spec.get("resources", {}).get("requests", {})) == requests
    assert spec["expireAfter"] == "Never"


@pytest.mark.parametrize(
    ("classes", "annotation", "expected"),
    [
        (NodeClassSettings(), "", True),
        (KWOK, "", False),
        (KWOK, "kaito.sh/KaitoNodeClass/default", True),
        (NodeClassSettings(), f"{AKS}/default", False),
    ],
)
def test_an_image_family_is_for_gpu_provisioner(
    phi: Workspace,
    hardware: Hardware,
    classes: NodeClassSettings,
    annotation: str,
    expected: bool,
) -> None:
    """The node class of a Karpenter provider determines the image."""
    chosen = annotated(phi, node_image_family="azurelinux", **({"node_class": annotation} if annotation else {}))
    claim = node_claim(chosen, hardware, claims_of(classes), index=0, serial=0)
    assert (claim.annotations.get(labels.NODE_IMAGE_FAMILY) == "azurelinux") is expected
    found = validate_workspace(chosen, None, claims_of(classes))
    assert [(v.severity, "has no effect" in v.message) for v in found] == ([] if expected else [("warning", True)])


# ── before a claim is created ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_kind_that_is_not_installed(cluster: "Cluster", phi: Workspace) -> None:
    """One event, no claim; when the provider is installed, the Workspace goes on without an edit."""
    async with running(cluster, phi):
        await cluster.world.advance(600)
        blocked(cluster, "NodeClassKindNotInstalled", "does not serve the kind KWOKNodeClass")
        events = [e for e in cluster.world.list(Event) if e.reason == "NodeClassKindNotInstalled"]
        assert len(events) == 1
        cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
        put_class(cluster.world)
        await cluster.world.advance(11)
        assert len(cluster.claims()) == 1


async def test_a_class_that_does_not_exist(cluster: "Cluster", phi: Workspace) -> None:
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(cluster.world, "other")
    async with running(cluster, phi):
        await cluster.world.advance(60)
        blocked(cluster, "NodeClassNotFound", "karpenter.kwok.sh/KWOKNodeClass/default does not exist: create it")
        change = {"metadata": {"annotations": {labels.NODE_CLASS_NAME: "other"}}}
        cluster.world.patch(Workspace, phi.name, change)
        await cluster.world.settle()
        assert cluster.claim().to_dict()["spec"]["nodeClassRef"]["name"] == "other"


async def test_a_class_that_is_not_ready(cluster: "Cluster", phi: Workspace) -> None:
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(cluster.world, status="False", message="no subnet matches")
    async with running(cluster, phi):
        blocked(cluster, "NodeClassNotReady", "is not Ready: Subnets: no subnet matches")
        put_class(cluster.world)
        await cluster.world.advance(11)
        assert len(cluster.claims()) == 1


@pytest.mark.parametrize("words", ["is Ready: Subnets: still looking"])
async def test_readiness_that_the_provider_does_not_know(cluster: "Cluster", phi: Workspace, words: str) -> None:
    """The claim is created: Karpenter launches when the class turns Ready."""
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(cluster.world, status="Unknown", message="still looking")
    async with running(cluster, phi):
        assert len(cluster.claims()) == 1
        assert words in cluster.conditions()["NodeClaimReady"][2]
        cluster.join(cluster.claim())
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)
        assert words not in cluster.conditions()["NodeClaimReady"][2]


async def test_a_class_that_may_not_be_read_is_unknown(cluster: "Cluster", phi: Workspace) -> None:
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    cluster.world.deny("get", KwokClass)
    async with running(cluster, phi):
        assert len(cluster.claims()) == 1
        message = cluster.conditions()["NodeClaimReady"][2]
        assert "it is unknown whether node class karpenter.kwok.sh/KWOKNodeClass/default is Ready: " in message


@pytest.mark.parametrize("exists", [True, False])
async def test_an_unknown_kind_is_found_by_discovery(world: World, phi: Workspace, exists: bool) -> None:
    from test.unit.workspace.conftest import Cluster

    cluster = Cluster(world, claims_of(MINE))
    world.install(crd([Version(model=Recipe, storage=True)]))
    if exists:
        world.put(Recipe(metadata=ObjectMeta(name="default")))
    async with running(cluster, phi):
        if exists:
            assert len(cluster.claims()) == 1
        else:
            blocked(cluster, "NodeClassNotFound", "mine.example.com/Recipe/default does not exist")


async def test_many_workspaces_read_the_class_once(cluster: "Cluster", phi: Workspace) -> None:
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(cluster.world)
    async with running(cluster, phi):
        for number in range(5):
            other = phi.with_metadata(name=f"ws-{number}", uid=f"0b8e7c0e-0000-4000-8000-00000000010{number}")
            cluster.apply(other)
        await cluster.world.settle()
        assert len(cluster.claims()) == 6
        assert cluster.world.count("get", KwokClass) == 1


async def test_a_running_workspace_does_not_read_its_class(cluster: "Cluster", phi: Workspace) -> None:
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(cluster.world)
    async with running(cluster, phi):
        await cluster.until_serving()
        cluster.world.delete(KwokClass, "default", "")
        await cluster.world.advance(700)
        assert cluster.columns() == ("True", "True", "True")
        assert cluster.world.count("get", KwokClass) == 1


async def test_a_class_taken_away_bounds_the_creations(cluster: "Cluster", phi: Workspace) -> None:
    """Karpenter deletes the claim at once. The class explains it, and no claim follows until it exists again."""
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(cluster.world)
    cluster.apply(phi)
    life = Life(cluster)
    async with cluster.controller():
        await cluster.world.settle()
        cluster.world.delete(KwokClass, "default", "")
        await life.run(900, delete_at_once, checked=False)
        assert len(life.creations) == 1
        status, reason, message = cluster.conditions()["NodeClaimReady"]
        assert (status, reason) == ("False", "NodeClassNotFound")
        assert "claims were lost once, most recently because: " in message
        put_class(cluster.world)
        await life.run(20, lambda _life, _claim: None, checked=False)
        assert len(cluster.claims()) == 1


async def test_a_silent_deletion_is_explained_by_the_class(cluster: "Cluster", phi: Workspace) -> None:
    """Karpenter v1.14 records no Event when it deletes a claim because its class is not ready."""
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(cluster.world)
    async with running(cluster, phi):
        put_class(cluster.world, status="False", message="no subnet matches")
        cluster.world.delete(NodeClaim, cluster.claim().name, "")
        await cluster.world.settle()
        assert (
            "because: node class karpenter.kwok.sh/KWOKNodeClass/default is not Ready: Subnets: no subnet matches"
            in (cluster.conditions()["WorkspaceReady"][2])
        )


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_claim_that_no_provisioner_reports_on(cluster: "Cluster", phi: Workspace) -> None:
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(cluster.world)
    async with running(cluster, phi):
        await cluster.world.advance(59)
        assert "no provisioner" not in cluster.conditions()["WorkspaceReady"][2]
        await cluster.world.advance(2)
        name = cluster.claim().name
        assert cluster.conditions()["WorkspaceReady"][2] == (
            f"0 of 1 node claims ready; no provisioner has reported on NodeClaim {name}: check that a provisioner for "
            "node class karpenter.kwok.sh/KWOKNodeClass/default runs"
        )
        cluster.join(cluster.claim())
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)
        assert "no provisioner" not in cluster.conditions()["WorkspaceReady"][2]


async def test_a_long_message_of_a_provisioner_is_in_one_condition(cluster: "Cluster", phi: Workspace) -> None:
    """The Go gpu-provisioner reports the cloud's whole response, on many lines."""
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(cluster.world)
    dump = "creating agent pool failed: QuotaExceeded\n" + "header: value of a response\n" * 400
    async with running(cluster, phi):
        claim = cluster.claim()
        launched = {"type": "Launched", "status": "Unknown", "reason": "LaunchFailed", "message": dump}
        cluster.set_claim_status(claim, launched)
        await cluster.world.settle()
        found = {name: c[2] for name, c in cluster.conditions().items() if "QuotaExceeded" in c[2]}
        assert set(found) >= {"NodeClaimReady", "ResourceReady", "InferenceReady", "WorkspaceReady"}
        assert all("\n" not in message for message in found.values())
        own = found.pop("NodeClaimReady")
        assert 700 < len(own) < 1000
        assert own.endswith("…")
        assert all(len(message) < 600 for message in found.values())
        assert all("(in full in condition NodeClaimReady)" in message for message in found.values())


@pytest.mark.parametrize(("size", "is_reported"), [("100Gi", False), ("20Gi", True), ("", False)])
async def test_a_disk_that_is_too_small_for_the_model_is_a_warning(
    cluster: "Cluster",
    phi: Workspace,
    size: str,
    is_reported: bool,
) -> None:
    """With Karpenter, the node class determines the size of the disk."""
    cluster.world.install(crd([Version(model=KwokClass, storage=True)]))
    put_class(cluster.world)
    async with running(cluster, phi):
        node = cluster.join(cluster.claim())
        if size:
            patch = {"status": {"capacity": {"ephemeral-storage": size, labels.NVIDIA_GPU: "1"}}}
            cluster.world.patch(Node, node.name, patch, subresource="status")
        cluster.world.patch(Workspace, phi.name, {"metadata": {"labels": {"again": "true"}}})
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)
        status, _, message = cluster.conditions()["NodesReady"]
        assert status == "True"
        assert ("20Gi of ephemeral-storage, less than the planned disk of" in message) is is_reported


@pytest.mark.parametrize(
    ("argv", "cloud", "expected"),
    [
        ([], "azure", "karpenter.azure.com/AKSNodeClass/default"),
        (["--karpenter-node-class-name=gpu"], "azure", "karpenter.azure.com/AKSNodeClass/gpu"),
        ([], "aws", "karpenter.k8s.aws/EC2NodeClass/default"),
        (["--karpenter-node-class-group=karpenter.kwok.sh"], "azure", "karpenter.kwok.sh/KWOKNodeClass/default"),
    ],
)
def test_node_pools_have_the_class_of_a_karpenter_provider(
    phi: Workspace, argv: list[str], cloud: str, expected: str
) -> None:
    found = parse(["--node-provisioner=karpenter", *argv], {"CLOUD_PROVIDER": cloud}).workspace
    assert str(found.node_class.reference_for(phi, cloud)) == expected
