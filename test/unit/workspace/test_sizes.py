"""From a Workspace to nodes, command and pod: names of sizes, sizes without a GPU, and what annotations add."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.models import catalog, instance_types
from kaito.models.copies import wanted_copies
from kaito.models.errors import RuntimeUnsupported
from kaito.models.weights import IN_IMAGE
from kaito.runtime.kinds import StatefulSet
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.plan import Plan
from kaito.workspace.planning import inference_plan, template_plan
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.weights import WeightsChoice

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

A100X4 = "Standard_NC96ads_A100_v4"
TEMPLATE = {"template": {"spec": {"containers": [{"name": "model", "image": "registry.example/llama-cpp:1"}]}}}


def on(workspace: Workspace, size: str, **parts: Any) -> Workspace:
    return workspace.evolve(resource=workspace.resource.evolve(instance_type=size), **parts)


def planned(workspace: Workspace, preset: str = "phi-4", **annotations: str) -> Plan:
    annotated = workspace.with_metadata(annotations=annotations)
    settings = WorkspaceSettings()
    size = instance_types.get(workspace.resource.instance_type)
    choice = WeightsChoice(weights=IN_IMAGE)
    return inference_plan(annotated, catalog.get(preset), size, settings, choice=choice)


def command(plan: Plan) -> tuple[str, ...]:
    assert plan.container is not None
    return plan.container.command


@pytest.mark.parametrize(
    ("given", "requested"),
    [
        ("Standard_ND96asr_v4", "Standard_ND96asr_v4"),
        ("Standard_ND96asr_A100_v4", "Standard_ND96asr_v4"),
        ("standard_nd96ASR_a100_V4", "Standard_ND96asr_v4"),
        ("standard_nc24ads_a100_v4", "Standard_NC24ads_A100_v4"),
    ],
)
def test_claims_request_azures_name_of_an_instance_type(phi: Workspace, given: str, requested: str) -> None:
    assert planned(on(phi, given)).hardware.instance_type == requested
    template = template_plan(on(phi, given, inference=TEMPLATE), instance_types.get(given), WorkspaceSettings())
    assert template.hardware.instance_type == requested


async def test_a_pod_template_is_served_on_a_size_without_gpu(cluster: "Cluster", phi: Workspace) -> None:
    """The node counts without a GPU, the claim and the pod ask for none."""
    cluster.apply(on(phi, "Standard_D4s_v3", inference=TEMPLATE))
    async with cluster.controller():
        await cluster.world.settle()
        claim = cluster.claim()
        assert claim.instance_type == "Standard_D4s_v3"
        assert labels.NVIDIA_GPU not in str(claim.to_dict()["spec"])
        cluster.join(claim, gpus="0")
        await cluster.world.advance(1)  # the status of the nodes follows the workload within a second
        assert cluster.columns()[0] == "True"
        pod = cluster.world.get(StatefulSet, phi.name).to_dict()["spec"]["template"]["spec"]
        assert labels.NVIDIA_GPU not in str(pod["containers"])
        assert {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"} in pod["tolerations"]
        cluster.serve()
        await cluster.world.settle()
        assert cluster.columns() == ("True", "True", "True")


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        ("throughput", ["--performance-mode=throughput"]),
        ("interactivity", ["--performance-mode=interactivity"]),
        (" Throughput ", ["--performance-mode=throughput"]),
        ("balanced", []),
        ("", []),
    ],
)
def test_the_performance_mode_reaches_vllm(phi: Workspace, value: str, flags: list[str]) -> None:
    plan = planned(on(phi, A100X4), **{labels.PERFORMANCE_MODE: value})

    assert [word for word in command(plan) if "performance" in word] == flags


def test_the_performance_mode_is_rejected_where_it_has_no_effect(phi: Workspace) -> None:
    """Nothing is accepted and ignored; the transformers server has no such modes."""
    with pytest.raises(RuntimeUnsupported, match="is throughput, which only vllm supports"):
        planned(phi, "phi-3-mini-4k-instruct", **{labels.PERFORMANCE_MODE: "throughput"})
    balanced = planned(phi, "phi-3-mini-4k-instruct", **{labels.PERFORMANCE_MODE: "balanced"})
    assert not any("performance" in word for word in command(balanced))


def test_on_several_gpus_the_fused_all_reduce_is_off(phi: Workspace) -> None:
    """It compiles a kernel at start, and the images have no compiler."""
    flag = "--compilation-config.pass_config.fuse_allreduce_rms=False"

    assert flag in command(planned(on(phi, A100X4)))
    assert flag not in command(planned(on(phi, "Standard_NC24ads_A100_v4")))


@pytest.mark.parametrize("access", ["public", "private"])
def test_pull_secrets_reach_the_pod_for_either_access_mode(phi: Workspace, access: str) -> None:
    """Public images may come from a private mirror."""
    options = {"image": "registry.example/model:1" if access == "private" else "", "imagePullSecrets": ["mirror"]}
    preset = {"name": "phi-3-mini-4k-instruct", "accessMode": access, "presetOptions": options}
    workspace = phi.evolve(inference={"preset": preset})
    settings = WorkspaceSettings(node_api=NodeApi.MACHINE)
    pod = inference_stateful_set(workspace, planned(workspace, "phi-3-mini-4k-instruct"), settings).to_dict()

    assert pod["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "mirror"}]


@pytest.mark.parametrize(
    ("annotation", "nodes"), [("3", 3), (" 3 ", 3), ("0", 1), ("²", 1), ("9" * 5000, 1), ("-2", 1), ("many", 1)]
)
def test_the_override_of_the_node_count_is_a_plain_number(phi: Workspace, annotation: str, nodes: int) -> None:
    assert wanted_copies(phi.with_metadata(annotations={labels.NODE_COUNT_OVERRIDE: annotation})) == nodes
