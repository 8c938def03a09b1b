"""What a claim may ask for, value by value: zones, capacity types, fixed requirements, disks, tags, taints."""

from typing import Any

import pytest

from kaito.api.karpenter import Claim, Machine, NodeClaim
from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.metrics import CloudMetrics
from kaito.provisioner.plan import InvalidClaim, LaunchPlan, Zone, Zones, plan_for
from kaito.provisioner.settings import ProvisionerSettings

ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
CAPACITY, INSTANCE = "karpenter.sh/capacity-type", "node.kubernetes.io/instance-type"


def planned(
    *requirements: tuple[str, str, list[str]],
    kind: type[Claim] = NodeClaim,
    storage: str = "120Gi",
    spec: dict[str, Any] | None = None,
    **metadata: Any,
) -> LaunchPlan:
    sizes = [] if any(key == INSTANCE for key, *_ in requirements) else [(INSTANCE, "In", ["Standard_NC24ads_A100_v4"])]
    document = {
        "metadata": {"name": "ws1", "uid": "u-1", **metadata},
        "spec": {
            "requirements": [
                {"key": key, "operator": operator, "values": values}
                for key, operator, values in (*sizes, *requirements)
            ],
            "resources": {"requests": {"storage": storage}},
            "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
            **(spec or {}),
        },
    }
    azure = AzureSettings(
        subscription_id="s", resource_group="g", cluster="c", endpoint="http://localhost", credential_mode="fake"
    )
    provider = AzureProvider(azure, CloudMetrics())
    return plan_for(
        kind.model_validate(document), provider=provider, installation="here", settings=ProvisionerSettings()
    )


ANY: list[tuple[str, str, list[str]]] = []
EXISTS: list[tuple[str, str, list[str]]] = [(CAPACITY, "Exists", [])]


@pytest.mark.parametrize(
    ("requirements", "capacity_types"),
    [
        (ANY, ("on-demand",)),
        ([(CAPACITY, "In", ["spot"])], ("spot",)),
        ([(CAPACITY, "In", ["on-demand", "spot"])], ("spot", "on-demand")),
        ([(CAPACITY, "In", ["on-demand", "reserved"])], ("on-demand",)),
        ([(CAPACITY, "NotIn", ["on-demand"])], ("spot",)),
        ([(CAPACITY, "NotIn", ["spot"])], ("on-demand",)),
        ([(CAPACITY, "In", ["spot", "on-demand"]), (CAPACITY, "NotIn", ["spot"])], ("on-demand",)),
        (EXISTS, ("on-demand",)),
    ],
)
def test_spot_comes_before_on_demand_where_both_are_allowed(
    requirements: list[tuple[str, str, list[str]]], capacity_types: tuple[str, ...]
) -> None:
    plan = planned(*requirements)
    assert plan.capacity_types == capacity_types
    assert plan.instance.spot is (capacity_types[0] == "spot")


@pytest.mark.parametrize(
    ("requirements", "zones", "numbers", "is_restricted"),
    [
        (ANY, Zones(), (), False),
        ([(ZONE, "In", ["1", "2"])], Zones((Zone("1"), Zone("2"))), ("1", "2"), True),
        ([(ZONE, "In", ["EastUS-3"])], Zones((Zone("3", "eastus"),)), ("3",), True),
        ([(ZONE, "In", ["0"])], Zones((Zone(""),)), (), True),
        ([(ZONE, "In", ["eastus-0", "1"])], Zones((Zone("", "eastus"), Zone("1"))), ("1",), True),
        ([(ZONE, "NotIn", ["2", "1"])], Zones(None, (Zone("1"), Zone("2"))), (), True),
        ([(ZONE, "In", ["1", "2"]), (ZONE, "NotIn", ["1"])], Zones((Zone("2"),), (Zone("1"),)), ("2",), True),
        ([(REGION, "In", ["EastUS", "westus"])], Zones(regions=frozenset({"eastus", "westus"})), (), False),
    ],
)
def test_zones_and_regions_are_read_as_the_labels_of_nodes(
    requirements: list[tuple[str, str, list[str]]], zones: Zones, numbers: tuple[str, ...], *, is_restricted: bool
) -> None:
    plan = planned(*requirements)
    assert (plan.zones, plan.instance.zones, plan.zones.is_restricted) == (zones, numbers, is_restricted)


