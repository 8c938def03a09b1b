"""Agent pools as JSON: every field of the request body, and every field that is read from a response."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from kaito.cloud.azure.pools import creating, name_error, pool_of, to_instance, to_model
from kaito.cloud.errors import CloudError, InsufficientCapacity, OperationFailed, QuotaExceeded
from kaito.cloud.provider import Instance, InstanceOwner, InstanceSpec

OWNER = InstanceOwner("uid-1", "NodeClaim", "ws1", "cluster-1")
SPEC = InstanceSpec(
    name="pool1",
    instance_type="Standard_NC24ads_A100_v4",
    owner=OWNER,
    disk_gib=150,
    labels={"apps": "phi-3"},
    taints=("sku=gpu:NoSchedule", "team=a:NoExecute"),
    tags={"cost": "team-a", "kaito-claim-uid": "forged"},
)
TAGS = {
    "cost": "team-a",
    "kaito-claim-uid": "uid-1",
    "kaito-claim-kind": "NodeClaim",
    "kaito-claim-name": "ws1",
    "kaito-installation": "cluster-1",
}
BODY: dict[str, Any] = {
    "count": 1,
    "vmSize": "Standard_NC24ads_A100_v4",
    "osType": "Linux",
    "osSKU": "Ubuntu",
    "type": "VirtualMachineScaleSets",
    "mode": "User",
    "osDiskSizeGB": 150,
    "nodeLabels": {"apps": "phi-3"},
    "nodeTaints": ["sku=gpu:NoSchedule", "team=a:NoExecute"],
    "tags": TAGS,
}
SPOT = {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Delete", "spotMaxPrice": -1.0}


@pytest.mark.parametrize(
    ("spec", "subnet", "changes"),
    [
        (SPEC, "", {}),
        (SPEC, "/subnets/nodes", {"vnetSubnetID": "/subnets/nodes"}),
        (replace(SPEC, image_family="azurelinux"), "", {"osSKU": "AzureLinux"}),
        (replace(SPEC, zones=("2", "3")), "", {"availabilityZones": ["2", "3"]}),
        (replace(SPEC, spot=True), "", SPOT),
        (replace(SPEC, gpu_profile="MIG1g"), "", {"gpuInstanceProfile": "MIG1g"}),
        (replace(SPEC, labels={}, taints=()), "", {"nodeLabels": {}, "nodeTaints": []}),
        (
            replace(SPEC, created=datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))),
            "",
            {"tags": TAGS | {"kaito-created": "2030-01-02T01:04:05+00:00"}},
        ),
    ],
)
def test_the_body_of_a_pool_has_these_fields_and_no_others(
    spec: InstanceSpec, subnet: str, changes: dict[str, Any]
) -> None:
    assert to_model(spec, subnet=subnet).as_dict() == {"properties": BODY | changes}


def test_a_created_pool_reads_as_the_spec_until_the_first_list() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    assert creating(replace(SPEC, spot=True, zones=("2",), created=moment)) == Instance(
        name="pool1",
        state="creating",
        instance_type="Standard_NC24ads_A100_v4",
        owner=OWNER,
        labels={"apps": "phi-3"},
        created=moment,
        spot=True,
        zones=("2",),
    )


def test_the_body_of_a_pool_reads_back_as_its_spec() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    spec = replace(SPEC, spot=True, zones=("2",), created=moment)
    body = {"name": spec.name, **to_model(spec, subnet="/subnets/nodes").as_dict()}
    assert to_instance(body) == replace(creating(spec), state="updating", subnet="/subnets/nodes")


def pool(**properties: Any) -> Instance:
    return to_instance({"name": "pool1", "properties": properties})


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("Creating", "creating"),
        ("Updating", "updating"),
        ("Scaling", "updating"),
        ("Upgrading", "updating"),
        ("Starting", "updating"),
        ("Stopping", "updating"),
        ("Deleting", "deleting"),
        ("Succeeded", "ready"),
        ("succeeded", "ready"),
        ("Failed", "failed"),
        ("Canceled", "canceled"),
        ("SomethingNew", "updating"),
        ("", "updating"),
        (7, "updating"),
        (None, "updating"),
    ],
)
def test_provisioning_states(state: object, expected: str) -> None:
    assert pool(provisioningState=state).state == expected


NOTHING = Instance(name="pool1", state="ready", instance_type="")


@pytest.mark.parametrize(
    ("properties", "changes"),
    [
        ({}, {}),
        ({"vmSize": "Standard_NC6s_v3"}, {"instance_type": "Standard_NC6s_v3"}),
        ({"vmSize": None}, {}),
        ({"count": 0}, {"count": 0}),
        ({"count": 3}, {"count": 3}),
        ({"count": "3"}, {}),
        ({"nodeImageVersion": "AKSUbuntu-2204-202501.05.0"}, {"image": "AKSUbuntu-2204-202501.05.0"}),
        ({"nodeLabels": {"a": "b", "c": 7}}, {"labels": {"a": "b"}}),
        ({"nodeLabels": ["a"]}, {}),
        ({"scaleSetPriority": "Spot"}, {"spot": True}),
        ({"scaleSetPriority": "spot"}, {"spot": True}),
        ({"scaleSetPriority": "Regular"}, {}),
        ({"availabilityZones": ["3", 1, "2"]}, {"zones": ("3", "2")}),
        ({"availabilityZones": "3"}, {}),
        ({"vnetSubnetID": "/subnets/nodes"}, {"subnet": "/subnets/nodes"}),
        ({"mode": "System"}, {"is_system": True}),
        ({"mode": "system"}, {"is_system": True}),
        ({"mode": "User"}, {}),
        ({"tags": {"kaito-created": "2030-01-02T03:04:05Z"}}, {"created": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)}),
        ({"tags": {"kaito-created": "2030-01-02T03:04:05"}}, {}),
        ({"tags": {"kaito-created": "yesterday"}}, {}),
        ({"tags": {"kaito-claim-uid": "u"}}, {"owner": InstanceOwner("u", "", "", "")}),
        ({"tags": {"kaito-claim-uid": ""}}, {}),
        ({"tags": {"kaito-claim-name": "ws1", "kaito-installation": "cluster-1"}}, {}),
        ({"tags": TAGS}, {"owner": OWNER}),
        ({"status": {"provisioningError": {"code": "AllocationFailed", "message": "x"}}}, {}),
    ],
)
def test_every_field_of_a_pool_is_read(properties: dict[str, Any], changes: dict[str, Any]) -> None:
    assert pool(provisioningState="Succeeded", **properties) == replace(NOTHING, **changes)


def test_a_pool_without_properties_has_only_a_name() -> None:
    assert to_instance({"name": "pool1"}) == replace(NOTHING, state="updating")
    assert to_instance({"name": 7, "properties": []}) == replace(NOTHING, name="", state="updating")


@pytest.mark.parametrize(
    ("state", "error", "expected"),
    [
        ("Failed", {"code": "AllocationFailed", "message": "no machine"}, InsufficientCapacity),
        ("Failed", {"code": "QuotaExceeded", "message": "limit 24"}, QuotaExceeded),
        ("Failed", {"code": "New", "message": "text"}, OperationFailed),
        ("Canceled", {"code": "New", "message": "text"}, OperationFailed),
        ("Failed", {}, None),
        ("Failed", None, None),
        ("Succeeded", {"code": "AllocationFailed", "message": "no machine"}, None),
        ("Creating", {"code": "AllocationFailed", "message": "no machine"}, None),
    ],
)
def test_only_a_failed_or_canceled_pool_has_an_error(
    state: str, error: dict[str, Any] | None, expected: type[CloudError] | None
) -> None:
    found = pool(provisioningState=state, status={"provisioningError": error}).error
    assert (None if found is None else type(found)) is expected


@pytest.mark.parametrize(
    ("name", "is_valid"),
    [
        ("a", True),
        ("ws0123456789", True),
        ("ws01234567890", False),
        ("", False),
        ("1ws", False),
        ("Ws", False),
        ("w-s", False),
        ("w_s", False),
        ("ws1\n", False),
    ],
)
def test_a_pool_name_has_1_to_12_lower_case_letters_and_digits(name: str, *, is_valid: bool) -> None:
    expected = (
        None
        if is_valid
        else f"agent pool name {name!r} must match ^[a-z][a-z0-9]{{0,11}}$: 1 to 12 lower-case letters and digits, "
        "a letter first"
    )
    assert name_error(name) == expected


GROUP = "azure:///subscriptions/s/resourceGroups/MC_g/providers/Microsoft.Compute"


@pytest.mark.parametrize(
    ("provider_id", "expected"),
    [
        (f"{GROUP}/virtualMachineScaleSets/aks-ws1-12345678-vmss/virtualMachines/0", "ws1"),
        (f"{GROUP}/virtualMachineScaleSets/AKS-WS1-12345678-VMSS/virtualMachines/12", "ws1"),
        (f"{GROUP}/virtualMachineScaleSets/aks-ws1-12345678-vmss/virtualMachines/x", None),
        (f"{GROUP}/virtualMachineScaleSets/aks-ws1-12345678-vmss", None),
        (f"{GROUP}/virtualMachineScaleSets/aks-ws1-vmss/virtualMachines/0", None),
        (f"{GROUP}/virtualMachineScaleSets/eks-ws1-12345678-vmss/virtualMachines/0", None),
        (f"{GROUP}/virtualMachineScaleSets/aks-ws1-12345678-vmss/virtualMachines/0/more", None),
        (f"x{GROUP}/virtualMachineScaleSets/aks-ws1-12345678-vmss/virtualMachines/0", None),
        (f"{GROUP.replace('Compute', 'Other')}/virtualMachineScaleSets/aks-ws1-1-vmss/virtualMachines/0", None),
    ],
)
def test_the_pool_of_a_node_is_in_its_provider_id(provider_id: str, expected: str | None) -> None:
    assert pool_of(provider_id) == expected
