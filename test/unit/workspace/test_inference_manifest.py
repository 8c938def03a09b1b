"""The serving workload and its Services as rendered."""

from typing import Any

import pytest

from kaito.api import Workspace, labels
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.manifests.service import client_service, headless_service
from kaito.workspace.plan import ModelContainer, Plan
from kaito.workspace.settings import NodeApi, WorkspaceSettings


def pod_of(workspace: Workspace, plan: Plan, settings: WorkspaceSettings) -> dict[str, Any]:
    template: dict[str, Any] = inference_stateful_set(workspace, plan, settings).to_dict()["spec"]["template"]
    return template


def with_adapters(workspace: Workspace, *adapters: dict[str, Any]) -> Workspace:
    assert workspace.inference is not None
    return workspace.evolve(inference=workspace.inference.to_dict() | {"adapters": list(adapters)})


def test_the_client_service_has_upstreams_ports(phi: Workspace) -> None:
    service = client_service(phi)
    assert service.name == "workspace-phi-3-mini"
    assert service.spec.type == "ClusterIP"
    assert [(p.name, p.port, p.target_port) for p in service.spec.ports] == [
        ("http", 80, 5000),
        ("torch", 29500, 29500),
    ]
    assert service.spec.selector == {"kaito.sh/workspace": "workspace-phi-3-mini"}
    assert service.spec.publish_not_ready_addresses is None


@pytest.mark.parametrize("word", ["True", "true"])
def test_a_load_balancer_carries_http_only(phi: Workspace, word: str) -> None:
    service = client_service(phi.with_metadata(annotations={labels.ENABLE_LOAD_BALANCER: word}))
    assert service.spec.type == "LoadBalancer"
    assert [p.port for p in service.spec.ports] == [80]


def test_the_headless_service_names_pods_before_they_are_ready(phi: Workspace) -> None:
    service = headless_service(phi)
    assert (service.name, service.spec.cluster_ip) == ("workspace-phi-3-mini-headless", "None")
    assert service.spec.publish_not_ready_addresses


def test_the_workload_of_a_preset(phi: Workspace, plan: Plan, settings: WorkspaceSettings) -> None:
    workload = inference_stateful_set(phi, plan, settings)
    assert workload.spec.replicas == 1
    assert workload.spec.service_name == "workspace-phi-3-mini-headless"
    assert workload.spec.selector.match_labels == {"kaito.sh/workspace": "workspace-phi-3-mini"}
    (container,) = workload.spec.template.spec.containers
    assert container.name == "workspace-phi-3-mini"
    assert container.image == "registry.example/kaito-phi-3-mini-4k-instruct:0.0.2"
    assert container.command == ["/bin/sh", "-c", "serve"]
    assert {name: str(amount) for name, amount in container.resources.requests.items()} == {
        "cpu": "1",
        "memory": "4Gi",
        "nvidia.com/gpu": "1",
    }
    assert {name: str(amount) for name, amount in container.resources.limits.items()} == {"nvidia.com/gpu": "1"}


def test_loading_may_take_as_long_as_the_model_needs(phi: Workspace, plan: Plan, settings: WorkspaceSettings) -> None:
    (container,) = pod_of(phi, plan, settings)["spec"]["containers"]
    startup = container["startupProbe"]
    assert startup["httpGet"] == {"path": "/health", "port": 5000}
    assert startup["periodSeconds"] * startup["failureThreshold"] == 1800
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"


def test_pods_go_to_the_workspaces_own_nodes(phi: Workspace, plan: Plan, settings: WorkspaceSettings) -> None:
    spec = pod_of(phi, plan, settings)["spec"]
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"] == [
        {
            "matchExpressions": [
                {"key": "apps", "operator": "In", "values": ["phi-3"]},
                {"key": "kaito.sh/workspace", "operator": "In", "values": ["workspace-phi-3-mini"]},
                {"key": "kaito.sh/workspacenamespace", "operator": "In", "values": ["default"]},
            ]
        }
    ]
    assert {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"} in spec["tolerations"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]


def test_on_the_users_own_nodes_the_selector_alone_decides_expressions_included(phi: Workspace, plan: Plan) -> None:
    selector = phi.resource.label_selector.evolve(match_expressions=[{"key": "gpu", "operator": "Exists"}])
    own = phi.evolve(resource=phi.resource.evolve(label_selector=selector))
    spec = pod_of(own, plan, WorkspaceSettings(node_api=NodeApi.BYO))["spec"]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "apps", "operator": "In", "values": ["phi-3"]},
        {"key": "gpu", "operator": "Exists"},
    ]


