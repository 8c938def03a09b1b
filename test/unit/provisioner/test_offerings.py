"""Instance types, zones and capacity types that the cloud rejects: the next offering is tried, retries are rare.

Four hours are virtual time.
"""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import labels
from kaito.cloud.azure.simulator import Fault, named
from kaito.cloud.azure.simulator.faults import OperationFault
from kaito.cloud.azure.simulator.http import ArmError
from kaito.runtime.testing.simulate.wall_clock import ProcessClock

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage

A100, H100 = "Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5"
T4 = "Standard_NC4as_T4_v3"
FOUR_HOURS = 4 * 3600.0
QUOTA = (
    'Code="OperationNotAllowed" Message="Operation could not be completed as it results in exceeding approved '
    'standardNCADSA100v4Family Cores quota."'
)
NO_CAPACITY = (
    "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: "
    "Standard_NC24ads_A100_v4' is currently not available in location 'eastus'."
)

PUT_REFUSALS = [
    ("BadRequest", "The VM size of {} is not allowed in your subscription in location 'eastus'."),
    ("VMSizeNotSupported", "Virtual Machine size: '{}' is not supported for subscription 0 in location 'eastus'."),
    ("AvailabilityZoneNotSupported", "The zone(s) '1' for resource 'ws1' is not supported."),
    ("ErrCode_InsufficientVCPUQuota", "Insufficient vcpu quota requested 24, remaining 0 for family x."),
    ("OperationNotAllowed", "Operation could not be completed as it results in exceeding approved x Cores quota."),
    ("SkuNotAvailable", NO_CAPACITY),
]

POOL_FAILURES = [
    ("SkuNotAvailable", NO_CAPACITY),
    ("CreateVMSSAgentPoolFailed", QUOTA),
    ("QuotaExceeded", QUOTA),
    ("ReconcileVMSSAgentPoolFailed", 'Code="AllocationFailed" Message="no machine"'),
    ("OverconstrainedZonalAllocationRequest", "constraints"),
]


def reject_put(stage: "Stage", *sizes: str, code: str = "VMSizeNotSupported", text: str = "{} not supported") -> None:
    inner = stage.simulator.cluster._size_for  # pyright: ignore[reportPrivateUsage] -- wrapped
    refused = {size.lower() for size in sizes}

    def size_for(name: str) -> Any:
        if name.lower() in refused:
            raise ArmError(400, code, text.format(name), flat=True)
        return inner(name)

    stage.simulator.cluster._size_for = size_for  # type: ignore[method-assign] # pyright: ignore[reportPrivateUsage] -- a fault


def fail_pools(stage: "Stage", *sizes: str, code: str, text: str, spot: bool | None = None) -> None:
    inner = stage.simulator.cluster._capacity_fault  # pyright: ignore[reportPrivateUsage] -- wrapped

    def without(pool: Any) -> OperationFault | None:
        if pool.size.name in sizes and (spot is None or pool.spot is spot):
            return OperationFault(end="failed", code=code, message=text)
        return inner(pool)

    stage.simulator.cluster._capacity_fault = without  # type: ignore[method-assign] # pyright: ignore[reportPrivateUsage] -- a fault


def requiring(*requirements: tuple[str, str, list[str]]) -> Any:
    def change(document: dict[str, Any]) -> None:
        document["spec"]["requirements"] += [
            {"key": key, "operator": operator, "values": values} for key, operator, values in requirements
        ]

    return change


@pytest.mark.sample(2)
@pytest.mark.parametrize(("code", "text"), PUT_REFUSALS)
async def test_next_instance_type_is_tried_after_a_rejected_put(stage: "Stage", code: str, text: str) -> None:
    reject_put(stage, A100, code=code, text=text)
    await stage.start()
    claim = stage.claim("ws1", A100, H100)
    ready = await stage.until_ready(within=600)
    assert ready.labels[labels.INSTANCE_TYPE] == H100
    assert stage.calls("PUT") == 2
    refused = [event.note or "" for event in stage.world.events(claim) if event.reason == "OfferRefused"]
    assert len(refused) == 1
    assert refused[0].startswith(f"{A100}: {code}")
    assert labels.LAUNCH_RECORD not in ready.annotations
    assert labels.LAUNCH_RECORD not in stage.node().annotations


