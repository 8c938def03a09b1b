"""Every value has the documented effect; wrong values are refused with a message that names them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.provisioner.flags import parse as parse_provisioner
from kaito.workspace.activator.main import parser as activator_parser
from kaito.workspace.flags import Invocation, parse as parse_controller
from test.charts.rendering import CHARTS, NAMES, Objects, RenderError, container, helm, template

CONTROLLER, PROVISIONER = NAMES
EXAMPLES = sorted(path for name in NAMES for path in (CHARTS / name / "values").glob("*.yaml"))


def leaves(values: Any, path: str = "") -> list[str]:
    """Paths of all values; lists and empty maps are leaves."""
    if isinstance(values, dict) and values:
        return [leaf for name, inner in values.items() for leaf in leaves(inner, f"{path}.{name}".lstrip("."))]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # YAML
    return [path]


def nested(path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}


def defaults(chart: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    return found


def at(objects: Objects, path: str) -> Any:
    """The value at `Kind/name:a.b.0.c`."""
    key, _, rest = path.partition(":")
    kind, _, name = key.partition("/")
    found: Any = objects.get((kind, name))
    for part in filter(None, rest.split(".")):
        if found is None:
            return None
        found = found[int(part)] if part.isdigit() else found.get(part.replace("~", "."))
    return found


POD = "Deployment/{chart}:spec.template.spec"
CONTAINER = POD + ".containers.0"
SHARED: dict[str, tuple[Any, str, Any]] = {
    "revisionHistoryLimit": (3, "Deployment/{chart}:spec.revisionHistoryLimit", 3),
    "imagePullSecrets": ([{"name": "a"}], POD + ".imagePullSecrets", [{"name": "a"}]),
    "networkPolicy.enabled": (False, "NetworkPolicy/{chart}:", None),
    "networkPolicy.metricsFrom": (
        [{"podSelector": {}}],
        "NetworkPolicy/{chart}:spec.ingress.0.from",
        [{"podSelector": {}}],
    ),
    "podDisruptionBudget.enabled": (False, "PodDisruptionBudget/{chart}:", None),
    "podDisruptionBudget.maxUnavailable": ("50%", "PodDisruptionBudget/{chart}:spec.maxUnavailable", "50%"),
    "priorityClassName": ("high", POD + ".priorityClassName", "high"),
    "nodeSelector.kubernetes.io/os": ("windows", POD + ".nodeSelector", {"kubernetes.io/os": "windows"}),
    "tolerations": ([{"operator": "Exists"}], POD + ".tolerations", [{"operator": "Exists"}]),
    "affinity": ({"nodeAffinity": {}}, POD + ".affinity", {"nodeAffinity": {}}),
    "topologySpreadConstraints": ([{"maxSkew": 2}], POD + ".topologySpreadConstraints", [{"maxSkew": 2}]),
    "podAnnotations": ({"a": "b"}, "Deployment/{chart}:spec.template.metadata.annotations.a", "b"),
    "podLabels": ({"a": "b"}, "Deployment/{chart}:spec.template.metadata.labels.a", "b"),
    "podSecurityContext.runAsUser": (1000, POD + ".securityContext.runAsUser", 1000),
    "podSecurityContext.runAsGroup": (1000, POD + ".securityContext.runAsGroup", 1000),
    "podSecurityContext.runAsNonRoot": (False, POD + ".securityContext.runAsNonRoot", False),
    "podSecurityContext.seccompProfile.type": (
        "Unconfined",
        POD + ".securityContext.seccompProfile.type",
        "Unconfined",
    ),
    "monitoring.podMonitor.enabled": (True, "PodMonitor/{chart}:kind", "PodMonitor"),
    "monitoring.prometheusRule.enabled": (True, "PrometheusRule/{chart}:kind", "PrometheusRule"),
    "crds.keep": (False, "CustomResourceDefinition/{crd}:metadata.annotations", None),
    "serviceAccount.annotations": ({"a": "b"}, "ServiceAccount/{chart}:metadata.annotations.a", "b"),
}
IMAGE = "{repository}:0.1.0"
DIGEST = f"sha256:{'0' * 64}"
WEBHOOK = "ValidatingWebhookConfiguration/validation~workspace~kaito~sh:"
EFFECTS: dict[str, dict[str, tuple[Any, str, Any]]] = {
    CONTROLLER: {
        **SHARED,
        "replicaCount": (1, "Deployment/{chart}:spec.replicas", 1),
        "deploymentStrategy.type": ("Recreate", "Deployment/{chart}:spec.strategy.type", "Recreate"),
        "deploymentStrategy.rollingUpdate.maxUnavailable": (
            2,
            "Deployment/{chart}:spec.strategy.rollingUpdate.maxUnavailable",
            2,
        ),
        "image.repository": ("r/c", CONTAINER + ".image", "r/c:0.1.0"),
        "image.tag": ("9", CONTAINER + ".image", "kaito/workspace-controller:9"),
        "image.digest": (DIGEST, CONTAINER + ".image", f"kaito/workspace-controller@{DIGEST}"),
        "image.pullPolicy": ("Always", CONTAINER + ".imagePullPolicy", "Always"),
        "webhook.enabled": (False, WEBHOOK, None),
        "webhook.failurePolicy": ("Ignore", WEBHOOK + "webhooks.0.failurePolicy", "Ignore"),
        "webhook.timeoutSeconds": (9, WEBHOOK + "webhooks.0.timeoutSeconds", 9),
        "webhook.annotations": ({"a": "b"}, WEBHOOK + "metadata.annotations.a", "b"),
        "metrics.service.annotations": ({"a": "b"}, "Service/{chart}:metadata.annotations.a", "b"),
        "monitoring.models.enabled": (True, "PodMonitor/kaito-models:kind", "PodMonitor"),
        "monitoring.dashboard.enabled": (True, "ConfigMap/kaito-dashboard:kind", "ConfigMap"),
        "activator.enabled": (True, "Deployment/workspace-activator:kind", "Deployment"),
        "crds.enabled": (False, "CustomResourceDefinition/{crd}:", None),
        "userRoles.enabled": (False, "ClusterRole/workspace-editor:", None),
        "resources.requests.cpu": ("1", CONTAINER + ".resources.requests.cpu", "1"),
        "resources.requests.memory": ("1Gi", CONTAINER + ".resources.requests.memory", "1Gi"),
        "resources.limits.memory": ("1Gi", CONTAINER + ".resources.limits.memory", "1Gi"),
        "securityContext.readOnlyRootFilesystem": (False, CONTAINER + ".securityContext.readOnlyRootFilesystem", False),
        "securityContext.allowPrivilegeEscalation": (
            True,
            CONTAINER + ".securityContext.allowPrivilegeEscalation",
            True,
        ),
        "securityContext.capabilities.drop": (["A"], CONTAINER + ".securityContext.capabilities.drop", ["A"]),
    },
    PROVISIONER: {
        **SHARED,
        "replicas": (1, "Deployment/{chart}:spec.replicas", 1),
        "strategy.type": ("Recreate", "Deployment/{chart}:spec.strategy.type", "Recreate"),
        "strategy.rollingUpdate.maxUnavailable": (
            2,
            "Deployment/{chart}:spec.strategy.rollingUpdate.maxUnavailable",
            2,
        ),
        "controller.image.repository": ("r/c", CONTAINER + ".image", "r/c:0.1.0"),
        "controller.image.tag": ("9", CONTAINER + ".image", "kaito/gpu-provisioner:9"),
        "controller.image.digest": (DIGEST, CONTAINER + ".image", f"kaito/gpu-provisioner@{DIGEST}"),
        "imagePullPolicy": ("Always", CONTAINER + ".imagePullPolicy", "Always"),
        "workloadIdentity.clientId": (
            "id",
            "ServiceAccount/{chart}:metadata.annotations.azure~workload~identity/client-id",
            "id",
        ),
        "workloadIdentity.tenantId": (
            "id",
            "ServiceAccount/{chart}:metadata.annotations.azure~workload~identity/tenant-id",
            "id",
        ),
        "crds.machines": (False, "CustomResourceDefinition/machines~karpenter~sh:", None),
        "crds.nodeClaims": (False, "CustomResourceDefinition/nodeclaims~karpenter~sh:", None),
        "controller.envFrom": (
            [{"secretRef": {"name": "a"}}],
            CONTAINER + ".envFrom",
            [{"configMapRef": {"name": "gpu-provisioner-azure"}}, {"secretRef": {"name": "a"}}],
        ),
        "controller.resources.requests.cpu": ("1", CONTAINER + ".resources.requests.cpu", "1"),
        "controller.resources.requests.memory": ("1Gi", CONTAINER + ".resources.requests.memory", "1Gi"),
        "controller.resources.limits.memory": ("1Gi", CONTAINER + ".resources.limits.memory", "1Gi"),
        "controller.securityContext.readOnlyRootFilesystem": (
            False,
            CONTAINER + ".securityContext.readOnlyRootFilesystem",
            False,
        ),
        "controller.securityContext.allowPrivilegeEscalation": (
            True,
            CONTAINER + ".securityContext.allowPrivilegeEscalation",
            True,
        ),
        "controller.securityContext.capabilities.drop": (
            ["A"],
            CONTAINER + ".securityContext.capabilities.drop",
            ["A"],
        ),
        "dnsPolicy": ("Default", POD + ".dnsPolicy", "Default"),
        "hostNetwork": (True, POD + ".hostNetwork", True),
        "service.annotations": ({"a": "b"}, "Service/{chart}:metadata.annotations.a", "b"),
        "additionalLabels": ({"a": "b"}, "ClusterRole/{chart}:metadata.labels.a", "b"),
        "additionalAnnotations": ({"a": "b"}, "Deployment/{chart}:metadata.annotations.a", "b"),
    },
}
"""Value, place in the rendered objects, what is there."""

FLAGS: dict[str, dict[str, Any]] = {
    CONTROLLER: {
        "nodeApi": "byo",
        "nodeProvisioner": "azure-gpu-provisioner",
        "cloudProviderName": "aws",
        "defaultNodeImageFamily": "azurelinux",
        "featureGates.vLLM": False,
        "installationGuard": False,
        "imageRegistry": "r.example.com/k",
        "presetRegistryName": "r.example.com/k",
        "modelRegistry": "r.example.com/models",
        "weightsSource": "Pull",
        "nodeCacheDirectory": "/var/cache/kaito",
        "podDefaults": {"priorityClassName": "high"},
        "region": "eastus",
        "migStrategy": "mixed",
        "priceTable": {"prices": [{"region": "eastus", "instanceType": "a", "onDemand": 1}]},
        "servingImage": "r.example.com/serving:1",
        "vllmImage": "r.example.com/vllm:1",
        "karpenterNodeClass.group": "karpenter.k8s.aws",
        "karpenterNodeClass.kind": "EC2NodeClass",
        "karpenterNodeClass.version": "v1",
        "karpenterNodeClass.resourceName": "ec2nodeclasses",
        "karpenterNodeClass.name": "gpu",
        "webhook.port": 9999,
        "webhook.certSecret": "cert",
        "webhook.caBundle": "Y2E=",
        "metrics.port": 9000,
        "metrics.secure": True,
        "metrics.certSecret": "cert",
        "tracing.endpoint": "http://collector:4318",
        "logging.level": "debug",
        "logging.format": "console",
        "extraArgs": ["--concurrency=7"],
        "extraEnv": [{"name": "IMAGE_REGISTRY", "value": "x"}],
    },
    PROVISIONER: {
        "settings.azure.subscriptionId": "x",
        "settings.azure.resourceGroup": "x",
        "settings.azure.clusterName": "x",
        "settings.azure.location": "x",
        "deploymentMode": "managed",
        "nodeApi": "both",
        "controller.env": [{"name": "AZURE_CLIENT_ID", "value": "x"}],
        "controller.extraArgs": ["--gc-dry-run"],
        "controller.metrics.port": 9000,
        "controller.metrics.secure": True,
        "controller.metrics.certSecret": "cert",
        "controller.healthProbe.port": 9001,
        "tracing.endpoint": "http://collector:4318",
        "logLevel": "debug",
        "logEncoding": "console",
    },
}
"""Values that reach the command line or the environment; `test_the_program_receives_each_value` checks where."""


MONITORING = {
    "podMonitor": ("labels", "interval", "tokenSecret.name", "tokenSecret.key", "tlsConfig.insecureSkipVerify"),
    "models": ("labels", "interval"),
    "prometheusRule": ("labels",),
    "dashboard": ("labels.grafana_dashboard", "annotations"),
}
"""Values of objects that are off by default; `test_monitoring_receives_each_value` checks them."""


ACTIVATOR = {
    "replicas": (3, "Deployment/workspace-activator:spec.replicas", 3),
    "holdSeconds": (60, "Deployment/workspace-activator:spec.template.spec.terminationGracePeriodSeconds", 100),
    "holdRequests": (7, "Deployment/workspace-activator:spec.template.spec.containers.0.args", ["--hold-requests=7"]),
    "keda.enabled": (
        True,
        "Deployment/workspace-activator:spec.template.spec.containers.0.args",
        ["--keda-port=9090"],
    ),
    "extraArgs": (["--hold=9s"], "Deployment/workspace-activator:spec.template.spec.containers.0.args", ["--hold=9s"]),
    "resources.requests.cpu": (
        "1",
        "Deployment/workspace-activator:spec.template.spec.containers.0.resources.requests.cpu",
        "1",
    ),
    "resources.requests.memory": (
        "1Gi",
        "Deployment/workspace-activator:spec.template.spec.containers.0.resources.requests.memory",
        "1Gi",
    ),
    "resources.limits.memory": (
        "1Gi",
        "Deployment/workspace-activator:spec.template.spec.containers.0.resources.limits.memory",
        "1Gi",
    ),
}
"""Values of the activator, which is off by default: value, place in the rendered objects, what is there."""


@pytest.mark.parametrize("name", ACTIVATOR)
def test_the_activator_receives_each_value(name: str) -> None:
    value, where, expected = ACTIVATOR[name]
    objects = template(CONTROLLER, values={"activator": {"enabled": True, **nested(name, value)}})
    assert at(objects, where) == expected


def test_the_activator_starts_with_the_flags_of_the_chart() -> None:
    values = {"enabled": True, "holdSeconds": 60, "holdRequests": 7, "extraArgs": ["--hold-mebibytes=9"]}
    logging = {"level": "debug", "format": "console"}
    objects = template(CONTROLLER, values={"activator": values, "logging": logging})
    flags = activator_parser()
    parsed = flags.parse_args(at(objects, "Deployment/workspace-activator:spec.template.spec.containers.0.args"))
    assert (parsed.hold_seconds, parsed.hold_requests, parsed.hold_mebibytes) == (60.0, 7, 9)
    assert (parsed.log_level, parsed.log_format) == ("debug", "console")


KEDA: dict[str, tuple[Any, str, Any]] = {
    "port": (7000, "Service/workspace-activator:spec.ports.1.port", 7000),
    "certSecret": (
        "keda-tls",
        "Deployment/workspace-activator:spec.template.spec.volumes.1.secret.secretName",
        "keda-tls",
    ),
    "from": ([{"podSelector": {}}], "NetworkPolicy/workspace-activator:spec.ingress.1.from", [{"podSelector": {}}]),
}
"""Values of the port for KEDA, which is off by default."""


@pytest.mark.parametrize("name", KEDA)
def test_the_port_for_keda_receives_each_value(name: str) -> None:
    value, where, expected = KEDA[name]
    objects = template(CONTROLLER, values={"activator": {"enabled": True, "keda": {"enabled": True, name: value}}})
    assert at(objects, where) == expected


def test_the_activator_finds_the_certificate_for_keda_of_the_chart() -> None:
    keda = {"enabled": True, "certSecret": "keda-tls"}
    objects = template(CONTROLLER, values={"activator": {"enabled": True, "keda": keda}})
    container = "Deployment/workspace-activator:spec.template.spec.containers.0"
    parsed = activator_parser().parse_args(at(objects, f"{container}.args"))
    assert (parsed.keda_port, str(parsed.keda_cert_dir)) == (9090, at(objects, f"{container}.volumeMounts.1.mountPath"))


def monitoring(chart: str) -> set[str]:
    parts = MONITORING if chart == CONTROLLER else {key: MONITORING[key] for key in ("podMonitor", "prometheusRule")}
    return {f"monitoring.{part}.{name}" for part, names in parts.items() for name in names}


@pytest.mark.parametrize("chart", NAMES)
def test_monitoring_receives_each_value(chart: str) -> None:
    token = {"name": "metrics-reader", "key": "jwt"}
    common = {"enabled": True, "labels": {"release": "prometheus"}}
    pods = common | {"interval": "5s", "tokenSecret": token, "tlsConfig": {"insecureSkipVerify": False}}
    values: dict[str, Any] = {"podMonitor": pods, "prometheusRule": common}
    secure: dict[str, Any] = {"controller": {"metrics": {"secure": True}}}
    if chart == CONTROLLER:
        values |= {"models": common | {"interval": "7s"}, "dashboard": common | {"annotations": {"folder": "AI"}}}
        secure = {"metrics": {"secure": True}}
    objects = template(chart, values={"monitoring": values} | secure)
    endpoint = at(objects, f"PodMonitor/{chart}:spec.podMetricsEndpoints.0")
    assert endpoint == {
        "port": "metrics", "interval": "5s", "scheme": "https", "tlsConfig": {"insecureSkipVerify": False},
        "authorization": {"credentials": token}, **({"honorLabels": True} if chart == CONTROLLER else {}),
    }  # fmt: skip
    marked = {key for key, document in objects.items() if "release" in document["metadata"]["labels"]}
    expected = {("PodMonitor", chart), ("PrometheusRule", chart)}
    if chart == CONTROLLER:
        expected |= {("PodMonitor", "kaito-models"), ("ConfigMap", "kaito-dashboard")}
        expected |= {("PodMonitor", "workspace-activator")}
        activator = at(objects, "PodMonitor/workspace-activator:spec.podMetricsEndpoints.0")
        assert activator == {key: value for key, value in endpoint.items() if key != "honorLabels"}
        assert at(objects, "PodMonitor/kaito-models:spec.podMetricsEndpoints.0.interval") == "7s"
        assert at(objects, "ConfigMap/kaito-dashboard:metadata.annotations.folder") == "AI"
    assert marked == expected


def place(chart: str, path: str) -> str:
    crd = "workspaces~kaito~sh" if chart == CONTROLLER else "machines~karpenter~sh"
    head, colon, rest = path.format(chart=chart, crd=crd).partition(":")
    return head.replace("~", ".") + colon + rest


@pytest.mark.parametrize(("chart", "path"), [(chart, path) for chart in NAMES for path in EFFECTS[chart]])
def test_a_value_has_its_effect(chart: str, path: str) -> None:
    value, where, expected = EFFECTS[chart][path]
    assert at(template(chart), place(chart, where)) != expected, "the default would pass too"
    values = nested(path, value) if "kubernetes.io" not in path else {"nodeSelector": {"kubernetes.io/os": value}}
    assert at(template(chart, values=values), place(chart, where)) == expected


@pytest.mark.parametrize("chart", NAMES)
def test_every_value_is_tested_and_described(chart: str) -> None:
    paths = set(leaves(defaults(chart)))
    own = {*ACTIVATOR, *(f"keda.{name}" for name in KEDA)}
    activator = {f"activator.{name}" for name in own} if chart == CONTROLLER else set[str]()
    assert paths == EFFECTS[chart].keys() | FLAGS[chart].keys() | monitoring(chart) | activator
    readme = (CHARTS / chart / "README.md").read_text()
    described = set(re.findall(r"^\| `([^`]+)`", readme, flags=re.MULTILINE))
    missing = [p for p in sorted(paths) if not any(p == d or p.startswith(f"{d}.") for d in described)]
    assert missing == []
    assert [d for d in sorted(described) if not any(p == d or p.startswith(f"{d}.") for p in paths)] == []


def variables(objects: Objects, chart: str) -> dict[str, str]:
    data: dict[str, str] = objects.get(("ConfigMap", "gpu-provisioner-azure"), {}).get("data", {})
    return data | {each["name"]: each["value"] for each in container(objects, chart)["env"] if "value" in each}


def controller(values: dict[str, Any]) -> Invocation:
    objects = template(CONTROLLER, values=values)
    return parse_controller(container(objects, CONTROLLER).get("args", []), variables(objects, CONTROLLER))


def test_the_program_receives_each_value() -> None:
    parsed = controller({})
    assert (parsed.workspace.node_api, parsed.workspace.cloud, parsed.webhook) == ("machine", "azure", True)
    assert controller({"nodeApi": "byo"}).workspace.node_api == "byo"
    provisioner = {"nodeApi": "", "nodeProvisioner": "azure-gpu-provisioner"}
    assert controller(provisioner).workspace.node_api == "nodeclaim"
    assert controller({"nodeApi": "karpenter"}).workspace.node_api == "karpenter"
    assert controller({"nodeApi": "", "nodeProvisioner": "karpenter"}).workspace.node_api == "karpenter"
    assert controller({"cloudProviderName": "aws"}).workspace.cloud == "aws"
    assert controller({"defaultNodeImageFamily": "azurelinux"}).workspace.default_node_image_family == "azurelinux"
    assert controller({}).workspace.vllm
    assert not controller({"featureGates": {"vLLM": False}}).workspace.vllm
    assert not controller({"installationGuard": False}).workspace.installation_guard
    for name in ("imageRegistry", "presetRegistryName"):
        assert controller({name: "r.example.com/k"}).workspace.image_registry == "r.example.com/k"
    assert controller({"servingImage": "r.example.com/s:1"}).workspace.serving_image == "r.example.com/s:1"
    assert controller({"migStrategy": "mixed"}).workspace.mig_strategy == "mixed"
    assert controller({"vllmImage": "r.example.com/v:1"}).workspace.vllm_image == "r.example.com/v:1"
    node_class = {"group": "g.example.com", "kind": "Class", "version": "v1", "resourceName": "classes", "name": "gpu"}
    parsed = controller({"nodeApi": "nodeclaim", "karpenterNodeClass": node_class})
    assert list(parsed.workspace.node_class.model_dump().values()) == list(node_class.values())
    assert not controller({"webhook": {"enabled": False}}).webhook
    assert controller({"webhook": {"port": 9999}}).manager.webhook_port == 9999
    assert controller({"metrics": {"port": 9000}}).manager.metrics_bind_address == ":9000"
    assert controller({"metrics": {"secure": True}}).manager.metrics_secure
    traced = controller({"tracing": {"endpoint": "http://collector:4318"}})
    assert traced.manager.tracing_endpoint == traced.workspace.tracing_endpoint == "http://collector:4318"
    assert controller({"logging": {"level": "debug", "format": "console"}}).manager.log_level == "debug"
    assert controller({"logging": {"level": "debug", "format": "console"}}).manager.log_format == "console"
    assert controller({"extraArgs": ["--concurrency=7"]}).workspace.concurrency == 7
    extra = {"extraEnv": [{"name": "IMAGE_REGISTRY", "value": "r.example.com/k"}]}
    assert controller(extra).workspace.image_registry == "r.example.com/k"


def mounted(values: dict[str, Any], name: str, folder: Path) -> list[str]:
    """The arguments of the controller, with the files of a mounted ConfigMap in a folder."""
    objects = template(CONTROLLER, values=values)
    found = container(objects, CONTROLLER)
    (mount,) = [mount for mount in found["volumeMounts"] if mount["name"] == name]
    (volume,) = [v for v in at(objects, place(CONTROLLER, POD + ".volumes")) if v["name"] == name]  # fmt: skip
    for key, text in objects["ConfigMap", volume["configMap"]["name"]]["data"].items():
        (folder / key).write_text(text)
    return [argument.replace(mount["mountPath"], str(folder)) for argument in found["args"]]


def test_the_program_receives_region_and_prices(tmp_path: Path) -> None:
    table = {
        "currency": "EUR",
        "prices": [{"region": "westeurope", "instanceType": "Standard_NC6s_v3", "onDemand": 2.5}],
    }
    parsed = parse_controller(mounted({"region": "westeurope", "priceTable": table}, "prices", tmp_path), {})
    assert parsed.workspace.region == "westeurope"
    assert parsed.prices is not None
    (price,) = parsed.prices.prices.values()
    assert str(price) == "2.50 EUR per hour"
    assert controller({}).prices is None


def test_the_program_receives_sources_of_weights_and_defaults_of_pods(tmp_path: Path) -> None:
    weights = {"modelRegistry": "r.example.com/m", "weightsSource": "NodeCache", "nodeCacheDirectory": "/var/cache/k"}
    parsed = controller(weights).workspace
    assert (parsed.model_registry, parsed.weights_source) == ("r.example.com/m", "NodeCache")
    assert str(parsed.node_cache_directory) == "/var/cache/k"

    options = {"priorityClassName": "high", "nodeSelector": {"pool": "gpu"}}
    arguments = mounted({"podDefaults": options}, "pod-defaults", tmp_path)
    defaults_of_pods = parse_controller(arguments, {}).workspace.pod_defaults
    assert (defaults_of_pods.priority_class_name, defaults_of_pods.node_selector) == ("high", {"pool": "gpu"})


@pytest.mark.parametrize("part", ["webhook", "metrics"])
def test_certificates_are_mounted_where_the_flag_points(part: str) -> None:
    values = {"webhook": {"certSecret": "cert", "caBundle": "Y2E="}, "metrics": {"certSecret": "cert", "secure": True}}
    objects = template(CONTROLLER, values={part: values[part]})
    found = container(objects, CONTROLLER)
    settings = parse_controller(found["args"], {}).manager
    folder = settings.webhook_cert_dir if part == "webhook" else settings.metrics_cert_dir
    (mount,) = [mount for mount in found["volumeMounts"] if mount["mountPath"] == str(folder)]
    volumes = objects["Deployment", CONTROLLER]["spec"]["template"]["spec"]["volumes"]
    assert {"name": mount["name"], "secret": {"secretName": "cert"}} in volumes
    for kind, name in (("Validating", "validation"), ("Mutating", "defaulting")):
        bundle = objects[f"{kind}WebhookConfiguration", f"{name}.workspace.kaito.sh"]["webhooks"][0]["clientConfig"]
        assert bundle.get("caBundle") == ("Y2E=" if part == "webhook" else None)


def test_the_provisioner_receives_each_value() -> None:
    def parsed(values: dict[str, Any]) -> Any:
        objects = template(PROVISIONER, values=values)
        return parse_provisioner(container(objects, PROVISIONER)["args"], variables(objects, PROVISIONER))

    azure = parsed({}).azure
    assert (azure.subscription_id, azure.resource_group, azure.cluster, azure.location) == ("s", "g", "c", "l")
    assert parsed({}).azure.credential_mode == "workload"
    assert parsed({"deploymentMode": "managed"}).azure.credential_mode == "managed"
    assert parsed({"nodeApi": "both"}).node_api == "both"
    assert parsed({"controller": {"env": [{"name": "AZURE_CLIENT_ID", "value": "x"}]}}).azure.client_id == "x"
    assert parsed({"controller": {"extraArgs": ["--gc-dry-run"]}}).provisioner.gc_dry_run
    assert parsed({"controller": {"metrics": {"port": 9000}}}).manager.metrics_bind_address == ":9000"
    assert parsed({"controller": {"healthProbe": {"port": 9001}}}).manager.health_probe_bind_address == ":9001"
    secure = parsed({"controller": {"metrics": {"secure": True, "certSecret": "c"}}}).manager
    assert secure.metrics_secure
    assert secure.metrics_cert_dir == Path("/certificates/metrics")
    traced = parsed({"tracing": {"endpoint": "http://collector:4318"}})
    assert traced.manager.tracing_endpoint == "http://collector:4318"
    assert parsed({"logLevel": "debug"}).manager.log_level == "debug"
    assert parsed({"logEncoding": "console"}).manager.log_format == "console"


def test_settings_of_upstream_in_the_environment_replace_the_values() -> None:
    names = ("ARM_SUBSCRIPTION_ID", "ARM_RESOURCE_GROUP", "AZURE_CLUSTER_NAME")
    empty = {"subscriptionId": "", "resourceGroup": "", "clusterName": "", "location": ""}
    env = [{"name": name, "value": "x"} for name in names]
    objects = template(PROVISIONER, values={"settings": {"azure": empty}, "controller": {"env": env}})
    assert variables(objects, PROVISIONER) == dict.fromkeys(names, "x")


@pytest.mark.parametrize(
    ("chart", "values", "message"),
    [
        (CONTROLLER, {"nodeAPI": "byo"}, "nodeAPI"),
        (CONTROLLER, {"nodeApi": "pool"}, "nodeApi"),
        (CONTROLLER, {"webhook": {"port": 0}}, "webhook.port"),
        (CONTROLLER, {"replicaCount": "two"}, "replicaCount"),
        (CONTROLLER, {"image": {"digest": "abc"}}, "image.digest"),
        (CONTROLLER, {"extraArgs": ["concurrency=7"]}, "extraArgs.0"),
        (CONTROLLER, {"metrics": {"certSecret": "c"}}, "metrics.certSecret has no effect without metrics.secure"),
        (CONTROLLER, {"nodeApi": "machine", "nodeProvisioner": "byo"}, "contradicts nodeApi=machine"),
        (CONTROLLER, {"karpenterNodeClass": {"kind": "EC2NodeClass"}}, "has no effect without nodeApi=nodeclaim"),
        (CONTROLLER, {"webhook": {"caBundle": "Y2E="}}, "has no effect without webhook.certSecret"),
        (PROVISIONER, {"settings": {"azure": {"subscriptionId": "s", "resourceGroup": "g"}}},
         "settings.azure.clusterName is empty: set it to the AKS cluster that gets the nodes"),
        (PROVISIONER, {"controller": {"metrics": {"certSecret": "c"}}}, "controller.metrics.certSecret has no effect"),
        (CONTROLLER, {"metrics": {"secure": True}, "monitoring": {"podMonitor": {"enabled": True}}},
         "metrics.secure needs monitoring.podMonitor.tokenSecret.name"),
        (PROVISIONER, {"logLevel": "verbose"}, "logLevel"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(chart: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RenderError) as refused:
        template(chart, values=values)
    assert message in str(refused.value).replace("/", ".")


@pytest.mark.parametrize("chart", NAMES)
@pytest.mark.parametrize(
    "example", ["", "aks.yaml", "existing-nodes.yaml", "karpenter.yaml", "karpenter-node-pools.yaml"]
)
def test_helm_lint_is_clean(chart: str, example: str) -> None:
    path = CHARTS / chart / "values" / (example or "aks.yaml")
    if not path.exists():
        assert chart == PROVISIONER, "only workspace-controller has the examples without gpu-provisioner"
        return
    result = helm("lint", "--strict", CHARTS / chart, f"--values={path}")
    assert "[WARNING]" not in result.stdout
    assert "[ERROR]" not in result.stdout


def test_every_value_to_set_is_marked() -> None:
    for path in EXAMPLES:
        for line in path.read_text().splitlines():
            if any(word in line for word in ("registry.", "azurecr", "0000", "my-", "eastus")) and "- " not in line:
                assert "# set" in line, f"{path}: {line}"


@pytest.mark.parametrize("chart", NAMES)
def test_the_schema_knows_exactly_the_values(chart: str) -> None:
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())

    def names(properties: dict[str, Any], values: dict[str, Any], path: str) -> list[str]:
        problems = [f"{path}.{name}" for name in properties.keys() ^ values.keys() if name != "global"]
        for name, inner in properties.items():
            if "properties" in inner:
                problems += names(inner["properties"], values[name], f"{path}.{name}")
        return problems

    assert names(schema["properties"], defaults(chart), "") == []