@pytest.mark.parametrize(
    ("zone", "text"),
    [(Zone("1", "eastus"), "eastus-1"), (Zone("1"), "1"), (Zone(""), "0"), (Zone("", "eastus"), "0")],
)
def test_a_zone_is_written_as_the_label_of_a_node(zone: Zone, text: str) -> None:
    assert str(zone) == text


@pytest.mark.parametrize(
    ("zone", "location", "is_in"),
    [
        (Zone("1"), "eastus", True),
        (Zone("1", "eastus"), "", True),
        (Zone("1", "eastus"), "EastUS", True),
        (Zone("1", "eastus"), "westus", False),
    ],
)
def test_a_zone_is_one_of_a_region(zone: Zone, location: str, *, is_in: bool) -> None:
    assert zone.is_in(location) is is_in
    assert Zones(excluded=(zone,)).excludes("1", location) is is_in
    assert not Zones(excluded=(zone,)).excludes("2", location)


SUPPORTED = "supported values are"
REFUSED: list[tuple[list[tuple[str, str, list[str]]], str]] = [
    (
        [(INSTANCE, "Exists", [])],
        f"the claim has no requirement {INSTANCE} with operator In and a value: name an instance type",
    ),
    (
        [(INSTANCE, "NotIn", ["x"])],
        f"the claim has no requirement {INSTANCE} with operator In and a value: name an instance type",
    ),
    (
        [("kubernetes.io/os", "NotIn", ["windows"])],
        "requirement kubernetes.io/os with operator NotIn is not supported: use In",
    ),
    ([(ZONE, "Gt", ["1"])], f"requirement {ZONE} with operator Gt is not supported: use In or NotIn"),
    (
        [(CAPACITY, "DoesNotExist", [])],
        f"requirement {CAPACITY} with operator DoesNotExist is not supported: use In or NotIn",
    ),
    (
        [("kubernetes.io/os", "In", ["windows"])],
        f"requirement kubernetes.io/os In ['windows'] cannot be met: {SUPPORTED} linux",
    ),
    (
        [("kubernetes.io/arch", "In", ["s390x"])],
        f"requirement kubernetes.io/arch In ['s390x'] cannot be met: {SUPPORTED} amd64, arm64",
    ),
    (
        [(CAPACITY, "In", ["reserved"])],
        f"requirement {CAPACITY} In ['reserved'], NotIn [] cannot be met: {SUPPORTED} spot, on-demand",
    ),
    (
        [(CAPACITY, "NotIn", ["spot", "on-demand"])],
        f"requirement {CAPACITY} In ['spot'], NotIn ['on-demand', 'spot'] cannot be met: {SUPPORTED} spot, on-demand",
    ),
    ([(ZONE, "In", ["1"]), (ZONE, "NotIn", ["1"])], f"the requirements on {ZONE} leave no zone: In ['1'], NotIn ['1']"),
    ([(ZONE, "In", ["1"]), (ZONE, "In", ["2"])], f"the requirements on {ZONE} leave no zone: In [], NotIn []"),
    ([(REGION, "In", ["a"]), (REGION, "In", ["b"])], f"the requirements on {REGION} leave no region"),
    (
        [(ZONE, "In", ["somewhere"])],
        f"requirement {ZONE}: 'somewhere' is not a zone: use a number such as 1, or REGION-1",
    ),
    ([(ZONE, "In", ["12"])], f"requirement {ZONE}: '12' is not a zone: use a number such as 1, or REGION-1"),
]