def test_image_adapters_are_pulled_and_their_strengths_passed(
    phi: Workspace, plan: Plan, settings: WorkspaceSettings
) -> None:
    adapted = with_adapters(
        phi,
        {"source": {"name": "zeta", "image": "r.example/zeta:1", "imagePullSecrets": ["regcred"]}},
        {"source": {"name": "phi-3-adapter", "image": "r.example/adapter:0.0.1"}, "strength": "0.5"},
    )
    spec = pod_of(adapted, plan, settings)["spec"]
    first, second = spec["initContainers"]
    assert first["name"] == "puller-phi-3-adapter"
    assert first["image"] == "registry.example/kaito-base:0.5.0"
    assert first["command"][2:] == ["r.example/adapter:0.0.1", "/mnt/adapter/phi-3-adapter"]
    assert second["command"][-2:] == ["--docker-config", "/mnt/registry/docker-config-zeta/regcred.json"]
    (container,) = spec["containers"]
    assert {"name": "adapter-volume", "mountPath": "/mnt/adapter"} in container["volumeMounts"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["KAITO_ADAPTER_STRENGTHS"] == '{"phi-3-adapter": "0.5", "zeta": "1.0"}'
    assert spec["imagePullSecrets"] == [{"name": "regcred"}]
    projected = next(v for v in spec["volumes"] if v["name"] == "docker-config-zeta")["projected"]
    assert projected["sources"][0]["secret"]["items"] == [{"key": ".dockerconfigjson", "path": "regcred.json"}]


def test_volume_adapters_are_mounted(phi: Workspace, plan: Plan, settings: WorkspaceSettings) -> None:
    source = {"name": "mine", "volumeSource": {"persistentVolumeClaim": {"claimName": "adapters"}}}
    spec = pod_of(with_adapters(phi, {"source": source}), plan, settings)["spec"]
    assert "initContainers" not in spec
    assert {"persistentVolumeClaim": {"claimName": "adapters"}, "name": "adapter-volume-mine"} in spec["volumes"]
    mounts = spec["containers"][0]["volumeMounts"]
    assert {"name": "adapter-volume-mine", "mountPath": "/mnt/adapter/mine", "readOnly": True} in mounts


def test_container_names_stay_legal_for_any_adapter_name(
    phi: Workspace, plan: Plan, settings: WorkspaceSettings
) -> None:
    adapted = with_adapters(
        phi,
        {"source": {"name": "a.b", "image": "r.example/a:1"}},
        {"source": {"name": "x" * 80, "image": "r.example/b:1"}},
    )
    names = [container["name"] for container in pod_of(adapted, plan, settings)["spec"]["initContainers"]]
    assert len(set(names)) == 2
    assert all(len(name) <= 63 and "." not in name for name in names)


def test_the_order_of_adapters_does_not_roll_pods(phi: Workspace, plan: Plan, settings: WorkspaceSettings) -> None:
    one = {"source": {"name": "a", "image": "r.example/a:1"}}
    two = {"source": {"name": "b", "image": "r.example/b:1"}}
    assert pod_of(with_adapters(phi, one, two), plan, settings) == pod_of(with_adapters(phi, two, one), plan, settings)


def test_an_edited_config_rolls_pods(
    phi: Workspace, plan: Plan, model_container: ModelContainer, settings: WorkspaceSettings
) -> None:
    old = Plan(hardware=plan.hardware, container=model_container, config_map="mine", config_hash="aaaa")
    new = Plan(hardware=plan.hardware, container=model_container, config_map="mine", config_hash="bbbb")
    assert pod_of(phi, old, settings)["metadata"]["annotations"] == {labels.CONFIG_HASH: "aaaa"}
    assert {"name": "config-volume", "configMap": {"name": "mine"}} in pod_of(phi, old, settings)["spec"]["volumes"]
    hashes = {inference_stateful_set(phi, p, settings).annotations[labels.TEMPLATE_HASH] for p in (plan, old, new)}
    assert len(hashes) == 3


def test_a_template_stays_the_users_but_for_placement(phi: Workspace, plan: Plan, settings: WorkspaceSettings) -> None:
    template = {
        "metadata": {"labels": {"app": "mine"}, "annotations": {"note": "x"}},
        "spec": {
            "containers": [{"name": "server", "image": "mine:1", "someNewField": {"kept": True}}],
            "tolerations": [{"key": "mine", "operator": "Exists"}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["1"]}]},
                            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
                        ]
                    }
                }
            },
        },
    }
    own = phi.evolve(inference={"template": template})
    pod = pod_of(own, Plan(hardware=plan.hardware, container=None), settings)
    assert pod["metadata"]["labels"] == {"app": "mine", "kaito.sh/workspace": "workspace-phi-3-mini"}
    assert pod["spec"]["containers"] == template["spec"]["containers"]  # type: ignore[index]  # a literal above
    assert {"key": "mine", "operator": "Exists"} in pod["spec"]["tolerations"]
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert [t["matchExpressions"][-1]["key"] for t in terms] == ["kaito.sh/workspacenamespace"] * 2
    assert terms[0]["matchExpressions"][0] == {"key": "zone", "operator": "In", "values": ["1"]}
    assert terms[1]["matchFields"]


def test_a_gated_models_token_comes_from_the_secret(phi: Workspace, plan: Plan, settings: WorkspaceSettings) -> None:
    model_container = ModelContainer(preset="llama", image="i", tools_image="t", command=("serve",), access_secret="hf")
    (container,) = pod_of(phi, Plan(hardware=plan.hardware, container=model_container), settings)["spec"]["containers"]
    reference = {"name": "hf", "key": "HF_TOKEN", "optional": True}
    assert {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}} in container["env"]
