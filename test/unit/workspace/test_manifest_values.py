"""Manifests of workloads, whole: probes, volumes, tolerations, data and results of tuning, defaults of the methods."""

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from kaito.api import Workspace
from kaito.models.weights import Weights
from kaito.runtime.kinds import Taint, Toleration
from kaito.runtime.meta import Quantity
from kaito.workspace.manifests.adapters import part_name
from kaito.workspace.manifests.claim import image_family, node_claim
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.manifests.placement import affinity, tolerates, tolerations
from kaito.workspace.manifests.preset_pod import container_resources, pull_secret_names
from kaito.workspace.manifests.tuning import training_config, tuning_job
from kaito.workspace.plan import Hardware, ModelContainer, Plan
from kaito.workspace.settings import NodeApi, WorkspaceSettings

NAME = "workspace-phi-3-mini"
LABELS = {"kaito.sh/workspace": NAME}
SETTINGS = WorkspaceSettings()
SHARED_MEMORY = {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}
TEMPORARY: dict[str, Any] = {"name": "tmp", "emptyDir": {}}
TEMPORARY_MOUNT = {"name": "tmp", "mountPath": "/tmp"}
HOME = {"name": "HOME", "value": "/tmp"}
UNPRIVILEGED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
EVERY_POD = {"securityContext": POD_SECURITY, "automountServiceAccountToken": False, "enableServiceLinks": False}
TOLERATIONS = [
    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
    {"key": "kubernetes.azure.com/scalesetpriority", "operator": "Equal", "value": "spot", "effect": "NoSchedule"},
]
TERM = [
    {"key": "apps", "operator": "In", "values": ["phi-3"]},
    {"key": "kaito.sh/workspace", "operator": "In", "values": [NAME]},
    {"key": "kaito.sh/workspacenamespace", "operator": "In", "values": ["default"]},
]
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
AFFINITY = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": TERM}]}}}


def probe(period: int, failures: int, timeout: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": "/health", "port": 5000},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": timeout,
    }


def serving(workspace: Workspace, plan: Plan, settings: WorkspaceSettings = SETTINGS) -> dict[str, Any]:
    found: dict[str, Any] = inference_stateful_set(workspace, plan, settings).to_dict()
    return found


def test_the_stateful_set_of_a_preset_has_these_fields_and_no_others(phi: Workspace, plan: Plan) -> None:
    found = serving(phi, plan)
    digest = found["metadata"]["annotations"].pop("kaito.sh/template-hash")
    assert digest
    assert found == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": NAME, "namespace": "default", "labels": LABELS, "annotations": {}},
        "spec": {
            "replicas": 1,
            "serviceName": f"{NAME}-headless",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": LABELS},
            "template": {
                "metadata": {"labels": LABELS, "annotations": {}},
                "spec": {
                    "containers": [
                        {
                            "name": NAME,
                            "image": "registry.example/kaito-phi-3-mini-4k-instruct:0.0.2",
                            "command": ["/bin/sh", "-c", "serve"],
                            "ports": [{"name": "http", "containerPort": 5000, "protocol": "TCP"}],
                            "env": [HOME],
                            "resources": {
                                "requests": {"cpu": "1", "memory": "4Gi", "nvidia.com/gpu": "1"},
                                "limits": {"nvidia.com/gpu": "1"},
                            },
                            "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}, TEMPORARY_MOUNT],
                            "securityContext": UNPRIVILEGED,
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "startupProbe": probe(5, 360, 3),
                            "readinessProbe": probe(5, 3, 5),
                            "livenessProbe": probe(10, 3, 10),
                            "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
                        }
                    ],
                    "volumes": [SHARED_MEMORY, TEMPORARY],
                    "affinity": AFFINITY,
                    "tolerations": TOLERATIONS,
                    "terminationGracePeriodSeconds": 40,
                    **EVERY_POD,
                },
            },
        },
    }


