"""Launches that fail: the claim's condition reports the cause until it is removed."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import labels
from kaito.cloud.azure.simulator import Fault, named

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage

A100, H100 = "Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5"
FAMILY = "standardncadsa100v4family"
UNAVAILABLE = "all requested instance types were unavailable during launch"


def unchanged(document: dict[str, Any]) -> None:
    del document


def without_sizes(document: dict[str, Any]) -> None:
    document["spec"]["requirements"] = []


def without_storage(document: dict[str, Any]) -> None:
    document["spec"].pop("resources")


def tiny_disk(document: dict[str, Any]) -> None:
    document["spec"]["resources"]["requests"]["storage"] = "10Gi"


def not_in(document: dict[str, Any]) -> None:
    document["spec"]["requirements"].append(
        {"key": labels.INSTANCE_TYPE, "operator": "NotIn", "values": ["Standard_D2s_v5"]}
    )


def windows(document: dict[str, Any]) -> None:
    document["spec"]["requirements"][1]["values"] = ["windows"]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("invalid-name", unchanged, r"must match ^[a-z][a-z0-9]{0,11}$"),
        ("ws1", without_sizes, "no requirement node.kubernetes.io/instance-type"),
        ("ws1", without_storage, "storage request of claim ws1 must be more than 0"),
        ("ws1", tiny_disk, "use 30 to 2048 GiB"),
        ("ws1", not_in, "operator NotIn is not supported"),
        ("ws1", windows, "supported values are linux"),
    ],
)
async def test_invalid_claim_is_reported_without_a_request_to_the_cloud(
    stage: "Stage", name: str, change: Any, words: str
) -> None:
    await stage.start(gc_interval_seconds=1e6)
    stage.simulator.api.requests.clear()
    claim = stage.put(name, change)
    await stage.world.advance(600)
    launched = stage.condition("launched", name)
    assert (launched.status, launched.reason) == ("False", "InvalidClaim")
    assert words in launched.message
    assert not [request for request in stage.simulator.api.requests if request.method != "GET"]
    assert [event.reason for event in stage.world.events(claim)].count("InvalidClaim") == 1
    stage.delete(name)
    await stage.until_gone(name, within=30)


async def test_unknown_instance_type_is_rejected_before_creation(stage: "Stage") -> None:
    await stage.start()
    stage.claim("ws1", "Standard_Imaginary_v9")
    await stage.world.advance(60)
    launched = stage.condition("launched")
    assert (launched.status, launched.reason) == ("False", "UnsupportedInstanceType")
    assert launched.message.startswith(UNAVAILABLE)
    assert "Standard_Imaginary_v9 is not offered in eastus" in launched.message
    assert stage.calls("PUT") == 0


async def test_instance_type_that_azure_rejects_at_creation_is_reported(stage: "Stage") -> None:
    stage.simulator.faults.add(named("sku"))
    await stage.start()
    stage.claim()
    await stage.world.advance(60)
    assert stage.condition("launched").reason == "UnsupportedInstanceType"


async def test_exceeded_quota_is_reported_with_numbers_and_retried(stage: "Stage") -> None:
    stage.simulator.cluster.quota[FAMILY] = 12
    await stage.start()
    claim = stage.claim()
    await stage.world.settle()
    launched = stage.condition("launched")
    assert (launched.status, launched.reason) == ("False", "QuotaExceeded")
    assert "needs 24 vCPUs of quota StandardNCADSA100v4Family in eastus: limit 12, in use 0" in launched.message
    assert stage.condition("Ready").status == "False"
    assert stage.calls("PUT") == 0
    await stage.world.advance(3 * 3600)
    assert stage.find() is not None, "a reported cause has no deadline"
    assert [event.reason for event in stage.world.events(claim)].count("QuotaExceeded") == 1

    stage.simulator.cluster.quota[FAMILY] = 24
    await stage.until_ready(within=600 + 400)


@pytest.mark.parametrize("fault", ["quota", "quota-nested"])
async def test_quota_error_of_the_creation_is_reported_and_retried(stage: "Stage", fault: str) -> None:
    stage.simulator.faults.add(named(fault))
    await stage.start()
    stage.claim()
    await stage.world.settle()
    assert stage.condition("launched").reason == "QuotaExceeded"
    await stage.until_ready(within=1100)
    assert stage.calls("PUT") == 2


async def test_failed_pool_is_deleted_and_the_next_instance_type_is_tried_without_capacity(stage: "Stage") -> None:
    stage.simulator.cluster.capacity[A100.lower()] = 0
    await stage.start()
    stage.claim("ws1", A100, H100)
    claim = await stage.until_ready(within=1500)
    assert claim.labels[labels.INSTANCE_TYPE] == H100
    assert stage.pool().size.name == H100
    assert stage.pools == ["ws1"]


async def test_delay_grows_while_no_offering_has_capacity(stage: "Stage") -> None:
    stage.simulator.cluster.capacity[A100.lower()] = 0
    await stage.start()
    stage.claim()
    await stage.world.settle()
    await stage.until("refused", lambda: stage.condition("launched").status == "False")
    launched = stage.condition("launched")
    assert launched.reason == "InsufficientCapacity"
    assert launched.message.startswith(UNAVAILABLE)
    assert "AllocationFailed" in launched.message
    await stage.world.advance(200)
    assert stage.pools == [], "a failed pool is deleted"
    before = stage.calls("PUT")
    await stage.world.advance(3600)
    assert stage.calls("PUT") - before <= 4

    stage.simulator.cluster.capacity.clear()
    await stage.until_ready(within=5400)


@pytest.mark.parametrize(
    ("fault", "status", "reason", "words"),
    [
        ("unauthorized", "False", "Unauthorized", "does not have authorization"),
        ("throttled", "Unknown", "CloudThrottled", "being throttled"),
        ("server-error", "Unknown", "CloudUnavailable", "Internal server error"),
        ("busy", "Unknown", "CloudBusy", "is in progress"),
        ("drop", "Unknown", "CloudUnavailable", "Connection aborted"),
    ],
)
async def test_error_of_the_creation_is_reported_until_it_succeeds(
    stage: "Stage", fault: str, status: str, reason: str, words: str
) -> None:
    rule = stage.simulator.faults.add(named(fault, pool="ws1", method="PUT", times=None))
    await stage.start()
    stage.claim()
    await stage.world.settle()
    launched = stage.condition("launched")
    assert (launched.status, launched.reason) == (status, reason)
    assert words in launched.message
    assert not stage.condition("Ready").is_true
    await stage.world.advance(60)
    assert stage.condition("launched").reason == reason, "it is reported as long as it lasts"

    stage.simulator.faults.clear(rule.name)
    await stage.until_ready(within=900)
    assert stage.pools == ["ws1"]


async def test_missing_response_does_not_block_other_claims(stage: "Stage") -> None:
    stage.simulator.faults.add(named("hang", pool="ws1", times=None))
    await stage.start(concurrency=1)
    stage.claim("ws1")
    stage.claim("ws2")
    await stage.until_ready("ws2", within=600)
    assert stage.condition("launched").reason == "CloudUnavailable"
    assert "no response from Azure within 60 seconds" in stage.condition("launched").message
    stage.simulator.faults.clear("hang")
    await stage.until_ready("ws1")


async def test_errors_while_polling_do_not_create_a_second_pool(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.world.advance(60)
    for fault in ("throttled", "server-error", "drop", "truncated", "unauthorized"):
        stage.simulator.faults.add(named(fault, method="GET", times=2))
        await stage.world.advance(30)
    await stage.until_ready(within=1200)
    assert stage.calls("PUT") == 1


@pytest.mark.parametrize("fault", ["status-lost", "accepted-then-dropped"])
async def test_launch_continues_after_a_lost_response_or_operation(stage: "Stage", fault: str) -> None:
    stage.simulator.faults.add(named(fault))
    await stage.start()
    stage.claim()
    await stage.until_ready()
    repeated = [r.status for r in stage.simulator.api.requests if r.method == "PUT"][1:]
    assert set(repeated) <= {412}, "the SDK may repeat a PUT without a response and finds its own pool"
    assert stage.calls("DELETE") == 0


@pytest.mark.parametrize("fault", ["canceled", "succeeded-but-failed"])
async def test_failed_pool_is_recreated(stage: "Stage", fault: str) -> None:
    stage.simulator.faults.add(named(fault))
    await stage.start()
    stage.claim()
    await stage.until_ready(within=2400)
    assert (stage.calls("PUT"), stage.calls("DELETE")) == (2, 1)


async def test_pool_of_another_owner_with_the_name_is_not_changed(stage: "Stage") -> None:
    stage.simulator.cluster.put("ws1", {"properties": {"vmSize": "Standard_D2s_v5"}})
    await stage.start()
    stage.claim()
    await stage.world.advance(900)
    launched = stage.condition("launched")
    assert (launched.status, launched.reason) == ("False", "AgentPoolNameConflict")
    stage.delete()
    await stage.until_gone(within=60)
    assert stage.pools == ["ws1"]
    assert stage.pool().size.name == "Standard_D2s_v5"
    assert stage.calls("PUT") == stage.calls("DELETE") == 0


async def test_pool_of_a_former_claim_of_the_name_is_deleted_first(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.until_ready()
    stage.world.patch(stage.kind, "ws1", {"metadata": {"finalizers": None}})
    stage.delete()
    assert stage.find() is None
    await stage.stop()

    await stage.start()
    second = stage.claim()
    await stage.until("new pool", lambda: stage.calls("PUT") == 2)
    await stage.until_ready()
    assert stage.pool().properties["tags"]["kaito-claim-uid"] == second.uid
    assert stage.pools == ["ws1"]


async def test_machine_and_node_claim_with_one_name_do_not_share_a_pool(stage: "Stage") -> None:
    from test.unit.provisioner.conftest import KINDS, claim_manifest

    await stage.start()
    stage.claim()
    await stage.until_ready()
    other = next(kind for kind in KINDS if kind is not stage.kind)
    stage.world.put(claim_manifest(other, "ws1"))
    await stage.world.advance(60)
    launched = stage.world.get(other, "ws1").condition(other.stages.launched)
    assert launched is not None
    assert launched.reason == "AgentPoolNameConflict"
    stage.world.delete(other, "ws1")
    await stage.world.advance(60)
    assert stage.world.find(other, "ws1") is None
    assert stage.get().is_ready


async def test_claim_is_launched_without_permission_to_read_instance_types(stage: "Stage") -> None:
    stage.simulator.faults.add(named("unauthorized", path="/skus", times=None))
    await stage.start()
    stage.claim()
    await stage.until_ready()


async def test_token_is_not_sent_to_the_url_of_an_annotation(stage: "Stage") -> None:
    """Users who may edit claims must not receive the provisioner's Azure token."""
    stage.simulator.faults.add(Fault(method="PUT", pool="ws1", status=500, body={}))
    await stage.start()
    stage.claim(annotations={labels.ARM_OPERATION: "http://evil.example/operations/1"})
    await stage.until_ready()
    assert not [request for request in stage.simulator.api.requests if request.path == "/operations/1"]


async def test_missing_cluster_is_not_a_deleted_pool(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.world.advance(60)
    await stage.stop()
    stage.delete()
    stage.azure["cluster"] = "elsewhere"
    await stage.start()
    await stage.world.advance(600)
    assert stage.condition("InstanceTerminating").reason == "ClusterNotFound"
    await stage.stop()
    stage.azure.clear()
    await stage.start()
    await stage.until_gone()
    assert stage.pools == []
