"""What `kaito plan` prints is what the controller does: claims, Services and workloads of generated Workspaces.

The Workspaces are generated from a seed. Each is planned, then the controller runs on the in-memory API server, and the
objects are compared. Once everything exists, a plan against that API server shows no change.
"""

import random
from datetime import timedelta
from typing import Any

import pytest

from kaito.api import NodeClaim, Workspace, labels
from kaito.api.karpenter import NodePool
from kaito.models import catalog, instance_types
from kaito.planning.comparison import CONTROLLER, Change, LiveComparison
from kaito.planning.documents import Documents
from kaito.planning.reader import PlanReader
from kaito.runtime.client import Client
from kaito.runtime.crd import Version, crd
from kaito.runtime.kinds import ConfigMap, Job, Namespace, Secret, Service, StatefulSet
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.runtime.testing import World
from kaito.workspace.claim_policy import ProvisionAttempts
from kaito.workspace.node_class import NodeClassSettings
from kaito.workspace.ownership import owns_claim, owns_pool
from kaito.workspace.preflight.context import Workload
from kaito.workspace.preview import Preview, preview
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.support.node_pools import Pools
from test.unit.workspace.conftest import Cluster
from test.unit.workspace.input_cases import INPUTS, PUSH, TOKEN, adapter, config, template, tuned
from test.unit.workspace.test_node_class import KwokClass, put_class

CONFIGS = (
    config("c-small", "vllm: {max-model-len: 1024}"),
    config("c-parallel", "vllm: {tensor-parallel-size: 2}"),
    config("c-sequences", "vllm: {max-num-seqs: 8, gpu-memory-utilization: 0.8}"),
    config("c-long", "vllm: {max-model-len: 131072}"),
    config("c-broken", "vllm: ["),
    config("c-training", "training_config: {}", "training_config.yaml"),
)
PRESETS = [preset.name for preset in catalog.presets()]
SIZES = [size.name for size in instance_types.instance_types("azure")] + ["Standard_D4s_v3", "Standard_NC6s_v33"]


def generated(rng: random.Random, number: int) -> dict[str, Any]:
    """Returns a Workspace; about half of them can run."""
    name = f"w-{number}"
    annotations: dict[str, str] = {}
    if rng.random() < 0.15:
        annotations[labels.RUNTIME] = rng.choice(["transformers", "vllm"])
    if rng.random() < 0.1:
        annotations[labels.BYPASS_RESOURCE_CHECKS] = "true"
    if rng.random() < 0.1:
        annotations[labels.ENABLE_LOAD_BALANCER] = "true"
    resource: dict[str, Any] = {
        "instanceType": rng.choice(SIZES),
        "labelSelector": {"matchLabels": {"apps": name}},
        "count": rng.choice([1, 1, 1, 2, 3]),
    }
    if rng.random() < 0.25:
        del resource["instanceType"]
        resource["instanceTypes"] = rng.sample(SIZES, 3)
    if rng.random() < 0.25:
        resource["capacityType"] = rng.choice(["on-demand", "spot", "spot-preferred"])
        resource["zones"] = rng.sample(["1", "2", "3"], 2)
    part = _part(rng)
    if "tuning" in part:
        resource["count"] = 1
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "resource": resource,
        **part,
    }