@pytest.mark.sample(2)
@pytest.mark.parametrize(("code", "text"), POOL_FAILURES)
async def test_next_instance_type_is_tried_after_a_failed_pool(stage: "Stage", code: str, text: str) -> None:
    fail_pools(stage, A100, code=code, text=text)
    await stage.start()
    stage.claim("ws1", A100, H100)
    ready = await stage.until_ready(within=1200)
    assert ready.labels[labels.INSTANCE_TYPE] == H100
    assert stage.calls("PUT") == 2
    assert stage.pools == ["ws1"]


@pytest.mark.sample(1)
@pytest.mark.parametrize(("code", "text"), [PUT_REFUSALS[1], PUT_REFUSALS[3], PUT_REFUSALS[5]])
async def test_rejected_instance_types_are_retried_rarely(stage: "Stage", code: str, text: str) -> None:
    reject_put(stage, A100, H100, code=code, text=text)
    await stage.start()
    claim = stage.claim("ws1", A100, H100)
    await stage.world.advance(FOUR_HOURS)
    assert stage.calls("PUT") <= 2 * 10
    launched = stage.condition("launched")
    assert launched.status == "False"
    assert "next attempt at 2030-01-01T" in launched.message
    notes = [event for event in stage.world.events(claim) if event.type == "Warning"]
    assert len(notes) <= 3 * 10


@pytest.mark.sample(2)
@pytest.mark.parametrize(("code", "text"), [*POOL_FAILURES, ("VMExtensionProvisioningError", "vmssCSE failed"),
    ("ReconcileVMSSAgentPoolFailed", "internal error"), ("SubnetIsFull", "no address"),
    ("ReconcileVMSSAgentPoolFailed", 'Status=429 Code="TooManyRequests" Message="x"')])  # fmt: skip
async def test_failing_pools_are_recreated_rarely(stage: "Stage", code: str, text: str) -> None:
    fail_pools(stage, A100, H100, code=code, text=text)
    await stage.start()
    stage.claim("ws1", A100)
    await stage.world.advance(FOUR_HOURS)
    assert 2 <= stage.calls("PUT") <= 12
    assert stage.calls("DELETE") <= stage.calls("PUT")


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("status", "code", "most"),
    [
        (409, "ScopeLocked", 12),
        (403, "RequestDisallowedByPolicy", 12),
        (400, "SubnetIsFull", 12),
        (400, "SomethingNew", 8),
        (409, "SomethingNew", 20),
        (403, "AuthorizationFailed", 14),
    ],
)
async def test_permanent_errors_are_retried_rarely(stage: "Stage", status: int, code: str, most: int) -> None:
    """Without a limit, there were 481 PUTs in four hours."""
    body = {"error": {"code": code, "message": "no"}}
    stage.simulator.faults.add(Fault(method="PUT", status=status, body=body, times=None))
    await stage.start()
    claim = stage.claim()
    await stage.world.advance(FOUR_HOURS)
    assert 2 <= stage.calls("PUT") <= most
    launched = stage.condition("launched")
    assert launched.status == "False"
    assert launched.reason not in {"CloudBusy", "CloudThrottled"}
    assert "; next attempt at " in launched.message
    warnings = [event.reason for event in stage.world.events(claim) if event.type == "Warning"]
    assert warnings == [launched.reason]


async def test_annotation_retries_the_launch_at_once(stage: "Stage") -> None:
    stage.simulator.faults.add(named("sku", times=None))
    await stage.start()
    stage.claim()
    await stage.world.advance(600)
    assert stage.calls("PUT") == 1
    stage.simulator.faults.clear()
    stage.world.patch(stage.kind, "ws1", {"metadata": {"annotations": {labels.RETRY_LAUNCH: "please"}}})
    ready = await stage.until_ready(within=400)
    assert labels.RETRY_LAUNCH not in ready.annotations