def container(workspace: Workspace, plan: Plan, **changes: Any) -> dict[str, Any]:
    assert plan.container is not None
    planned = replace(plan, container=replace(plan.container, **changes))
    found: dict[str, Any] = serving(workspace, planned)["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(("seconds", "failures"), [(1800, 360), (1801, 361), (4, 1), (5, 1), (6, 2)])
def test_loading_has_the_time_of_the_model_rounded_up(
    phi: Workspace, plan: Plan, seconds: float, failures: int
) -> None:
    assert container(phi, plan, readiness_seconds=seconds)["startupProbe"] == probe(5, failures, 3)


def test_environment_is_sorted_and_ends_with_the_token(phi: Workspace, plan: Plan) -> None:
    found = container(phi, plan, env={"B": "2", "A": "1"}, access_secret="hf")
    reference = {"name": "hf", "key": "HF_TOKEN", "optional": True}
    assert found["env"] == [
        HOME,
        {"name": "A", "value": "1"},
        {"name": "B", "value": "2"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}},
    ]


def test_weights_and_configuration_are_volumes(phi: Workspace, plan: Plan, model_container: ModelContainer) -> None:
    loaded = replace(
        plan,
        container=replace(model_container, weights=Weights(method="Download")),
        config_map="mine",
        config_hash="aaaa",
    )
    template = serving(phi, loaded)["spec"]["template"]
    assert template["metadata"]["annotations"] == {"kaito.sh/config-hash": "aaaa"}
    assert template["spec"]["volumes"] == [
        SHARED_MEMORY,
        TEMPORARY,
        {"name": "config-volume", "configMap": {"name": "mine"}},
        {"name": "weights", "emptyDir": {}},
    ]
    assert template["spec"]["containers"][0]["volumeMounts"] == [
        {"name": "dshm", "mountPath": "/dev/shm"},
        {"name": "config-volume", "mountPath": "/mnt/config", "readOnly": True},
        {"name": "weights", "mountPath": "/workspace/weights"},
        TEMPORARY_MOUNT,
    ]
    assert {"name": "HF_HUB_CACHE", "value": "/workspace/weights"} in template["spec"]["containers"][0]["env"]


def test_image_and_volume_adapters_word_for_word(phi: Workspace, plan: Plan) -> None:
    assert phi.inference is not None
    adapters = [
        {"source": {"name": "zeta", "image": "r.example/zeta:1", "imagePullSecrets": ["a", "b"]}, "strength": "0.5"},
        {"source": {"name": "alpha", "volumeSource": {"persistentVolumeClaim": {"claimName": "pvc"}}}},
    ]
    adapted = phi.evolve(inference=phi.inference.to_dict() | {"adapters": adapters})
    spec = serving(adapted, plan)["spec"]["template"]["spec"]
    directory = "/mnt/registry/docker-config-zeta"
    assert spec["initContainers"] == [
        {
            "name": "puller-zeta",
            "image": "registry.example/kaito-base:0.5.0",
            "command": [
                "python3",
                "/workspace/oci/pull_adapter.py",
                "r.example/zeta:1",
                "/mnt/adapter/zeta",
                "--docker-config",
                f"{directory}/a.json",
                "--docker-config",
                f"{directory}/b.json",
            ],
            "volumeMounts": [
                {"name": "adapter-volume", "mountPath": "/mnt/adapter"},
                {"name": "docker-config-zeta", "mountPath": directory, "readOnly": True},
                TEMPORARY_MOUNT,
            ],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "env": [HOME],
            "securityContext": UNPRIVILEGED,
        }
    ]
    sources = [
        {"secret": {"name": name, "items": [{"key": ".dockerconfigjson", "path": f"{name}.json"}]}} for name in "ab"
    ]
    assert spec["volumes"] == [
        SHARED_MEMORY,
        TEMPORARY,
        {"name": "adapter-volume", "emptyDir": {}},
        {"persistentVolumeClaim": {"claimName": "pvc"}, "name": "adapter-volume-alpha"},
        {"name": "docker-config-zeta", "projected": {"sources": sources}},
    ]
    assert spec["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    assert spec["containers"][0]["env"] == [
        HOME,
        {"name": "KAITO_ADAPTER_STRENGTHS", "value": '{"alpha": "1.0", "zeta": "0.5"}'},
    ]
    assert spec["containers"][0]["volumeMounts"][1:] == [
        {"name": "adapter-volume", "mountPath": "/mnt/adapter"},
        {"name": "adapter-volume-alpha", "mountPath": "/mnt/adapter/alpha", "readOnly": True},
        TEMPORARY_MOUNT,
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mine", "puller-mine"),
        ("Mine", "puller-mine"),
        ("a.b", "puller-c0a6ee0c77"),
        ("x" * 56, f"puller-{'x' * 56}"),
        ("x" * 57, "puller-4281e9f5ba"),
        ("a-", "puller-"),
    ],
)
def test_names_of_parts_are_labels_of_up_to_63_characters(name: str, expected: str) -> None:
    found = part_name("puller", name)
    assert len(found) <= 63
    if expected.startswith(f"puller-{name.lower()[:4]}"):
        assert found == expected
    else:
        assert found.startswith("puller-")
        assert len(found) == len("puller-") + 10