def _part(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(["preset"] * 6 + ["config", "config", "adapter", "template", "tuning"])
    if kind == "template":
        return template(container={"resources": {"limits": {"nvidia.com/gpu": rng.choice([1, 2, 8])}}})
    if kind == "tuning":
        return tuned(preset={"name": rng.choice(PRESETS)}, method=rng.choice(["lora", "qlora"]))
    if kind == "adapter":
        return adapter(image="registry.example.com/adapter:1", imagePullSecrets=rng.choice([[], ["absent"]]))
    preset: dict[str, Any] = {"name": rng.choice(PRESETS)}
    if rng.random() < 0.8:
        preset["presetOptions"] = {"modelAccessSecret": "token"}
    if kind == "config":
        return {"inference": {"preset": preset, "config": rng.choice(CONFIGS)["metadata"]["name"]}}
    return {"inference": {"preset": preset}}


def bare(obj: Resource) -> dict[str, Any]:
    """Returns what the controller decides about an object, without what the server adds."""
    document = obj.to_dict()
    metadata: dict[str, Any] = document["metadata"]
    kept: dict[str, Any] = {name: metadata.get(name) or {} for name in ("name", "labels", "annotations")}
    return {"kind": obj.kind, "metadata": kept, "spec": document.get("spec"), "data": document.get("data")}


class Planner:
    """Plans stored Workspaces as `kaito plan --cluster` does."""

    def __init__(self, world: World, settings: WorkspaceSettings) -> None:
        self.world, self.settings = world, settings
        self.live = LiveComparison(Client(world.transport(), field_manager=CONTROLLER), settings)

    async def plan(self, stored: Workspace, *, is_new: bool = False) -> tuple[Preview, list[Change]]:
        reader = PlanReader(Documents(), stored.namespace, self.live.reader(stored))
        observed = await self.live.observe(stored)
        found = await preview(
            stored, self.settings, reader, now=self.world.now, old=None if is_new else stored, observed=observed
        )
        return found, await self.live.changes(found, stored)

    async def offline(self, manifest: dict[str, Any]) -> Preview:
        return await preview(
            Workspace.model_validate(manifest),
            self.settings,
            PlanReader(Documents(config_maps=[ConfigMap.model_validate(c) for c in CONFIGS]), "default"),
            now=self.world.now,
        )


SEEDS = ((NodeApi.MACHINE, 1), (NodeApi.NODECLAIM, 2), (NodeApi.KARPENTER, 3))
GROUP = "karpenter.kwok.sh"
KARPENTER = WorkspaceSettings(
    node_api=NodeApi.KARPENTER, node_class=NodeClassSettings(karpenter_node_class_group=GROUP)
)


@pytest.fixture(params=SEEDS, ids=lambda given: f"{given[0]}-{given[1]}")
def seeded(request: pytest.FixtureRequest) -> tuple[WorkspaceSettings, random.Random]:
    node_api, seed = request.param
    settings = KARPENTER if node_api is NodeApi.KARPENTER else WorkspaceSettings(node_api=node_api)
    return settings, random.Random(seed)


def karpenter_cluster(world: World) -> Pools:
    world.install(crd([Version(model=KwokClass, storage=True)]))
    for name in ("default", "gpu"):
        put_class(world, name)
    return Pools(world, KARPENTER)


@pytest.fixture
async def cluster(world: World, seeded: tuple[WorkspaceSettings, random.Random]) -> Cluster:
    made = karpenter_cluster(world) if seeded[0] is KARPENTER else Cluster(world, seeded[0])
    for document in CONFIGS:
        world.put(ConfigMap.model_validate(document))
    for document in (PUSH, TOKEN):
        world.put(Secret.model_validate(document))
    return made


def stored(cluster: Cluster, rng: random.Random, count: int) -> list[Workspace]:
    """Applies generated Workspaces; the API server rejects none of them."""
    manifests = [generated(rng, number) for number in range(count)]
    return [cluster.apply(Workspace.model_validate(manifest)) for manifest in manifests]


@pytest.mark.sample(1)
async def test_the_controller_creates_what_the_plan_contains(
    cluster: Cluster, seeded: tuple[WorkspaceSettings, random.Random]
) -> None:
    settings, rng = seeded
    workspaces = stored(cluster, rng, 24)
    planner = Planner(cluster.world, settings)
    plans = {workspace.name: (await planner.plan(workspace))[0] for workspace in workspaces}
    assert 5 <= sum(bool(plan.errors) for plan in plans.values()) <= 19, "the inputs are one-sided"
    async with cluster.controller():
        await cluster.world.settle()
        if isinstance(cluster, Pools):
            for workspace in workspaces:
                _compare_pools(cluster, workspace, plans[workspace.name])
            while cluster.scale_step():
                pass
            await cluster.world.settle()
        for workspace in workspaces:
            _compare_claims(cluster, workspace, plans[workspace.name])
        for claim in cluster.claims():
            owner = cluster.workspace(claim.labels[labels.WORKSPACE])
            plan = plans[owner.name].plan
            assert plan is not None
            cluster.join(claim, gpus=str(plan.hardware.gpus))
        await cluster.world.settle()
        await cluster.world.advance(5)
        for workspace in workspaces:
            _compare_workload(cluster.world, workspace, plans[workspace.name])
            found, changes = await planner.plan(cluster.workspace(workspace.name))
            assert (found.objects.claims, found.new_claims) == ((), 0)
            assert {
                (c.object.kind, c.action, c.diff) for c in changes if found.plan and c.action != "unchanged"
            } == set()


def _compare_pools(cluster: Pools, workspace: Workspace, plan: Preview) -> None:
    found = [pool for pool in cluster.pools() if owns_pool(workspace, pool)]
    planned = [plan.objects.pool] if plan.objects.pool is not None else []
    assert [bare(pool) for pool in found] == [bare(pool) for pool in planned], workspace.name


def _compare_claims(cluster: Cluster, workspace: Workspace, plan: Preview) -> None:
    created = sorted((bare(c) for c in cluster.claims() if owns_claim(workspace, c)), key=str)
    assert len(created) == plan.new_claims
    if plan.objects.pool is None:
        assert created == sorted((bare(claim) for claim in plan.objects.claims), key=str), workspace.name
    status, reason, message = cluster.conditions(workspace.name)["ResourceReady"]
    if plan.errors:
        assert (status, reason) == ("False", plan.errors[0].reason), workspace.name
        assert str(plan.errors[0]) in message
    else:
        assert plan.plan is not None
        assert len(created) == plan.plan.hardware.count == plan.wanted_claims
        assert cluster.workspace(workspace.name).status.target_node_count == plan.plan.hardware.count


def _compare_workload(world: World, workspace: Workspace, plan: Preview) -> None:
    kind: type[Workload] = StatefulSet if workspace.tuning is None else Job
    workload = world.find(kind, workspace.name)
    services = [s for s in world.list(Service) if s.labels.get(labels.WORKSPACE) == workspace.name]
    if plan.plan is None or plan.objects.workload is None:
        assert (workload, services) == (None, [])
        return
    assert workload is not None, workspace.name
    assert sorted(s.name for s in services) == sorted(s.name for s in plan.objects.services)
    container = plan.plan.container
    if container is None or not container.is_weights_provisional:
        digest = labels.TEMPLATE_HASH if kind is StatefulSet else labels.INPUTS_HASH
        assert workload.annotations[digest] == plan.objects.workload.annotations[digest]
    if isinstance(workload, StatefulSet) and isinstance(plan.objects.workload, StatefulSet):
        assert workload.spec.replicas == plan.objects.workload.spec.replicas


def changed(rng: random.Random, pools: Pools, workspace: Workspace) -> str:
    """Changes a Workspace or what it has while no controller runs; returns the kind of the change."""
    kind = rng.choice(["more", "fewer", "none", "class", "lost", "paused", "surplus"])
    now = pools.world.now
    patch: dict[str, Any] = {}
    replicas = workspace.spec.replicas or 1
    own = [claim for claim in pools.world.list(NodeClaim) if owns_claim(workspace, claim)]
    if kind in {"more", "fewer", "none"} and workspace.inference is not None:
        wanted = {"more": replicas + 2, "fewer": max(replicas - 1, 0), "none": 0}[kind]
        patch = {"spec": {"replicas": wanted}}
    elif kind == "class":
        patch = {"metadata": {"annotations": {labels.NODE_CLASS: f"{GROUP}/KWOKNodeClass/gpu"}}}
    elif kind in {"lost", "paused"}:
        pools.world.delete(NodeClaim, rng.choice(own).name)
        if kind == "paused":
            failures = rng.choice([1, 2, 4])
            started = now - timedelta(seconds=rng.choice([5, 25, 3600]))
            attempts = ProvisionAttempts(serial=0, failures=failures, backoff_started_at=started)
            patch = {"metadata": {"annotations": {labels.PROVISION_ATTEMPTS: attempts.to_annotation()}}}
    elif kind == "surplus":
        (pool,) = [pool for pool in pools.pools() if owns_pool(workspace, pool)]
        pools.world.patch(NodePool, pool.name, {"spec": {"replicas": (pool.spec.replicas or 0) + 1}})
    if patch:
        pools.world.patch(Workspace, workspace.name, patch)
    return kind


@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", range(2))
async def test_the_controller_changes_a_pool_as_the_plan_contains(world: World, seed: int) -> None:
    """Copies, node class, losses and pauses of Workspaces that serve. The budget for drift follows the copies: a plan
    leaves that of a pool that exists."""
    rng, pools = random.Random(seed), karpenter_cluster(world)
    for document in (PUSH, TOKEN):
        world.put(Secret.model_validate(document))
    manifests = (generated(rng, number) for number in range(100))
    candidates = (Workspace.model_validate(manifest) for manifest in manifests)
    planner = Planner(world, KARPENTER)
    serving: list[Workspace] = []
    async with pools.controller():
        for candidate in candidates:
            stored = pools.apply(candidate)
            await world.settle()
            plan, _ = await planner.plan(pools.workspace(stored.name))
            if plan.plan is None:
                world.delete(Workspace, stored.name)
                continue
            while pools.scale_step():
                pass
            for claim in pools.claims():
                if not claim.status.node_name:
                    pools.join(claim, gpus=str(plan.plan.hardware.gpus))
            await world.advance(5)
            serving.append(pools.workspace(stored.name))
            if len(serving) == 10:
                break
    changes = {workspace.name: changed(rng, pools, workspace) for workspace in serving}
    assert len(set(changes.values())) >= 4, "the changes are one-sided"
    plans = {each.name: (await planner.plan(pools.workspace(each.name)))[0] for each in serving}
    async with pools.controller():
        await world.settle()
        for workspace in serving:
            plan = plans[workspace.name]
            (pool,) = [pool for pool in pools.pools() if owns_pool(workspace, pool)]
            wanted = plan.objects.pool
            assert wanted is not None
            found = pool.spec.evolve(disruption=wanted.spec.disruption)
            assert found.to_dict() == wanted.spec.to_dict(), f"{workspace.name}: {changes[workspace.name]}"
            missing = max((pool.spec.replicas or 0) - len(pools.live(pool)), 0)
            assert plan.new_claims == missing, changes[workspace.name]


async def test_a_plan_without_a_cluster_has_the_same_nodes_and_refusals(
    cluster: Cluster, seeded: tuple[WorkspaceSettings, random.Random]
) -> None:
    """Only what needs Secrets differs: those are not in the files."""
    settings, rng = seeded
    planner = Planner(cluster.world, settings)
    for number in range(24):
        manifest = generated(rng, number)
        offline = await planner.offline(manifest)
        found, _ = await planner.plan(cluster.apply(Workspace.model_validate(manifest)), is_new=True)
        if any(error.reason == "SecretNotFound" for error in found.errors):
            continue
        assert [str(error) for error in offline.errors] == [str(error) for error in found.errors]
        assert (offline.plan and offline.plan.hardware) == (found.plan and found.plan.hardware)


@pytest.mark.parametrize("given", INPUTS, ids=lambda given: given.row)
async def test_each_rejected_input_is_refused_with_the_reason_of_the_condition(world: World, given: Any) -> None:
    settings = WorkspaceSettings()
    cluster = Cluster(world, settings)
    for document in given.objects:
        kind: type[Resource] = Secret if document["kind"] == "Secret" else ConfigMap
        world.put(kind.model_validate(document))
    found, _ = await Planner(world, settings).plan(cluster.apply(Workspace.model_validate(given.manifest())))
    assert found.errors[0].reason == given.reason
    assert any(given.words in str(error) for error in found.errors)
    assert found.objects.all() == []


async def test_a_plan_contains_the_budget_of_the_namespace(world: World) -> None:
    """What the other Workspaces have reserved counts, as it does for the controller."""
    settings = WorkspaceSettings(region="eastus")
    cluster = Cluster(world, settings)
    world.put(Namespace(metadata=ObjectMeta(name="default", annotations={labels.HOURLY_BUDGET: "7"})))
    documents = [
        {
            "metadata": {"name": name, "namespace": "default"},
            "resource": {
                "instanceType": "Standard_NC24ads_A100_v4",
                "labelSelector": {"matchLabels": {"apps": name}},
            },
            "inference": {"preset": {"name": "phi-4"}},
        }
        for name in ("first", "second")
    ]
    first, second = (Workspace.model_validate(document) for document in documents)
    planner = Planner(world, settings)
    async with cluster.controller():
        world.put(first)
        await world.settle()
        stored = world.put(second)
        await world.settle()
        (claim,) = cluster.claims()
        assert claim.labels[labels.WORKSPACE] == "first"
        found, _ = await planner.plan(world.get(Workspace, stored.name))
        (error,) = found.errors
        assert error.reason == "BudgetExceeded"
        assert "7.00 less 3.67 of others (first 3.67)" in error.message
        assert error.message in cluster.conditions("second")["ResourceReady"][2]
        kept, _ = await planner.plan(world.get(Workspace, "first"))
        assert kept.errors == ()
