"""Every input is checked before a claim is created."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.errors import Invalid
from kaito.runtime.kinds import ConfigMap, Event, Node, Secret, StatefulSet
from kaito.runtime.testing import builders
from kaito.workspace.preflight import run_checks, validate_workspace
from kaito.workspace.preflight.offline import ManifestReader
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.unit.workspace.input_cases import INPUTS, PUSH, SIZE, V100, Input, adapter, served, template, tuned

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

KINDS: dict[str, Any] = {"Secret": Secret, "ConfigMap": ConfigMap}


@pytest.fixture
def node_api() -> NodeApi:
    return NodeApi.MACHINE


def put(cluster: "Cluster", *objects: dict[str, Any]) -> None:
    for each in objects:
        cluster.world.put(KINDS[each["kind"]].model_validate(each))


def warnings(cluster: "Cluster", reason: str) -> list[Event]:
    return [e for e in cluster.world.list(Event) if e.type == "Warning" and e.reason == reason]


@pytest.mark.parametrize("given", INPUTS, ids=lambda given: given.row)
async def test_an_input_that_cannot_run_gets_no_node(cluster: "Cluster", given: Input) -> None:
    """No claim, the columns False with the cause, one event."""
    put(cluster, *given.objects)
    cluster.apply(Workspace.model_validate(given.manifest()))
    async with cluster.controller():
        await cluster.world.settle()
        await cluster.world.advance(120)
        assert cluster.claims() == []
        for condition in ("ResourceReady", "WorkspaceReady"):
            status, reason, message = cluster.conditions(given.name)[condition]
            assert (status, reason) == ("False", given.reason)
            assert given.words in message
        assert len(warnings(cluster, given.reason)) == 1


@pytest.mark.parametrize("given", INPUTS, ids=lambda given: given.row)
def test_admission_rejects_input_that_the_object_alone_shows_to_be_invalid(given: Input) -> None:
    errors = [
        str(violation)
        for violation in validate_workspace(Workspace.model_validate(given.manifest()), None, WorkspaceSettings())
        if violation.severity == "error"
    ]
    assert bool(errors) is given.at_admission
    if given.at_admission:
        assert given.words in "; ".join(errors)


async def test_a_secret_that_appears_starts_the_workspace(cluster: "Cluster") -> None:
    """Without an edit, within ten seconds."""
    workspace = next(given for given in INPUTS if given.row == "pull secret")
    cluster.apply(Workspace.model_validate(workspace.manifest()))
    async with cluster.controller():
        await cluster.world.settle()
        assert cluster.claims() == []
        put(cluster, PUSH | {"metadata": {"name": "absent", "namespace": "default"}})
        await cluster.world.advance(11)
        assert len(cluster.claims()) == 1


async def test_a_repaired_config_map_starts_the_workspace_at_once(cluster: "Cluster") -> None:
    given = next(given for given in INPUTS if given.row == "unknown key")
    put(cluster, *given.objects)
    cluster.apply(Workspace.model_validate(given.manifest()))
    async with cluster.controller():
        await cluster.world.settle()
        cluster.world.patch(ConfigMap, "c2", {"data": {"inference_config.yaml": "vllm: {}"}})
        await cluster.world.settle()
        assert len(cluster.claims()) == 1


async def test_a_running_workspace_keeps_nodes_and_pods_when_its_file_breaks(cluster: "Cluster") -> None:
    text = served("vllm: {max-model-len: 2048}", "mine")
    put(cluster, *text["objects"])
    given = Input("running", reason="ConfigInvalid", words="", **text)
    cluster.apply(Workspace.model_validate(given.manifest()))
    async with cluster.controller():
        await cluster.world.settle()
        cluster.join(cluster.claim())
        await cluster.world.settle()
        cluster.serve(given.name)
        await cluster.world.settle()
        assert cluster.columns(given.name) == ("True", "True", "True")
        generation = cluster.world.get(StatefulSet, given.name).metadata.generation

        cluster.world.patch(ConfigMap, "mine", {"data": {"inference_config.yaml": "vllm: {max-model-len: x}"}})
        await cluster.world.advance(60)
        assert cluster.columns(given.name) == ("False", "True", "False")
        assert "vllm.max-model-len: must be a number of tokens" in cluster.conditions(given.name)["ResourceReady"][2]
        assert len(cluster.claims()) == 1
        assert cluster.world.get(StatefulSet, given.name).metadata.generation == generation


async def test_the_dry_run_is_sent_once_for_each_content(cluster: "Cluster") -> None:
    given = Input("good", template(), "", "")
    cluster.apply(Workspace.model_validate(given.manifest()))
    async with cluster.controller():
        await cluster.world.settle()
        await cluster.world.advance(300)
        assert cluster.world.count("create", StatefulSet) == 1
        assert cluster.world.find(StatefulSet, given.name) is None


async def test_values_of_the_file_reach_sizing_and_command(cluster: "Cluster") -> None:
    """Sizing sees the user's values, the command has the same."""
    text = served("vllm: {max-model-len: 4096, gpu-memory-utilization: 0.5}", "mine")
    examined = await run_checks(
        Workspace.model_validate(Input("sized", reason="", words="", **text).manifest()),
        WorkspaceSettings(),
        ManifestReader(config_maps={"mine": ConfigMap.model_validate(text["objects"][0])}),
    )
    assert examined.errors == []
    assert examined.plan is not None
    assert examined.plan.container is not None
    assert {"--max-model-len=4096", "--gpu-memory-utilization=0.5"} <= set(examined.plan.container.command)


