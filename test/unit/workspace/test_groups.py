"""Workspaces whose model is divided over several nodes: objects, updates, faults and lost nodes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kaito.api import Workspace, labels
from kaito.models import catalog, instance_types
from kaito.models.copies import InvalidNodeCount, wanted_copies
from kaito.models.weights import Weights
from kaito.runtime.kinds import NetworkPolicy, Pod, Service, StatefulSet
from kaito.runtime.meta import ObjectMeta, OwnerReference
from kaito.workspace.manifests.group import leader_of, network_policy, workers_name
from kaito.workspace.manifests.inference import inference_stateful_set, worker_stateful_set
from kaito.workspace.manifests.service import client_service, headless_service
from kaito.workspace.planning import inference_plan
from kaito.workspace.pod_faults import find_fault
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.weights import WeightsChoice

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
WORKERS = f"{NAME}-workers"
SIZE = "Standard_NV36ads_A10_v5"
ENDED = "kaito-vllm: the group ended: worker 1: its engine exited with code 1"


@pytest.fixture
def large(phi: Workspace) -> Workspace:
    """A model that needs two nodes of the instance type, twice."""
    return phi.evolve(
        resource=phi.resource.evolve(instance_type=SIZE, count=2), inference={"preset": {"name": "phi-4"}}
    )


async def serving(cluster: "Cluster") -> tuple[StatefulSet, StatefulSet]:
    """Joins the nodes and makes the leaders ready; returns both StatefulSets."""
    world = cluster.world
    await world.settle()
    for claim in cluster.claims():
        cluster.join(claim)
    await world.settle()
    workers = world.get(StatefulSet, WORKERS)
    status = {"replicas": 2, "readyReplicas": 2, "observedGeneration": workers.metadata.generation}
    world.patch(StatefulSet, WORKERS, {"status": status}, subresource="status")
    cluster.serve()
    await world.settle()
    return world.get(StatefulSet, NAME), world.get(StatefulSet, WORKERS)


async def test_two_copies_on_two_nodes_each_are_four_nodes_and_two_stateful_sets(
    cluster: "Cluster", large: Workspace
) -> None:
    world = cluster.world
    cluster.apply(large)
    async with cluster.controller():
        leaders, workers = await serving(cluster)

        assert len(cluster.claims()) == 4
        assert (leaders.spec.replicas, workers.spec.replicas) == (2, 2)
        assert cluster.columns() == ("True", "True", "True")
        assert cluster.workspace().status.target_node_count == 4
        conditions = cluster.conditions()
        assert conditions["InferenceReady"][2] == "2 of 2 copies on 2 nodes ready"
        resolved = conditions["ModelResolved"][2]
        assert resolved.startswith(f"phi-4 on 4 nodes of {SIZE}: a copy is divided over 2 nodes with 2 GPUs: ")

        client = world.get(Service, NAME)
        assert client.spec.selector == {"kaito.sh/workspace": NAME, "kaito.sh/group-role": "leader"}
        assert [port.port for port in client.spec.ports] == [80]
        headless = world.get(Service, f"{NAME}-headless")
        assert headless.spec.selector == {"kaito.sh/workspace": NAME}
        assert headless.spec.publish_not_ready_addresses is True


async def test_templates_of_leaders_and_workers(cluster: "Cluster", large: Workspace) -> None:
    cluster.apply(large)
    async with cluster.controller():
        leaders, workers = (found.to_dict()["spec"] for found in await serving(cluster))

    assert leaders["selector"] == {"matchLabels": {"kaito.sh/workspace": NAME}}
    own = {"kaito.sh/workspace": NAME, "kaito.sh/group-role": "worker"}
    assert workers["selector"] == {"matchLabels": own}
    assert workers["template"]["metadata"]["labels"] == own
    assert leaders["template"]["metadata"]["labels"] == {**own, "kaito.sh/group-role": "leader"}
    assert leaders["serviceName"] == workers["serviceName"] == f"{NAME}-headless"
    assert leaders["podManagementPolicy"] == workers["podManagementPolicy"] == "Parallel"
    assert workers["updateStrategy"] == {"type": "OnDelete"}
    (leader,), (worker,) = (spec["template"]["spec"]["containers"] for spec in (leaders, workers))
    assert leader["command"] == worker["command"]
    assert "--kaito-nodes=2" in leader["command"]
    assert "--pipeline-parallel-size=2" in leader["command"]
    assert leader["env"] == worker["env"]
    environment = {variable["name"]: variable for variable in leader["env"]}
    assert environment["KAITO_LEADERS"]["value"] == NAME
    assert environment["KAITO_GROUP_SERVICE"]["value"] == f"{NAME}-headless"
    assert environment["KAITO_POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert environment["VLLM_HOST_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert "readinessProbe" in leader
    assert "readinessProbe" not in worker
    for spec in (leaders, workers):
        pod = spec["template"]["spec"]
        (term,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term == {
            "labelSelector": {"matchLabels": {"kaito.sh/workspace": NAME}},
            "topologyKey": "kubernetes.io/hostname",
        }
        assert "nodeAffinity" in pod["affinity"]
        assert any(volume["name"] == "dshm" for volume in pod["volumes"])


async def test_only_pods_of_the_workspace_reach_the_ports_of_the_engines(cluster: "Cluster", large: Workspace) -> None:
    cluster.apply(large)
    async with cluster.controller():
        await serving(cluster)
        own = {"matchLabels": {"kaito.sh/workspace": NAME}}
        policy = cluster.world.get(NetworkPolicy, f"{NAME}-group")
        assert policy.to_dict()["spec"] == {
            "podSelector": own,
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": 5000}]}, {"from": [{"podSelector": own}]}],
        }
        assert policy.metadata.owner_references[0].name == NAME


async def test_a_lost_node_is_replaced_once(cluster: "Cluster", large: Workspace) -> None:
    """The other three claims stay, and a restart of the controller buys nothing."""
    world = cluster.world
    cluster.apply(large)
    async with cluster.controller():
        await serving(cluster)
        before = {claim.name for claim in cluster.claims()}
        lost = cluster.claims()[0]
        world.delete(type(lost), lost.name)
        await world.advance(120)
    async with cluster.controller():
        await world.advance(120)
        after = {claim.name for claim in cluster.claims()}
        assert len(after) == 4
        assert len(after - before) == 1
        assert cluster.conditions()["ResourceReady"][0] == "False"


async def test_a_deleted_workspace_deletes_both_stateful_sets(cluster: "Cluster", large: Workspace) -> None:
    world = cluster.world
    cluster.apply(large)
    async with cluster.controller():
        await serving(cluster)
        world.delete(Workspace, NAME)
        await world.advance(60)
        assert world.find(StatefulSet, NAME) is None
        assert world.find(StatefulSet, WORKERS) is None
        assert cluster.claims() == []


def pod(owner: StatefulSet, ordinal: int, revision: str, *, ready: bool) -> Pod:
    role = "worker" if owner.name.endswith("workers") else "leader"
    reference = OwnerReference(api_version="apps/v1", kind="StatefulSet", name=owner.name, uid=owner.uid)
    return Pod.model_validate(
        {
            "metadata": ObjectMeta(
                name=f"{owner.name}-{ordinal}",
                namespace="default",
                labels={
                    labels.WORKSPACE: NAME,
                    labels.GROUP_ROLE: role,
                    "controller-revision-hash": revision,
                },
                owner_references=[reference],
            ).to_dict(),
            "spec": {"containers": [{"name": "model", "image": "x"}], "nodeName": "n"},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                "containerStatuses": [{"name": "model", "ready": ready, "state": {"running": {}}}],
            },
        }
    )


async def test_an_update_replaces_the_workers_of_the_leader_that_is_replaced(
    cluster: "Cluster", large: Workspace
) -> None:
    """Leader 1 was replaced by the rolling update and waits for its worker; copy 0 still serves."""
    world = cluster.world
    cluster.apply(large)
    async with cluster.controller():
        leaders, workers = await serving(cluster)
        for owner in (leaders, workers):
            status = {"status": {"updateRevision": "new", "readyReplicas": 1, "replicas": 2}}
            world.patch(StatefulSet, owner.name, status, subresource="status")
        world.put(pod(leaders, 0, "old", ready=True))
        world.put(pod(leaders, 1, "new", ready=False))
        for ordinal in (0, 1):
            world.put(pod(workers, ordinal, "old", ready=True))
        await world.advance(90)
        kept = [found.name for found in world.list(Pod) if not found.deleting]
        assert kept == [f"{NAME}-0", f"{NAME}-1", f"{WORKERS}-0"]


def ended(name: str, message: str, at: str, *, ready: bool, code: int = 7) -> Pod:
    last = {"terminated": {"exitCode": code, "message": message, "finishedAt": at}}
    status: dict[str, Any] = {
        "name": "model",
        "ready": ready,
        "restartCount": 1,
        "state": {"running": {}},
        "lastState": last,
    }
    return Pod.model_validate({"metadata": {"name": name}, "status": {"containerStatuses": [status]}})


def test_the_worker_that_ended_first_is_the_cause() -> None:
    cause = ended(f"{WORKERS}-0", "CUDA out of memory", "2030-01-01T00:00:00Z", ready=True, code=1)
    other = ended(f"{WORKERS}-1", ENDED, "2030-01-01T00:00:05Z", ready=True)
    leader = ended(f"{NAME}-0", ENDED, "2030-01-01T00:00:04Z", ready=False)

    fault = find_fault([leader, other, cause])

    assert fault is not None
    assert fault.message == (
        f"container model of pod {WORKERS}-0 ended and was restarted once, and the pods of its group with it; last "
        "exit code 1: CUDA out of memory"
    )


def test_an_old_end_is_not_the_cause_and_the_leaders_message_is_reported() -> None:
    old = ended(f"{WORKERS}-0", "CUDA out of memory", "2029-12-31T00:00:00Z", ready=True, code=1)
    leader = ended(f"{NAME}-0", ENDED, "2030-01-01T00:00:04Z", ready=False)

    fault = find_fault([old, leader])

    assert fault is not None
    assert ENDED in fault.message
    assert f"pod {NAME}-0" in fault.message


def test_a_leader_that_ended_for_its_own_reason_comes_before_workers_that_followed() -> None:
    leader = ended(f"{NAME}-0", "no such model", "2030-01-01T00:00:04Z", ready=False, code=4)
    worker = ended(f"{WORKERS}-0", ENDED, "2030-01-01T00:00:05Z", ready=False)

    fault = find_fault([worker, leader])

    assert fault is not None
    assert "no such model" in fault.message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("r1", "r1-workers"),
        ("a" * 44, "a" * 44 + "-workers"),
        ("a" * 45, "a" * 35 + "-52789e34-workers"),
    ],
)
def test_the_name_of_the_workers_leaves_room_for_the_revision(phi: Workspace, name: str, expected: str) -> None:
    found = workers_name(phi.with_metadata(name=name))
    assert len(found) <= 52
    assert found.endswith("-workers")
    assert found == expected


@pytest.mark.parametrize(
    ("worker", "nodes", "leader"),
    [("x-workers-0", 2, "-0"), ("x-workers-3", 2, "-3"), ("x-workers-2", 4, "-0"), ("x-workers-3", 4, "-1")],
)
def test_workers_belong_to_the_copies_in_their_order(phi: Workspace, worker: str, nodes: int, leader: str) -> None:
    assert leader_of(phi, worker, nodes) == NAME + leader


OVERRIDE = "kaito.sh/node-count-override"


@pytest.mark.parametrize(
    ("count", "annotations", "target", "nodes_per_copy", "copies"),
    [
        (1, {}, 0, 4, 1),
        (3, {}, 0, 4, 3),
        (3, {OVERRIDE: "4"}, 0, 4, 1),
        (1, {OVERRIDE: "8"}, 0, 4, 2),
        (3, {labels.REVISION: "1"}, 1, 1, 1),  # upstream computed one node
        (2, {labels.REVISION: "1"}, 2, 2, 1),
        (2, {labels.REVISION: "1"}, 0, 2, 2),
    ],
)
def test_the_number_of_copies(
    phi: Workspace, count: int, annotations: dict[str, str], target: int, nodes_per_copy: int, copies: int
) -> None:
    workspace = phi.with_metadata(annotations=annotations).evolve(
        resource=phi.resource.evolve(count=count), status={"targetNodeCount": target}
    )
    assert wanted_copies(workspace, nodes_per_copy) == copies


@pytest.mark.parametrize(
    ("count", "annotations", "message"),
    [
        (1, {OVERRIDE: "3"}, r"kaito.sh/node-count-override\]: is 3, and a copy of the model needs 2 nodes: use a"),
        (65, {}, "resource.count: is 65, and 65 copies on 2 nodes each are more than 128 nodes: use at most 64"),
    ],
)
def test_a_number_of_nodes_that_is_not_possible_is_rejected(
    phi: Workspace, count: int, annotations: dict[str, str], message: str
) -> None:
    workspace: Any = phi.with_metadata(annotations=annotations).evolve(resource=phi.resource.evolve(count=count))
    with pytest.raises(InvalidNodeCount, match=message):
        wanted_copies(workspace, 2)


RENDERED = Path(__file__).with_name("rendered") / "deepseek-r1.yaml"
SAMPLE = Path(__file__).resolve().parents[3] / "config" / "samples" / "workspace-deepseek-r1.yaml"


def test_deepseek_r1_on_four_h100_nodes_is_rendered_as_reviewed() -> None:
    """`RENDERED` was read by a person; a difference is a change of every cluster that runs such a model."""
    document = yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))
    workspace = Workspace.model_validate(document).with_metadata(namespace="default", uid="0")
    settings = WorkspaceSettings()
    planned = inference_plan(
        workspace,
        catalog.get("deepseek-r1-0528"),
        instance_types.get(workspace.resource.instance_type),
        settings,
        choice=WeightsChoice(weights=Weights(method="Download"), inputs="0"),
    )
    assert planned.container is not None
    planned = replace(planned, container=replace(planned.container, image="vllm:0", tools_image="vllm:0"))
    workers = worker_stateful_set(workspace, planned, settings)
    assert workers is not None
    assert (planned.hardware.count, planned.hardware.nodes_per_copy, planned.hardware.copies) == (4, 2, 2)
    objects = (
        network_policy(workspace),
        client_service(workspace, leaders_only=True),
        headless_service(workspace),
        inference_stateful_set(workspace, planned, settings),
        workers,
    )
    rendered = yaml.safe_dump_all([found.to_dict() for found in objects], sort_keys=False, width=120)

    assert rendered == RENDERED.read_text(encoding="utf-8")