def test_pull_secrets_are_listed_once_in_their_order() -> None:
    assert pull_secret_names(("b", "a"), ["a", "c"]) == [{"name": "b"}, {"name": "a"}, {"name": "c"}]


@pytest.mark.parametrize(
    ("gpus", "resource", "limits"), [(0, "nvidia.com/gpu", {}), (2, "amd.com/gpu", {"amd.com/gpu": "2"})]
)
def test_a_container_gets_all_gpus_of_a_node(gpus: int, resource: str, limits: dict[str, str]) -> None:
    hardware = Hardware(copies=1, instance_type="x", gpus=gpus, gpu_resource=resource, disk=Quantity(0))
    settings = WorkspaceSettings(default_inference_cpu="2", default_inference_memory="8Gi")
    assert container_resources(hardware, settings) == {
        "requests": {"cpu": "2", "memory": "8Gi", **limits},
        "limits": limits,
    }


@pytest.mark.parametrize(
    ("toleration", "taint", "expected"),
    [
        ({"key": "a", "operator": "Exists"}, {"key": "a", "effect": "NoSchedule"}, True),
        ({"key": "a", "operator": "Exists"}, {"key": "b", "effect": "NoSchedule"}, False),
        ({"operator": "Exists"}, {"key": "b", "effect": "NoExecute"}, True),
        ({"key": "a", "operator": "Exists", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}, False),
        ({"key": "a", "operator": "Equal", "value": "x"}, {"key": "a", "value": "x", "effect": "NoSchedule"}, True),
        ({"key": "a", "operator": "Equal", "value": "x"}, {"key": "a", "value": "y", "effect": "NoSchedule"}, False),
        ({"key": "a", "operator": "Equal"}, {"key": "a", "effect": "NoSchedule"}, True),
        ({"key": "a", "value": "x"}, {"key": "a", "effect": "NoSchedule"}, False),
    ],
)
def test_a_taint_is_tolerated_by_the_rule_of_the_scheduler(
    toleration: dict[str, str], taint: dict[str, str], *, expected: bool
) -> None:
    assert tolerates([Toleration.model_validate(toleration)], Taint.model_validate(taint)) is expected
    assert not tolerates([], Taint.model_validate(taint))


def test_tolerations_of_a_template_come_first_and_once(phi: Workspace) -> None:
    mine = {"key": "mine", "operator": "Exists"}
    assert tolerations(phi) == TOLERATIONS
    assert tolerations(phi, [mine, TOLERATIONS[1]]) == [mine, TOLERATIONS[1], TOLERATIONS[0], TOLERATIONS[2]]


def test_the_affinity_of_a_template_is_kept_and_every_term_gets_the_nodes(phi: Workspace) -> None:
    preferred: list[dict[str, Any]] = [{"weight": 1, "preference": {}}]
    given: dict[str, Any] = {
        "podAntiAffinity": {"x": 1},
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
            REQUIRED: {"nodeSelectorTerms": [{"matchFields": [1]}, {"matchExpressions": [2]}]},
        },
    }
    assert affinity(phi, NodeApi.MACHINE) == AFFINITY
    assert affinity(phi, NodeApi.MACHINE, given=given) == {
        "podAntiAffinity": {"x": 1},
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
            REQUIRED: {
                "nodeSelectorTerms": [
                    {"matchFields": [1], "matchExpressions": TERM},
                    {"matchExpressions": [2, *TERM]},
                ]
            },
        },
    }