async def test_unavailable_offerings_survive_a_restart(stage: "Stage") -> None:
    reject_put(stage, A100, code="VMSizeNotSupported", text="Virtual Machine size: '{}' is not supported for "
                  "subscription 0")  # fmt: skip
    await stage.start()
    stage.claim("ws1", A100)
    await stage.world.advance(60)
    record = json.loads(stage.get().annotations[labels.LAUNCH_RECORD])
    assert list(record["refused"]) == [f"{A100.lower()}/*/on-demand"]
    for _ in range(5):
        await stage.stop()
        await stage.start()
        await stage.world.advance(60)
    assert stage.calls("PUT") == 1
    stage.claim("ws2", A100, H100)
    await stage.until_ready("ws2", within=600)
    assert stage.calls("PUT", "ws2") == 1, "the entry of another claim survived the restart"


async def test_edited_launch_record_is_ignored(stage: "Stage") -> None:
    await stage.start()
    far = "2199-01-01T00:00:00Z"
    entry = {"verdict": "capacity", "retry": far, "last": far, "failures": -7}
    texts = ["{", "[]", "7", json.dumps({"failures": "x", "next": far, "refused": {"a": 1, f"{A100.lower()}//on-demand":
             entry}}), json.dumps({"failures": 10**30, "next": 5, "refused": [1]})]  # fmt: skip
    for number, text in enumerate(texts):
        stage.claim(f"ws{number}", H100, annotations={labels.LAUNCH_RECORD: text})
    await stage.stop()
    await stage.start()
    await stage.world.advance(FOUR_HOURS)  # longer than the limit for times in a record
    for number in range(len(texts)):
        await stage.until_ready(f"ws{number}", within=900)


async def test_stock_out_is_shared_between_claims(stage: "Stage") -> None:
    stage.simulator.cluster.capacity[A100.lower()] = 0
    await stage.start()
    stage.claim("ws1", A100, H100)
    await stage.until_ready("ws1", within=1200)
    names = [f"ws{number}" for number in range(2, 8)]
    for name in names:
        stage.claim(name, A100, H100)
    for name in names:
        await stage.until_ready(name, within=600)
        assert stage.calls("PUT", name) == 1


