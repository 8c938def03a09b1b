"""Recorded responses of Azure: bodies to classify, quotas to check."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kaito.cloud.azure.errors import classify, operation_error
from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator import Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.cloud.errors import ErrorCategory, InstanceTypeUnavailable, QuotaExceeded
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import InstanceOwner, InstanceSpec

INPUTS = {path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "faults").glob("*.json"))}
CASES = [(name, case) for name, given in INPUTS.items() if given["kind"] == "classify" for case in given["cases"]]
CHECKS = [(name, given) for name, given in INPUTS.items() if given["kind"] == "check"]
A100 = "Standard_NC24ads_A100_v4"
SPEC = InstanceSpec(name="ws1", instance_type=A100, owner=InstanceOwner("uid", "Machine", "ws1", "here"), disk_gib=100)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings()) as simulator:
        yield simulator


@pytest.fixture
async def azure(simulator: Simulator) -> AsyncIterator[AzureProvider]:
    settings = AzureSettings(
        subscription_id=simulator.settings.subscription_id,
        resource_group="kaito",
        cluster="kaito",
        endpoint="http://simulator",
        credential_mode="fake",
    )
    provider = AzureProvider(settings, CloudMetrics(), transport=InProcessTransport(simulator.api))
    yield provider
    await provider.close()


@pytest.mark.parametrize(("name", "case"), CASES, ids=[name for name, _ in CASES])
def test_recorded_bodies_are_classified(name: str, case: dict[str, Any]) -> None:
    status, body = case["status"], case["body"]
    error = classify(status, body) if status else operation_error(body)
    assert type(error).__name__ == case["expected"], name


@pytest.mark.parametrize(("name", "given"), CHECKS, ids=[name for name, _ in CHECKS])
async def test_recorded_quotas_are_sufficient(
    azure: AzureProvider, simulator: Simulator, name: str, given: dict[str, Any]
) -> None:
    assert given["expected"] == "OK", name
    simulator.cluster.usages = lambda: {scope: tuple(entry) for scope, entry in given["usages"].items()}  # type: ignore[method-assign]  # the input
    await azure.check_availability(replace(SPEC, spot=given["spot"]))


@pytest.mark.parametrize(
    ("spot", "usages", "regional"),
    [
        (True, {"lowPriorityCores": (90, 100)}, False),
        (False, {"cores": (90, 100), "lowPriorityCores": (0, 100)}, True),
        (False, {"cores": (0, 100), "StandardNCADSA100v4Family": (0, 23)}, False),
    ],
)
async def test_insufficient_quota_is_found_before_creation(
    azure: AzureProvider, simulator: Simulator, spot: bool, usages: dict[str, tuple[int, int]], regional: bool
) -> None:
    """Spot counts for lowPriorityCores only, on-demand for its family and the region."""
    simulator.cluster.usages = lambda: usages  # type: ignore[method-assign]  # the input
    with pytest.raises(QuotaExceeded) as refused:
        await azure.check_availability(replace(SPEC, spot=spot))
    assert refused.value.regional is regional


async def test_creations_since_the_last_read_count_for_the_quota(azure: AzureProvider, simulator: Simulator) -> None:
    simulator.cluster.quota["standardncadsa100v4family"] = 40
    await azure.check_availability(SPEC)
    await azure.create(SPEC)
    with pytest.raises(QuotaExceeded, match="left 16"):
        await azure.check_availability(replace(SPEC, name="ws2"))


@pytest.mark.parametrize(("zones", "ok"), [(("3",), True), (("1", "3"), True), (("1",), False), (("1", "2"), False)])
async def test_zones_without_the_instance_type_are_found_before_creation(
    azure: AzureProvider, zones: tuple[str, ...], ok: bool
) -> None:
    """The A100 sizes of the simulator's region are in zone 3 only."""
    if ok:
        await azure.check_availability(replace(SPEC, zones=zones))
        return
    with pytest.raises(InstanceTypeUnavailable, match="is offered in zone 3 of eastus, not in zone 1") as refused:
        await azure.check_availability(replace(SPEC, zones=zones))
    assert refused.value.category is ErrorCategory.ZONE


async def test_zone_is_rejected_for_an_instance_type_without_zones(azure: AzureProvider) -> None:
    with pytest.raises(InstanceTypeUnavailable, match="is offered only without a zone"):
        await azure.check_availability(replace(SPEC, instance_type="Standard_ND96asr_v4", zones=("1",)))


async def test_unavailable_spot_is_insufficient_capacity(azure: AzureProvider, simulator: Simulator) -> None:
    from kaito.cloud.azure.simulator import Fault
    from kaito.cloud.errors import InsufficientCapacity

    body = {"error": {"code": "SkuNotAvailable", "message": "The requested size is not available"}}
    simulator.faults.add(Fault(method="PUT", status=409, body=body, times=2))
    with pytest.raises(InsufficientCapacity):
        await azure.create(replace(SPEC, spot=True))
    with pytest.raises(InstanceTypeUnavailable):
        await azure.create(SPEC)