async def test_offline_an_object_that_was_not_given_does_not_hide_one_that_was() -> None:
    source = {"image": "registry.example.com/a:1", "imagePullSecrets": ["not-given", "opaque"]}
    workspace = Workspace.model_validate(Input("two", adapter(**source), "", "").manifest())
    opaque = Secret.model_validate({"metadata": {"name": "opaque"}, "data": {"k": "eA=="}})
    examined = await run_checks(workspace, WorkspaceSettings(), ManifestReader(secrets={"opaque": opaque}))
    assert [(finding.reason, finding.field) for finding in examined.errors] == [
        ("SecretInvalid", "inference.adapters[0].source.imagePullSecrets[1]")
    ]


async def test_offline_the_checks_that_need_a_cluster_are_left_out() -> None:
    given = next(given for given in INPUTS if given.row == "pull secret")
    examined = await run_checks(Workspace.model_validate(given.manifest()), WorkspaceSettings(), ManifestReader())
    assert examined.errors == []
    assert examined.plan is not None


@pytest.mark.parametrize(
    ("key", "value", "severity", "words"),
    [
        ("kaito.sh/enable-lb", "true", "warning", "did you mean kaito.sh/enablelb?"),
        ("kaito.sh/runtim", "vllm", "warning", "did you mean kaito.sh/runtime?"),
        ("kaito.sh/something-else", "x", "warning", "has no effect"),
        (labels.PERFORMANCE_MODE, "fast", "error", "use balanced or interactivity or throughput"),
        (labels.USE_LOCAL_WEIGHTS, "yes", "error", "use true or false"),
        (labels.USE_LOCAL_WEIGHTS, "true", "error", "are not supported"),
        (labels.DISABLE_BENCHMARK, "maybe", "error", "use true or false"),
        (labels.MODEL_STREAMING, "enabled", "error", "use disabled"),
        (labels.NODE_CLASS_NAME, "foreign", "error", "use default"),
        (labels.NODE_COUNT_OVERRIDE, "129", "error", "whole number from 1 to 128"),
        (labels.NODE_COUNT_OVERRIDE, "9" * 5000, "error", "whole number from 1 to 128"),
        (labels.NODE_COUNT_OVERRIDE, "٣", "error", "whole number from 1 to 128"),
        (labels.NODE_COUNT_OVERRIDE, "1.5", "error", "whole number from 1 to 128"),
        ("inference.kaito.sh/static-model-mirror", "true", "error", "does not support model mirrors"),
    ],
)
def test_an_annotation_is_honored_rejected_or_warned_about(
    phi: Workspace, key: str, value: str, severity: str, words: str
) -> None:
    annotated = phi.evolve(metadata=phi.metadata.evolve(annotations={key: value}))
    (found,) = validate_workspace(annotated, None, WorkspaceSettings())
    assert found.severity == severity
    assert words in found.message