@pytest.mark.parametrize(
    ("annotation", "default", "expected", "on_machine"),
    [
        (None, "ubuntu", "ubuntu", False),
        (None, "azurelinux", "azurelinux", True),
        ("", "azurelinux", "azurelinux", True),
        (" AzureLinux ", "ubuntu", "azurelinux", True),
        ("Ubuntu", "azurelinux", "ubuntu", False),
    ],
)
def test_the_image_family_is_the_annotation_or_the_default(
    phi: Workspace, hardware: Hardware, annotation: str | None, default: Any, expected: str, *, on_machine: bool
) -> None:
    annotations = {} if annotation is None else {"kaito.sh/node-image-family": annotation}
    workspace = phi.with_metadata(annotations=annotations)
    settings = WorkspaceSettings(default_node_image_family=default)
    assert image_family(workspace, settings) == expected
    machine = node_claim(workspace, hardware, settings, index=0, serial=0)
    assert machine.annotations.get("kaito.sh/node-image-family") == (expected if on_machine else None)


@pytest.mark.parametrize(
    ("cloud", "group", "sku", "storage"),
    [("azure", "kaito.sh", True, True), ("arc", "kaito.sh", False, True), ("aws", "karpenter.k8s.aws", False, False)],
)
def test_each_cloud_has_its_node_class(
    phi: Workspace, hardware: Hardware, cloud: Any, group: str, *, sku: bool, storage: bool
) -> None:
    settings = WorkspaceSettings(node_api=NodeApi.NODECLAIM, cloud=cloud)
    spec = node_claim(phi, hardware, settings, index=0, serial=0).to_dict()["spec"]
    assert (spec["nodeClassRef"]["group"], spec["nodeClassRef"]["name"]) == (group, "default")
    keys = [requirement["key"] for requirement in spec["requirements"]]
    assert ("karpenter.azure.com/sku-name" in keys) is sku
    assert ("karpenter.k8s.aws/instance-gpu-count" in keys) is False, "the type is not one of Amazon's with a GPU"
    assert ("storage" in str(spec.get("resources", {}))) is storage


def tuning_workspace(phi: Workspace, **part: Any) -> Workspace:
    tuning = {
        "preset": {"name": "phi-3-mini-128k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://data.example/a", "https://data.example/b"]},
        "output": {"image": "r.example/out:1", "imagePushSecret": "push"},
        **part,
    }
    return Workspace.model_validate(phi.to_dict() | {"inference": None, "tuning": tuning})


def test_the_job_of_a_tuning_workspace_has_these_fields_and_no_others(phi: Workspace, plan: Plan) -> None:
    found = tuning_job(tuning_workspace(phi), plan, SETTINGS).to_dict()
    assert found["metadata"]["annotations"].pop("kaito.sh/template-hash")
    assert found["metadata"]["annotations"].pop("kaito.sh/inputs-hash")
    assert found == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": NAME, "namespace": "default", "labels": LABELS, "annotations": {}},
        "spec": {
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {
                "metadata": {"labels": LABELS, "annotations": {}},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": NAME,
                            "image": "registry.example/kaito-phi-3-mini-4k-instruct:0.0.2",
                            "command": ["/bin/sh", "-c", "serve"],
                            "ports": [{"name": "metrics", "containerPort": 5000, "protocol": "TCP"}],
                            "env": [
                                HOME,
                                {"name": "DATA_URLS", "value": '["https://data.example/a", "https://data.example/b"]'},
                            ],
                            "resources": {
                                "requests": {"cpu": "1", "memory": "4Gi", "nvidia.com/gpu": "1"},
                                "limits": {"nvidia.com/gpu": "1"},
                            },
                            "volumeMounts": [
                                {"name": "dshm", "mountPath": "/dev/shm"},
                                {"name": "data-volume", "mountPath": "/mnt/data"},
                                {"name": "results-volume", "mountPath": "/mnt/results"},
                                {"name": "docker-config", "mountPath": "/mnt/registry/push", "readOnly": True},
                                TEMPORARY_MOUNT,
                            ],
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "securityContext": UNPRIVILEGED,
                        }
                    ],
                    "volumes": [
                        SHARED_MEMORY,
                        TEMPORARY,
                        {"emptyDir": {}, "name": "data-volume"},
                        {"emptyDir": {}, "name": "results-volume"},
                        {
                            "name": "docker-config",
                            "secret": {
                                "secretName": "push",
                                "items": [{"key": ".dockerconfigjson", "path": "config.json"}],
                            },
                        },
                    ],
                    "affinity": AFFINITY,
                    "tolerations": TOLERATIONS,
                    **EVERY_POD,
                },
            },
        },
    }