async def test_stock_out_that_was_met_with_a_clock_ahead_ends_in_time(
    stage: "Stage", monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ProcessClock(stage.world.clock)
    monkeypatch.setattr(stage.world, "clock", clock)
    clock.offset_seconds = 86400.0
    reject_put(stage, A100, code="SkuNotAvailable", text=NO_CAPACITY)
    await stage.start()
    stage.claim("ws1", A100)
    await stage.until("rejected", lambda: stage.calls("PUT") == 1)
    clock.offset_seconds = 0.0
    await stage.until("tried again", lambda: stage.calls("PUT") == 2, within=1800)


@pytest.mark.slow("test_stock_out_is_shared_between_claims")
async def test_one_claim_at_a_time_tries_an_offering_that_is_out_of_stock(stage: "Stage") -> None:
    stage.simulator.cluster.capacity[A100.lower()] = 0
    await stage.start()
    stage.claim("ws0", A100)
    await stage.world.advance(300)
    assert stage.condition("launched", "ws0").status == "False"
    names = [f"ws{number}" for number in range(1, 5)]
    for name in names:
        stage.claim(name, A100)
    await stage.world.advance(FOUR_HOURS)
    assert sum(stage.calls("PUT", name) for name in ["ws0", *names]) <= 20
    stage.simulator.cluster.capacity.clear()
    for name in names:
        await stage.until_ready(name, within=2 * 3600)


async def test_exceeded_regional_quota_rules_out_larger_instance_types(stage: "Stage") -> None:
    stage.simulator.faults.add(
        Fault(
            method="PUT",
            times=None,
            status=400,
            body={
                "code": "ErrCode_InsufficientVCPUQuota",
                "message": "Insufficient regional vcpu quota left for location eastus.",
            },
        )
    )
    await stage.start()
    stage.claim("ws1", A100, H100, T4)
    await stage.world.advance(60)
    sizes = [request.pool for request in stage.simulator.api.requests if request.method == "PUT"]
    assert len(sizes) == 2, "24 vCPUs are rejected, 40 are not requested, 4 are"


# spot


async def test_spot_is_tried_before_on_demand(stage: "Stage") -> None:
    fail_pools(stage, A100, code="SkuNotAvailable", text=NO_CAPACITY, spot=True)
    await stage.start()
    stage.put("ws1", requiring((labels.CAPACITY_TYPE, "In", ["on-demand", "spot"])), A100)
    await stage.until("a spot pool", lambda: bool(stage.pools) and stage.pool().spot)
    ready = await stage.until_ready(within=1200)
    assert ready.labels[labels.CAPACITY_TYPE] == "on-demand"
    assert not stage.pool().spot
    assert stage.calls("PUT") == 2
    stage.put("ws2", requiring((labels.CAPACITY_TYPE, "In", ["on-demand", "spot"])), A100)
    await stage.until_ready("ws2", within=600)
    assert stage.calls("PUT", "ws2") == 1, "spot is known to be out of stock, on-demand is not"


async def test_spot_counts_for_the_spot_quota_only(stage: "Stage") -> None:
    stage.simulator.cluster.quota |= {"standardncadsa100v4family": 0, "cores": 0, "lowprioritycores": 100}
    await stage.start()
    stage.put("ws1", requiring((labels.CAPACITY_TYPE, "In", ["spot"])), A100)
    ready = await stage.until_ready(within=600)
    assert ready.labels[labels.CAPACITY_TYPE] == "spot"
    node = stage.node()
    assert node.labels[labels.CAPACITY_TYPE] == "spot"
    assert node.labels["kubernetes.azure.com/scalesetpriority"] == "spot"
    taints = {str(taint.key): taint.effect for taint in node.spec.taints}
    assert taints["kubernetes.azure.com/scalesetpriority"] == "NoSchedule"
    assert taints["sku"] == "NoSchedule"


async def test_missing_spot_quota_falls_back_without_a_request(stage: "Stage") -> None:
    stage.simulator.cluster.quota |= {"lowprioritycores": 3}
    await stage.start()
    stage.put("ws1", requiring((labels.CAPACITY_TYPE, "In", ["spot", "on-demand"])), A100)
    ready = await stage.until_ready(within=600)
    assert ready.labels[labels.CAPACITY_TYPE] == "on-demand"
    assert stage.calls("PUT") == 1


async def test_excluded_capacity_type_leaves_the_other_one(stage: "Stage") -> None:
    await stage.start()
    stage.put("ws1", requiring((labels.CAPACITY_TYPE, "NotIn", ["spot"])), A100)
    stage.put("ws2", requiring((labels.CAPACITY_TYPE, "NotIn", ["on-demand"])), A100)
    await stage.until_ready("ws1")
    await stage.until_ready("ws2")
    assert (stage.pool("ws1").spot, stage.pool("ws2").spot) == (False, True)


# zones


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("requirements", "zones"),
    [
        ([("In", ["3"])], ["3"]),
        ([("In", ["eastus-3"])], ["3"]),
        ([("In", ["eastus-1", "eastus-3"])], ["3"]),
        ([("NotIn", ["1", "2"])], ["3"]),
        ([("NotIn", ["eastus-1"])], ["3"]),
        ([("In", ["1", "3"]), ("NotIn", ["eastus-1"])], ["3"]),
        ([("NotIn", ["westus-3"])], ["3"]),
        ([("In", ["0"])], None),
    ],
)
async def test_zone_of_the_instance_type_is_requested(
    stage: "Stage", requirements: Any, zones: list[str] | None
) -> None:
    """The A100 sizes are in zone 3 only."""
    await stage.start()
    stage.put("ws1", requiring(*[(labels.ZONE, *entry) for entry in requirements]), A100)
    ready = await stage.until_ready(within=600)
    assert stage.pool().properties.get("availabilityZones") == zones
    assert ready.labels.get(labels.ZONE) == (f"eastus-{zones[0]}" if zones else None)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ((labels.ZONE, "In", ["1"]), "is offered in zone 3 of eastus, not in zone 1"),
        ((labels.ZONE, "In", ["eastus-1", "eastus-2"]), "not in zone eastus-1, eastus-2"),
        ((labels.ZONE, "In", ["westus-3"]), "not in zone westus-3"),
        ((labels.ZONE, "NotIn", ["3"]), "only in zones that the claim excludes: 3"),
        ((labels.REGION, "In", ["westus"]), "the cluster is in eastus"),
    ],
)
async def test_zone_without_the_instance_type_is_rejected_without_a_request(
    stage: "Stage", requirement: Any, words: str
) -> None:
    await stage.start()
    stage.put("ws1", requiring(requirement), A100)
    await stage.world.advance(FOUR_HOURS)
    launched = stage.condition("launched")
    assert (launched.status, launched.reason) == ("False", "UnsupportedInstanceType")
    assert words in launched.message
    assert stage.calls("PUT") == 0