@pytest.mark.parametrize(
    "annotations",
    [
        {labels.DISABLE_BENCHMARK: "True"},
        {labels.MODEL_STREAMING: "disabled"},
        {labels.NODE_CLASS_NAME: "default"},
        {labels.USE_LOCAL_WEIGHTS: "false"},
        {labels.NODE_COUNT_OVERRIDE: "128"},
        {"example.com/anything": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    ],
)
def test_annotations_that_need_nothing_are_silent(phi: Workspace, annotations: dict[str, str]) -> None:
    annotated = phi.evolve(metadata=phi.metadata.evolve(annotations=annotations))
    assert validate_workspace(annotated, None, WorkspaceSettings()) == []


@pytest.mark.parametrize(
    ("url", "by_default", "with_switch"),
    [
        ("https://example.com/d", True, True),
        ("HTTPS://Example.com/x", True, True),
        ("http://minio:9000/d", False, True),
        ("http://minio.data.svc.cluster.local/d", False, True),
        ("http://10.0.0.7/d", False, True),
        ("http://169.254.169.254/d", False, False),
        ("http://127.0.0.1/d", False, False),
        ("http://localhost/d", False, False),
        ("http://[::1]/d", False, False),
        ("http://[::ffff:169.254.169.254]/d", False, False),
        ("http://2130706433/d", False, False),
        ("ftp://example.com/d", False, False),
    ],
)
def test_data_urls_in_the_cluster_need_the_operators_switch(url: str, *, by_default: bool, with_switch: bool) -> None:
    workspace = Workspace.model_validate(Input("url", tuned(input={"urls": [url]}), "", "").manifest())
    assert (validate_workspace(workspace, None, WorkspaceSettings()) == []) is by_default
    assert (
        validate_workspace(workspace, None, WorkspaceSettings(allow_in_cluster_data_urls=True)) == []
    ) is with_switch


@pytest.mark.parametrize(
    ("image", "valid"),
    [
        ("busybox", True),
        ("registry.example.com:5000/team/model_a/b-c:v1.0", True),
        ("localhost:5000/a", True),
        ("localhost/a:1", True),
        ("a@sha256:" + "0" * 64, True),
        ("a:1@sha256:" + "0" * 64, True),
        ("Registry.example.com/a", True),
        ("[::1]:5000/a:1", True),
        ("registry.example.com/Model:1", False),
        ("Model", False),
        ("a:", False),
        ("a:-x", False),
        ("a:" + "t" * 129, False),
        ("a@sha256:12", False),
        ("a@md5:" + "0" * 64, False),
        ("a//b", False),
        ("/a", False),
        ("a/", False),
        ("http://registry.example.com/a", False),
        ("registry.example.com:99999/a", False),
        ("a b", False),
        (" a", False),
        ("a__b", True),
        ("a___b", False),
        ("a..b", False),
        ("x" * 256, False),
    ],
)
def test_image_references_follow_the_oci_grammar(image: str, *, valid: bool) -> None:
    workspace = Workspace.model_validate(Input("image", adapter(image=image), "", "").manifest())
    assert (validate_workspace(workspace, None, WorkspaceSettings()) == []) is valid


async def test_own_nodes_of_several_products_are_rejected_by_name(cluster: "Cluster", phi: Workspace) -> None:
    document = phi.to_dict()
    document["resource"].pop("instanceType")
    for name, product in (("node-a", "NVIDIA-A100-SXM4-80GB"), ("node-v", "Tesla-V100-SXM2-16GB")):
        shown = {"apps": "phi-3", labels.GPU_PRODUCT: product, labels.GPU_COUNT: "1", labels.GPU_MEMORY: "16384"}
        cluster.world.put(builders.node(name, labels=shown, capacity={labels.NVIDIA_GPU: "1"}, ready=True))
    cluster.apply(Workspace.model_validate(document))
    async with cluster.controller(WorkspaceSettings(node_api=NodeApi.BYO)):
        await cluster.world.settle()
        status, _, message = cluster.conditions()["ResourceReady"]
        assert status == "False"
        assert {"node-a", "node-v"} <= set(message.replace(":", " ").replace(";", " ").split())
        assert cluster.world.find(StatefulSet, phi.name) is None

        cluster.world.patch(Node, "node-v", {"metadata": {"labels": {"apps": "other"}}})
        await cluster.world.settle()
        assert cluster.world.find(StatefulSet, phi.name) is not None


@pytest.mark.parametrize(
    ("text", "size", "words"),
    [
        ("transformers: {max_batch_size: 4}", SIZE, "runs on vllm here"),
        ("kv_cache_cpu_memory_utilization: 0.5", V100, "it is a setting of vllm"),
        ("vllm: {max-num-seqs: 4}", V100, "runs on transformers here"),
        ("kv_cache_cpu_memory_utilization: 0.5", SIZE, ""),
    ],
)
async def test_settings_that_have_no_effect_are_reported(text: str, size: str, words: str) -> None:
    """Nothing is accepted and ignored."""
    served_with = served(text, "mine", "phi-3-mini-4k-instruct")
    workspace = Workspace.model_validate(Input("served", reason="", words="", size=size, **served_with).manifest())
    files = ManifestReader(config_maps={"mine": ConfigMap.model_validate(served_with["objects"][0])})
    examined = await run_checks(workspace, WorkspaceSettings(), files)
    assert examined.errors == []
    assert examined.plan is not None
    warnings = "; ".join([*map(str, examined.warnings), *examined.plan.warnings])
    assert words in warnings
    assert bool(warnings) is bool(words)


async def test_an_update_may_write_the_method_in_another_case(cluster: "Cluster") -> None:
    """The CRD's rule compares methods, not letters."""
    given = Input("case", tuned(method="lora"), "", "")
    cluster.apply(Workspace.model_validate(given.manifest()))
    for method in ("LoRA", "LORA", "lora"):
        assert cluster.world.patch(Workspace, given.name, {"tuning": {"method": method}}).tuning is not None
    with pytest.raises(Invalid, match="cannot be changed"):
        cluster.world.patch(Workspace, given.name, {"tuning": {"method": "QLoRA"}})


async def test_the_scheme_of_a_url_may_be_in_any_case(cluster: "Cluster") -> None:
    given = Input("scheme", tuned(input={"urls": ["HTTPS://Example.com/x"]}), "", "")
    cluster.apply(Workspace.model_validate(given.manifest()))
    wrong = Input("scheme-2", tuned(input={"urls": ["ftp://example.com/x"]}), "", "")
    with pytest.raises(Invalid, match="absolute http or https"):
        cluster.apply(Workspace.model_validate(wrong.manifest()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("input", {"image": "registry.example.com/Data:1"}),
        ("input", {"image": "!ValidImage"}),
        ("output", {"image": "registry.example.com/Out:1", "imagePushSecret": "push"}),
        ("output", {"image": "!ValidImage", "imagePushSecret": "push"}),
    ],
)
def test_an_update_to_an_impossible_image_is_rejected(path: str, value: dict[str, Any]) -> None:
    old = Workspace.model_validate(Input("update", tuned(), "", "").manifest())
    new = Workspace.model_validate(Input("update", tuned(**{path: value}), "", "").manifest())
    assert f"tuning.{path}.image" in [
        violation.field for violation in validate_workspace(new, old, WorkspaceSettings())
    ]
    assert validate_workspace(new, new, WorkspaceSettings()) == []


@pytest.mark.parametrize(
    ("text", "bounded"),
    [
        ("", True),
        ("kv_cache_cpu_memory_utilization: 0", True),
        ("kv_cache_cpu_memory_utilization: 0.5", False),
        ("vllm: {kv-offloading-size: 8}", False),
    ],
)
async def test_shared_memory_has_no_limit_of_its_own_if_vllm_keeps_a_cache_there(text: str, *, bounded: bool) -> None:
    served_with = served(text, "mine", "phi-3-mini-4k-instruct")
    workspace = Workspace.model_validate(Input("served", reason="", words="", size=SIZE, **served_with).manifest())
    files = ManifestReader(config_maps={"mine": ConfigMap.model_validate(served_with["objects"][0])})
    ctx = await run_checks(workspace, WorkspaceSettings(), files)
    assert isinstance(ctx.workload, StatefulSet)
    volume = ctx.workload.spec.template.spec.volumes[0]
    assert volume.empty_dir is not None
    assert (volume.empty_dir.size_limit is not None) is bounded