def pod_spec(workspace: Workspace, plan: Plan, settings: WorkspaceSettings = SETTINGS) -> dict[str, Any]:
    spec: dict[str, Any] = tuning_job(workspace, plan, settings).to_dict()["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize(("name", "puller"), [("", "puller-data"), ("set", "puller-set")])
def test_data_of_an_image_is_unpacked_into_the_volume(phi: Workspace, plan: Plan, name: str, puller: str) -> None:
    source = {"image": "r.example/data:1", "imagePullSecrets": ["pull"]} | ({"name": name} if name else {})
    output = {"volumeSource": {"persistentVolumeClaim": {"claimName": "out"}}}
    spec = pod_spec(tuning_workspace(phi, input=source, output=output), plan)
    (init,) = spec["initContainers"]
    assert init["name"] == puller
    assert init["command"][2:4] == ["r.example/data:1", "/mnt/data"]
    assert init["volumeMounts"][0] == {"name": "data-volume", "mountPath": "/mnt/data"}
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["containers"][0]["env"] == [HOME]
    assert {"persistentVolumeClaim": {"claimName": "out"}, "name": "results-volume"} in spec["volumes"]
    assert "docker-config" not in [volume["name"] for volume in spec["volumes"]]


def test_a_volume_with_data_is_mounted(phi: Workspace, plan: Plan) -> None:
    source = {"volumeSource": {"persistentVolumeClaim": {"claimName": "data"}}}
    spec = pod_spec(tuning_workspace(phi, input=source), plan)
    assert {"persistentVolumeClaim": {"claimName": "data"}, "name": "data-volume"} in spec["volumes"]
    assert "initContainers" not in spec


@pytest.mark.parametrize("allowed", [True, False])
def test_addresses_in_the_cluster_are_a_setting(phi: Workspace, plan: Plan, *, allowed: bool) -> None:
    settings = WorkspaceSettings(allow_in_cluster_data_urls=allowed)
    names = {
        variable["name"]: variable["value"]
        for variable in pod_spec(tuning_workspace(phi), plan, settings)["containers"][0]["env"]
    }
    assert names.get("KAITO_ALLOW_IN_CLUSTER_DATA_URLS") == ("true" if allowed else None)
    assert json.loads(names["DATA_URLS"]) == ["https://data.example/a", "https://data.example/b"]


FOUR_BITS = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_use_double_quant": True,
}


@pytest.mark.parametrize(
    ("method", "downloads", "quantization"),
    [("lora", False, {"load_in_4bit": False}), ("qlora", True, FOUR_BITS), ("QLoRA", False, FOUR_BITS)],
)
def test_the_defaults_of_a_method_are_upstreams(
    phi: Workspace, method: str, quantization: dict[str, Any], *, downloads: bool
) -> None:
    workspace = tuning_workspace(phi)
    assert workspace.tuning is not None
    found = training_config(workspace, workspace.tuning.evolve(method=method), downloads=downloads)
    assert (found.name, found.namespace, found.labels) == (f"{NAME}-training", "default", LABELS)
    assert list(found.data) == ["training_config.yaml"]
    assert yaml.safe_load(found.data["training_config.yaml"]) == {
        "training_config": {
            "ModelConfig": {"torch_dtype": "bfloat16", "local_files_only": not downloads, "device_map": "auto"},
            "QuantizationConfig": quantization,
            "LoraConfig": {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0},
            "TrainingArguments": {
                "output_dir": "/mnt/results",
                "ddp_find_unused_parameters": False,
                "save_strategy": "epoch",
                "per_device_train_batch_size": 1,
            },
            "DataCollator": {"mlm": True},
            "DatasetConfig": {"shuffle_dataset": True, "train_test_split": 1},
        }
    }


def test_a_workspace_without_a_workload_cannot_be_rendered(phi: Workspace, plan: Plan) -> None:
    with pytest.raises(ValueError, match="default/workspace-phi-3-mini has nothing to tune"):
        tuning_job(phi, plan, SETTINGS)
    with pytest.raises(ValueError, match="has nothing to tune"):
        tuning_job(tuning_workspace(phi), replace(plan, container=None), SETTINGS)
    with pytest.raises(ValueError, match="has neither a preset nor a template to serve"):
        inference_stateful_set(phi, replace(plan, container=None), SETTINGS)