async def test_next_zone_is_tried_after_a_stock_out(stage: "Stage") -> None:
    inner = stage.simulator.cluster._capacity_fault  # pyright: ignore[reportPrivateUsage] -- wrapped

    def without(pool: Any) -> OperationFault | None:
        if pool.properties.get("availabilityZones") == ["1"]:
            return OperationFault(end="failed", code="ZonalAllocationFailed", message="no machine in zone 1")
        return inner(pool)

    stage.simulator.cluster._capacity_fault = without  # type: ignore[method-assign] # pyright: ignore[reportPrivateUsage] -- a fault
    await stage.start()
    stage.put("ws1", requiring((labels.ZONE, "In", ["eastus-1", "eastus-2"])), T4)
    ready = await stage.until_ready(within=1200)
    assert ready.labels[labels.ZONE] == "eastus-2"
    assert stage.calls("PUT") == 2
    stage.put("ws2", requiring((labels.ZONE, "In", ["1", "2"])), T4)
    await stage.until_ready("ws2", within=600)
    assert stage.calls("PUT", "ws2") == 1
    stage.claim("ws3", T4)
    await stage.until_ready("ws3", within=600)
    assert stage.calls("PUT", "ws3") == 1, "a pool without a zone is another offering"


async def test_instance_type_without_spot_is_rejected_without_a_request(stage: "Stage") -> None:
    catalog = stage.simulator.cluster.catalog
    size = catalog.find(A100)
    assert size is not None
    catalog.add(replace(size, spot=False))
    await stage.start()
    stage.put("ws1", requiring((labels.CAPACITY_TYPE, "In", ["spot"])), A100)
    await stage.world.advance(60)
    launched = stage.condition("launched")
    assert launched.reason == "UnsupportedInstanceType"
    assert "not offered as spot capacity" in launched.message
    assert stage.calls("PUT") == 0


async def test_deleted_claim_clears_exceeded_quota(stage: "Stage") -> None:
    await stage.start()
    stage.claim("ws1", A100)
    await stage.until_ready("ws1")
    stage.simulator.faults.add(named("quota", pool="ws2", times=1))
    stage.claim("ws2", A100)
    await stage.world.advance(10)
    assert stage.condition("launched", "ws2").reason == "QuotaExceeded"
    stage.delete("ws1")
    await stage.until_gone("ws1")
    stage.claim("ws3", A100)
    await stage.until_ready("ws3", within=600)


async def test_changed_spec_is_launched_at_once(stage: "Stage") -> None:
    """Only a Machine's spec can change; a NodeClaim's is immutable, and another claim takes its place."""
    body = {"error": {"code": "SomethingNew", "message": "no"}}
    stage.simulator.faults.add(Fault(name="new", method="PUT", status=400, body=body, times=None))
    await stage.start()
    claim = stage.claim("ws1", A100)
    await stage.world.advance(30)
    assert stage.calls("PUT") == 1
    stage.simulator.faults.clear("new")
    sizes = {"key": labels.INSTANCE_TYPE, "operator": "In", "values": [H100]}
    if claim.kind == "Machine":
        stage.world.patch(stage.kind, "ws1", {"spec": {"requirements": [sizes]}})
    else:
        stage.delete("ws1")
        await stage.until_gone("ws1")
        stage.claim("ws1", H100)
    ready = await stage.until_ready(within=500)
    assert ready.labels[labels.INSTANCE_TYPE] == H100
