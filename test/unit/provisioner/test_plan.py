"""The instance that is planned for a claim, rule by rule."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kaito.api import labels
from kaito.api.karpenter import Claim, Machine, NodeClaim
from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.metrics import CloudMetrics
from kaito.provisioner.plan import InvalidClaim, LaunchPlan, image_family, plan_for
from kaito.provisioner.settings import ProvisionerSettings


@pytest.fixture(params=[Machine, NodeClaim])
def kind(request: pytest.FixtureRequest) -> type[Claim]:
    result: type[Claim] = request.param
    return result


def claim(kind: type[Claim], *, requirements: Any = None, requests: Any = None, **metadata: Any) -> Claim:
    sizes = [{"key": labels.INSTANCE_TYPE, "operator": "In", "values": ["Standard_NC24ads_A100_v4"]}]
    spec: dict[str, Any] = {
        "requirements": sizes + (requirements or []),
        "resources": {"requests": {"storage": "120Gi"} if requests is None else requests},
        "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
    }
    created = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    return kind.model_validate(
        {"metadata": {"name": "ws1", "uid": "u-1", "creationTimestamp": created, **metadata}, "spec": spec}
    )


def planned(claim: Claim, **settings: Any) -> LaunchPlan:
    azure = AzureSettings(
        subscription_id="s", resource_group="g", cluster="c", endpoint="http://localhost", credential_mode="fake"
    )
    provider = AzureProvider(azure, CloudMetrics())
    return plan_for(claim, provider=provider, installation="here", settings=ProvisionerSettings(**settings))


@pytest.mark.parametrize(
    ("request_", "gib"),
    [("30Gi", 30), ("120Gi", 120), ("1024Gi", 1024), ("100G", 94), ("30.5Gi", 31), ("32212254721", 31), ("2Ti", 2048)],
)
def test_disk_is_rounded_up_to_gibibytes(kind: type[Claim], request_: str, gib: int) -> None:
    assert planned(claim(kind, requests={"storage": request_})).instance.disk_gib == gib


@pytest.mark.parametrize("request_", ["0", "-5Gi", "1Gi", "29Gi", "2049Gi"])
def test_unsupported_disk_sizes_are_rejected(kind: type[Claim], request_: str) -> None:
    with pytest.raises(InvalidClaim, match="storage request"):
        planned(claim(kind, requests={"storage": request_}))


def test_default_disk_is_used_without_a_request(kind: type[Claim]) -> None:
    assert planned(claim(kind, requests={}), default_disk_gib=256).instance.disk_gib == 256
    with pytest.raises(InvalidClaim, match="must be more than 0"):
        planned(claim(kind, requests={}))


@pytest.mark.parametrize(
    ("text", "family", "understood"),
    [
        ("", "ubuntu", True),
        ("Ubuntu", "ubuntu", True),
        (" AzureLinux ", "azurelinux", True),
        ("AZURELINUX", "azurelinux", True),
        ("ubuntu2204", "ubuntu", False),
    ],
)
def test_image_family_is_parsed_case_insensitively(text: str, family: str, understood: bool) -> None:
    assert image_family(text) == (family, understood)


def test_image_family_comes_from_the_annotation_only(kind: type[Claim]) -> None:
    key = labels.NODE_IMAGE_FAMILY
    assert planned(claim(kind, annotations={key: "azurelinux"})).instance.image_family == "azurelinux"
    assert planned(claim(kind, labels={key: "azurelinux"})).instance.image_family == "ubuntu"


def test_instance_types_keep_their_order_without_duplicates(kind: type[Claim]) -> None:
    listed = claim(kind)
    wanted = ["b", "a", "b"]
    requirement = listed.spec.requirements[0].evolve(values=wanted)
    plan = planned(listed.evolve(spec=listed.spec.evolve(requirements=[requirement])))
    assert plan.instance_types == ("b", "a")


@pytest.mark.parametrize(
    ("instance_type", "gpus", "machine_type"),
    [
        ("Standard_NC24ads_A100_v4", 1, "gpu"),
        ("standard_nc24ads_a100_v4", None, "gpu"),
        ("Standard_NP10s", 0, "cpu"),
        ("Standard_D2s_v5", 0, "cpu"),
        ("Standard_D2s_v5", None, "cpu"),
    ],
)
def test_machine_type_depends_on_the_gpus_of_the_instance_type(
    kind: type[Claim], instance_type: str, gpus: int | None, machine_type: str
) -> None:
    plan = planned(claim(kind)).with_type(instance_type, gpus=gpus)
    assert plan.labels[labels.MACHINE_TYPE] == machine_type


def test_labels_of_the_claim_override_defaults_and_not_ownership(kind: type[Claim]) -> None:
    pool = labels.PROVISIONER_NAME if kind is Machine else labels.NODEPOOL
    plain = planned(claim(kind)).instance
    assert plain.labels[pool] == ("default" if kind is Machine else "kaito")
    assert plain.labels[labels.CREATION_TIMESTAMP] == "2030-01-02T03-04-05Z"
    assert plain.labels[labels.CLAIM_NAME] == "ws1"
    own = planned(claim(kind, labels={pool: "mine", labels.MANAGED_BY: "me"})).instance
    assert own.labels[pool] == "mine"
    assert own.labels[labels.MANAGED_BY] == "gpu-provisioner"
    assert (own.owner.claim_uid, own.owner.installation) == ("u-1", "here")


def test_spot_and_zones_come_from_requirements_only(kind: type[Claim]) -> None:
    assert not planned(claim(kind)).instance.spot
    assert planned(claim(kind)).instance.zones == ()
    requirements = [
        {"key": labels.CAPACITY_TYPE, "operator": "In", "values": ["spot"]},
        {"key": labels.ZONE, "operator": "In", "values": ["eastus-2", "eastus-3"]},
    ]
    plan = planned(claim(kind, requirements=requirements)).instance
    assert plan.spot
    assert plan.zones == ("2", "3")


@pytest.mark.parametrize(
    "requirement",
    [
        {"key": labels.OS, "operator": "In", "values": ["windows"]},
        {"key": labels.CAPACITY_TYPE, "operator": "In", "values": ["reserved"]},
        {"key": labels.INSTANCE_TYPE, "operator": "NotIn", "values": ["x"]},
        {"key": labels.ZONE, "operator": "DoesNotExist"},
        {"key": labels.ZONE, "operator": "In", "values": ["somewhere"]},
        {"key": labels.CAPACITY_TYPE, "operator": "NotIn", "values": ["spot", "on-demand"]},
        {"key": labels.REGION, "operator": "NotIn", "values": ["eastus"]},
        {"key": labels.INSTANCE_TYPE, "operator": "In", "values": ["another"]},
    ],
)
def test_unsupported_requirements_are_rejected(kind: type[Claim], requirement: dict[str, Any]) -> None:
    with pytest.raises(InvalidClaim):
        planned(claim(kind, requirements=[requirement]))


@pytest.mark.parametrize("name", ["", "Ws1", "1ws", "ws-1", "ws0123456789a", "azure-linux-gpu-node"])
def test_invalid_pool_names_are_rejected(kind: type[Claim], name: str) -> None:
    with pytest.raises(InvalidClaim, match="must match"):
        planned(claim(kind).with_metadata(name=name))