@pytest.mark.parametrize(("requirements", "message"), REFUSED, ids=[str(index) for index in range(len(REFUSED))])
@pytest.mark.parametrize("kind", [Machine, NodeClaim])
def test_a_requirement_that_cannot_be_met_is_named(
    kind: type[Claim], requirements: list[tuple[str, str, list[str]]], message: str
) -> None:
    with pytest.raises(InvalidClaim) as caught:
        planned(*requirements, kind=kind)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "requirement",
    [
        ("kubernetes.io/os", "In", ["windows", "linux"]),
        ("kubernetes.io/arch", "In", ["arm64"]),
        ("kubernetes.io/os", "Exists", []),
        ("team.example/a", "Gt", ["1"]),
        ("karpenter.azure.com/sku-name", "In", ["other"]),
    ],
)
def test_a_requirement_that_can_be_met_or_is_not_ours_is_accepted(requirement: tuple[str, str, list[str]]) -> None:
    assert planned(requirement).instance.instance_type == "Standard_NC24ads_A100_v4"


@pytest.mark.parametrize(("storage", "gib"), [("29Gi", None), ("30Gi", 30), ("2048Gi", 2048), ("2049Gi", None)])
def test_a_disk_has_30_to_2048_gib(storage: str, gib: int | None) -> None:
    if gib is not None:
        assert planned(storage=storage).instance.disk_gib == gib
        return
    with pytest.raises(InvalidClaim) as caught:
        planned(storage=storage)
    amount = storage.removesuffix("Gi")
    assert str(caught.value) == f"the storage request {storage} is a disk of {amount} GiB: use 30 to 2048 GiB"


def test_an_empty_storage_request_names_the_claim() -> None:
    with pytest.raises(InvalidClaim) as caught:
        planned(storage="0")
    assert str(caught.value) == "the storage request of claim ws1 must be more than 0: it sets the disk size"


def test_the_instance_carries_owner_taints_and_tags() -> None:
    taints = [
        {"key": "sku", "value": "gpu", "effect": "NoSchedule"},
        {"key": "team", "effect": "NoExecute"},
    ]
    owner = {"kaito.sh/workspace": "phi", "kaito.sh/workspacenamespace": "default"}
    instance = planned(spec={"taints": taints}, labels=owner).instance
    assert instance.taints == ("sku=gpu:NoSchedule", "team=:NoExecute")
    assert instance.tags == {"kaito-workspace": "phi", "kaito-namespace": "default"}
    assert (instance.owner.claim_uid, instance.owner.claim_kind, instance.owner.claim_name) == (
        "u-1",
        "NodeClaim",
        "ws1",
    )
    assert instance.owner.installation == "here"
    assert planned().instance.tags == {}


@pytest.mark.parametrize("kind", [Machine, NodeClaim])
def test_the_labels_of_the_pool_are_these(kind: type[Claim]) -> None:
    pool = {"karpenter.sh/provisioner-name": "default"} if kind is Machine else {"karpenter.sh/nodepool": "kaito"}
    found = planned(kind=kind, labels={"apps": "phi"}, creationTimestamp="2030-01-02T03:04:05+02:00")
    assert found.instance.labels == {
        **pool,
        "apps": "phi",
        "kaito.sh/creation-timestamp": "2030-01-02T01-04-05Z",
        "kaito.sh/managed-by": "gpu-provisioner",
        "kaito.sh/claim": "ws1",
        "kaito.sh/claim-kind": kind.kind,
        "kaito.sh/claim-uid": "u-1",
    }
    assert "kaito.sh/creation-timestamp" not in planned(kind=kind).instance.labels


def test_the_profile_of_the_gpus_is_that_of_the_annotation() -> None:
    assert planned().instance.gpu_profile == ""
    assert planned(annotations={"kaito.sh/gpu-instance-profile": "MIG3g"}).instance.gpu_profile == "MIG3g"


@pytest.mark.parametrize("profile", ["MIG5g", "1g.10gb", "mig1g", " "])
def test_an_unknown_profile_buys_no_whole_gpus(profile: str) -> None:
    with pytest.raises(InvalidClaim) as caught:
        planned(annotations={"kaito.sh/gpu-instance-profile": profile})
    assert str(caught.value) == (
        f"annotation kaito.sh/gpu-instance-profile is {profile!r}: use one of MIG1g, MIG2g, MIG3g, MIG4g, MIG7g, or "
        "remove it"
    )
