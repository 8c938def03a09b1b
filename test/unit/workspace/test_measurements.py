"""What servers measured is kept in a ConfigMap, and changes later plans by safe rules."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from kaito.api import Workspace, labels
from kaito.models import catalog, instance_types
from kaito.models.engine import EngineSettings
from kaito.models.errors import InstanceTypeTooSmall
from kaito.models.gpu import GIB, InstanceType
from kaito.models.measured import MeasuredMemory
from kaito.models.planning import plan_inference
from kaito.models.preset import Preset
from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Api, Client
from kaito.runtime.kinds import ConfigMap, Namespace, Pod, StatefulSet
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World
from kaito.workspace import start_progress
from kaito.workspace.measurements import (
    NAME,
    RETRY_SECONDS,
    MeasurementRecord,
    Measurements,
    measured_memory,
    settings_digest,
)
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.support.pod_servers import Servers
from test.unit.workspace.conftest import Cluster

A10 = "Standard_NV36ads_A10_v5"
MODEL = "qwen3.5-9b"
"""Needs two nodes with an A10 by the estimate: 21.6 of 19.7 GiB."""

SYSTEM = "kaito-system"
ADDRESS = "10.0.0.7"
MOMENT = datetime(2030, 1, 1, tzinfo=UTC)
SETTINGS = settings_digest(config="", performance_mode="", adapters=0)


def record(**changes: object) -> MeasurementRecord:
    values: dict[str, object] = {
        "model": MODEL,
        "gpu": "NVIDIA A10",
        "memory_per_gpu": instance_types.get(A10).memory_per_gpu,
        "dtype": "bfloat16",
        "tensor": 1,
        "pipeline": 1,
        "data": 1,
        "nodes": 1,
        "settings": SETTINGS,
        "adapters": 0,
        "sequences": 16,
        "peak_bytes": 17 * GIB,
        "cache_tokens": 40_000,
        "image": "registry.example.com/kaito-vllm:1",
        "measured_at": MOMENT,
        **changes,
    }
    return MeasurementRecord.model_validate(values)


def preset_with(*records: MeasurementRecord, settings: str = SETTINGS) -> tuple[Preset, InstanceType]:
    preset, instance = catalog.get(MODEL), instance_types.get(A10)
    found = measured_memory(records, preset, instance, created=None, settings=settings)
    return preset.model_copy(update={"measured": found}), instance


def test_a_configuration_that_has_run_fits() -> None:
    assert plan_inference(*preset_with()).nodes_per_copy == 2
    assert plan_inference(*preset_with(record())).nodes_per_copy == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": "other"},
        {"cache_tokens": 2200},
        {"model": "qwen3.5-4b"},
        {"gpu": "NVIDIA L4"},
        {"memory_per_gpu": 40 * GIB},
        {"nodes": 2, "pipeline": 2},
        {"data": 2},
    ],
    ids=", ".join,
)
def test_another_configuration_proves_nothing(changes: dict[str, object]) -> None:
    assert plan_inference(*preset_with(record(**changes))).nodes_per_copy == 2


def test_the_context_must_be_within_the_measured_cache() -> None:
    preset, instance = preset_with(record(cache_tokens=22_000))
    fits = plan_inference(preset, instance, engine=EngineSettings(max_model_len=20_000))
    assert fits.nodes_per_copy == 1
    with pytest.raises(InstanceTypeTooSmall, match="use at most 20000"):
        plan_inference(preset, instance, engine=EngineSettings(max_model_len=20_001))


def test_the_worst_of_several_measurements_decides() -> None:
    assert plan_inference(*preset_with(record(), record(cache_tokens=1000))).nodes_per_copy == 2


def granite(**changes: object) -> tuple[Preset, InstanceType]:
    """A model that just fits on one A10 by the estimate: 19.4 of 19.7 GiB."""
    preset, instance = catalog.get("granite-4.1-8b"), instance_types.get(A10)
    found = record(model=preset.name, sequences=0, **changes)
    measured = measured_memory([found], preset, instance, created=None, settings=SETTINGS)
    return preset.model_copy(update={"measured": measured}), instance


def test_what_used_more_than_its_estimate_raises_the_need() -> None:
    preset, instance = granite(peak_bytes=20 * GIB, settings="other")
    assert plan_inference(preset, instance).nodes_per_copy == 2
    preset, instance = granite(peak_bytes=15 * GIB, settings="other")
    assert plan_inference(preset, instance).nodes_per_copy == 1


@pytest.mark.parametrize(("ranks", "excess"), [(1, 4.0), (2, 2.0), (4, 2.0)])
def test_the_excess_grows_with_the_share_of_the_model_on_a_gpu(ranks: int, excess: float) -> None:
    measured = MeasuredMemory(
        gpu="x", memory_per_gpu=1, tensor=2, pipeline=1, data=1, nodes=1,
        peak=12.0, estimate=10.0, cache_tokens=1, has_same_settings=False,
    )  # fmt: skip
    assert measured.excess_over(ranks) == excess


def test_a_lower_peak_never_lowers_the_need_of_another_division() -> None:
    preset, instance = preset_with(record(peak_bytes=1 * GIB, nodes=2, pipeline=2))
    bare, _ = preset_with()
    assert plan_inference(preset, instance).explanation == plan_inference(bare, instance).explanation


def test_only_measurements_before_the_creation_count() -> None:
    preset, instance = catalog.get(MODEL), instance_types.get(A10)
    for created, count in ((MOMENT, 0), (MOMENT + timedelta(seconds=1), 1), (None, 1)):
        found = measured_memory([record()], preset, instance, created=created, settings=SETTINGS)
        assert len(found) == count, created


def test_implausible_measurements_are_recognized() -> None:
    preset, instance = catalog.get(MODEL), instance_types.get(A10)
    assert record().is_plausible(preset, instance)
    for changes in ({"peak_bytes": 1 * GIB}, {"peak_bytes": 90 * GIB}, {"cache_tokens": 0}):
        assert not record(**changes).is_plausible(preset, instance)


def entries(world: World) -> dict[str, str]:
    found = world.find(ConfigMap, NAME, SYSTEM)
    return found.data if found is not None else {}


# -- the controller --


@pytest.fixture
def settings(node_api: NodeApi) -> WorkspaceSettings:
    return WorkspaceSettings(node_api=node_api, namespace=SYSTEM)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    found = Servers()
    monkeypatch.setattr(start_progress, "fetch_progress", found)
    return found


def workspace(name: str, *, bypass: bool = False, **metadata: object) -> Workspace:
    annotations = {labels.BYPASS_RESOURCE_CHECKS: "true"} if bypass else {}
    return Workspace.model_validate(
        {
            "metadata": {"name": name, "namespace": "default", "annotations": annotations, **metadata},
            "resource": {"count": 1, "instanceType": A10, "labelSelector": {"matchLabels": {"apps": name}}},
            "inference": {"preset": {"name": MODEL}},
        }
    )


async def measure(cluster: Cluster, servers: Servers, figures: Mapping[str, float], *, revision: str = "r1") -> None:
    """Lets a pod of the Workspace `first` become ready and report its figures."""
    cluster.namespace(SYSTEM)
    await cluster.world.settle()
    (claim,) = [each for each in cluster.claims() if each.labels[labels.WORKSPACE] == "first"]
    cluster.join(claim)
    await cluster.world.settle()
    servers.documents[ADDRESS] = {"phase": "ready", "figures": {"loadSeconds": 60.0, "contextTokens": 4096, **figures}}
    owner = cluster.world.get(StatefulSet, "first")
    cluster.world.put(
        Pod.model_validate(
            {
                "metadata": {
                    "name": "first-0",
                    "labels": {labels.WORKSPACE: "first", "controller-revision-hash": revision},
                    "ownerReferences": [owner.owner_reference().to_dict()],
                },
                "spec": {"nodeName": f"node-{claim.name}", "containers": [{"name": "first", "image": "x"}]},
                "status": {
                    "phase": "Running",
                    "podIP": ADDRESS,
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }
        )
    )
    cluster.world.patch(StatefulSet, "first", {"status": {"updateRevision": "r1"}}, subresource="status")
    cluster.serve("first")
    await cluster.world.advance(10)


def claims_of(cluster: Cluster, name: str) -> int:
    return sum(each.labels[labels.WORKSPACE] == name for each in cluster.claims())


FIGURES = {"cacheBytes": 2 * GIB, "cacheTokens": 40_000}


async def test_the_next_workspace_uses_what_the_first_measured(cluster: Cluster, servers: Servers) -> None:
    async with cluster.controller():
        cluster.apply(workspace("before"))
        cluster.apply(workspace("first", bypass=True))
        await measure(cluster, servers, FIGURES)
        assert len(entries(cluster.world)) == 1
        performance = cluster.workspace("first").status.performance
        assert performance is not None
        assert performance.metrics["peakMemory"].value == "17.68"
        assert performance.metrics["peakMemory"].config == {"planned": "21.52"}
        await cluster.world.advance(60)
        cluster.apply(workspace("after"))
        await cluster.world.settle()
        assert {name: claims_of(cluster, name) for name in ("before", "first", "after")} == {
            "before": 2, "first": 1, "after": 1,
        }  # fmt: skip
    async with cluster.controller():
        await cluster.world.advance(120)
        cluster.apply(workspace("much-later"))
        await cluster.world.settle()
        assert claims_of(cluster, "much-later") == 1
        assert claims_of(cluster, "before") == 2, "the plan of a Workspace does not change while it runs"


async def test_concurrent_reconciles_read_a_change_once(world: World) -> None:
    world.put(Namespace(metadata=ObjectMeta(name=SYSTEM)))
    metadata = ObjectMeta(name=NAME, namespace=SYSTEM)
    world.put(ConfigMap(metadata=metadata, data={"key": record().model_dump_json(by_alias=True)}))
    transport, store = world.transport(latency=0.1), Measurements(SYSTEM)
    cache = Cache(transport, [Cached(ConfigMap, only="metadata")], clock=world.clock)
    api = Api(Client(transport, field_manager="test"), cache)
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(60)
        assert await asyncio.gather(*(store.records(api) for _ in range(5))) == [(record(),)] * 5
    assert world.count("get", ConfigMap) == 1


async def test_unchanged_measurements_are_not_read_again(cluster: Cluster) -> None:
    cluster.namespace(SYSTEM)
    earlier = record(measured_at=MOMENT - timedelta(days=1)).model_dump_json(by_alias=True)
    cluster.world.put(ConfigMap(metadata=ObjectMeta(name=NAME, namespace=SYSTEM), data={"key": earlier}))
    for number in range(5):
        cluster.apply(workspace(f"w-{number}"))
    async with cluster.controller():
        await cluster.world.advance(300)
        assert [claims_of(cluster, f"w-{number}") for number in range(5)] == [1] * 5
    assert cluster.world.count("get", ConfigMap, name=NAME) == 1


@pytest.mark.parametrize(
    ("figures", "revision"),
    [(FIGURES, "r0"), ({"cacheTokens": 40_000}, "r1"), ({**FIGURES, "cacheBytes": 18 * GIB}, "r1")],
    ids=["pod of another template", "no memory reported", "implausible"],
)
async def test_some_measurements_are_not_kept(
    cluster: Cluster, servers: Servers, figures: Mapping[str, float], revision: str
) -> None:
    async with cluster.controller():
        cluster.apply(workspace("first", bypass=True))
        await measure(cluster, servers, figures, revision=revision)
    assert entries(cluster.world) == {}


async def test_a_measurement_of_a_private_image_is_not_kept(cluster: Cluster, servers: Servers) -> None:
    given = workspace("first", bypass=True).to_dict()
    options = {"accessMode": "private", "presetOptions": {"image": "registry.example.com/mine:1"}}
    given["inference"]["preset"] |= options
    async with cluster.controller():
        cluster.apply(Workspace.model_validate(given))
        await measure(cluster, servers, FIGURES)
    assert entries(cluster.world) == {}


async def test_a_failed_write_does_not_stop_the_workspace(cluster: Cluster, servers: Servers) -> None:
    async with cluster.controller():
        cluster.world.deny("patch", ConfigMap, namespace=SYSTEM)
        cluster.apply(workspace("first", bypass=True))
        await measure(cluster, servers, FIGURES)
        assert cluster.conditions("first")["InferenceReady"][0] == "True"
        await cluster.world.advance(RETRY_SECONDS - 60)
        assert cluster.world.count("PATCH", ConfigMap) == 1, "a write that fails is not repeated in each reconcile"
        cluster.world.heal()
        await cluster.world.advance(RETRY_SECONDS)
        cluster.world.patch(Workspace, "first", {"metadata": {"annotations": {"example.com/a": "b"}}})
        await cluster.world.settle()
    assert len(entries(cluster.world)) == 1


async def test_a_write_without_a_response_does_not_fail_the_reconcile(
    cluster: Cluster, servers: Servers, capfd: pytest.CaptureFixture[str]
) -> None:
    async with cluster.controller():
        cluster.world.fail_next("PATCH", ConfigMap, drop_connection=True, times=None)
        cluster.apply(workspace("first", bypass=True))
        await measure(cluster, servers, FIGURES)
        assert cluster.conditions("first")["InferenceReady"][0] == "True"
    assert "measurement not kept" in (logged := "".join(capfd.readouterr()))
    assert "reconcile failed" not in logged


async def test_a_controller_without_a_namespace_keeps_nothing(
    cluster: Cluster, servers: Servers, node_api: NodeApi
) -> None:
    async with cluster.controller(WorkspaceSettings(node_api=node_api)):
        cluster.apply(workspace("first", bypass=True))
        await measure(cluster, servers, FIGURES)
        assert cluster.conditions("first")["InferenceReady"][0] == "True"
    assert entries(cluster.world) == {}
