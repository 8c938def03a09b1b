"""The manifests of `config/`: generated files are current, samples are valid, and the pieces fit each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kaito.api import InferenceSet, Machine, NodeClaim, Workspace
from kaito.api.crds import manifests
from kaito.api.workspace.validation import Policy, validate
from kaito.local.admission import LocalWebhook
from kaito.models.admission import check
from kaito.workspace.admission import workspace_webhook
from kaito.workspace.inference_sets.admission import inference_set_webhook, validate_inference_set
from kaito.workspace.settings import WorkspaceSettings

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "config"
SAMPLES = sorted((CONFIG / "samples").glob("*.yaml"))
CRDS = {manifest["spec"]["names"]["kind"]: manifest for manifest in manifests()}


def documents(folder: str) -> list[dict[str, Any]]:
    return [
        document
        for path in sorted((CONFIG / folder).glob("*.yaml"))
        if path.name != "kustomization.yaml"
        for document in yaml.safe_load_all(path.read_text())
    ]


def named(kind: str, folder: str) -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d for d in documents(folder) if d["kind"] == kind}


def version_of(kind: str, name: str) -> dict[str, Any]:
    return next(version for version in CRDS[kind]["spec"]["versions"] if version["name"] == name)


def test_generated_files_are_up_to_date() -> None:
    command = [sys.executable, "hack/generate", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
def test_kubectl_get_shows_the_columns_of_the_contract(version: str) -> None:
    columns = version_of("Workspace", version)["additionalPrinterColumns"]
    shown = [column["name"].upper() for column in columns if not column.get("priority")]

    assert shown == ["INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE"]


def test_both_versions_of_workspace_have_one_schema_and_no_conversion() -> None:
    first, second = (version["schema"] for version in CRDS["Workspace"]["spec"]["versions"])

    assert first == second
    assert "conversion" not in CRDS["Workspace"]["spec"]
    assert version_of("Workspace", "v1beta1")["storage"]


def undescribed(schema: dict[str, Any], path: str) -> list[str]:
    found: list[str] = []
    for name, field in schema.get("properties", {}).items():
        if path == "" and name == "metadata":
            continue
        if not field.get("description"):
            found.append(f"{path}.{name}")
        found += undescribed(field, f"{path}.{name}")
    if "items" in schema:
        found += undescribed(schema["items"], f"{path}[]")
    return found


@pytest.mark.parametrize("kind", CRDS)
def test_every_field_has_a_description(kind: str) -> None:
    for version in CRDS[kind]["spec"]["versions"]:
        missing = undescribed(version["schema"]["openAPIV3Schema"], "")

        assert [path for path in missing if ".conditions[]" not in path] == []


def test_defaults_request_no_instance() -> None:
    for version in CRDS["Workspace"]["spec"]["versions"]:
        resource = version["schema"]["openAPIV3Schema"]["properties"]["resource"]["properties"]

        assert {name: field["default"] for name, field in resource.items() if "default" in field} == {"count": 1}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_satisfies_its_schema_and_the_rules(path: Path) -> None:
    sample = yaml.safe_load(path.read_text())
    version = sample["apiVersion"].rpartition("/")[2]

    jsonschema.validate(sample, version_of(sample["kind"], version)["schema"]["openAPIV3Schema"])
    if sample["kind"] == "Workspace":
        workspace = Workspace.model_validate(sample)
        own_nodes = not workspace.resource.instance_type
        policy = Policy(node_api="byo" if own_nodes else "machine")
        assert validate(workspace, policy=policy) == []
        assert [found for found in check(workspace, node_api=policy.node_api) if found.severity == "error"] == []
    elif sample["kind"] == "InferenceSet":
        assert validate_inference_set(InferenceSet.model_validate(sample), None, WorkspaceSettings()) == []
    else:
        claim = (Machine if sample["kind"] == "Machine" else NodeClaim).model_validate(sample)
        assert claim.instance_type == "Standard_NC6s_v3"


def test_samples_have_no_field_that_the_schema_would_drop() -> None:
    for path in SAMPLES:
        sample = yaml.safe_load(path.read_text())
        schema = version_of(sample["kind"], sample["apiVersion"].rpartition("/")[2])["schema"]["openAPIV3Schema"]

        assert unknown(sample, schema, path.stem) == []


def unknown(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    if schema.get("x-kubernetes-preserve-unknown-fields") or (path.count(".") == 1 and path.endswith(".metadata")):
        return []
    if isinstance(value, list):
        return [u for item in value for u in unknown(item, schema["items"], f"{path}[]")]  # pyright: ignore[reportUnknownVariableType]  # JSON
    if isinstance(value, dict) and "properties" in schema:
        fields: dict[str, Any] = schema["properties"]
        return [
            problem
            for name, inner in value.items()  # pyright: ignore[reportUnknownVariableType]  # JSON
            for problem in (unknown(inner, fields[name], f"{path}.{name}") if name in fields else [f"{path}.{name}"])
        ]
    return []


def test_every_manifest_is_in_its_kustomization() -> None:
    for folder in ("crd", "rbac", "manager", "webhook", "network-policy", "components/secure-metrics"):
        listed = yaml.safe_load((CONFIG / folder / "kustomization.yaml").read_text())["resources"]
        present = {path.name for path in (CONFIG / folder).glob("*.yaml")} - {"kustomization.yaml"}

        assert set(listed) == present, folder


@pytest.mark.parametrize("program", ["workspace-controller", "gpu-provisioner"])
def test_a_program_runs_under_its_account_with_its_roles(program: str) -> None:
    pod = named("Deployment", "manager")[program]["spec"]["template"]["spec"]
    account = named("ServiceAccount", "rbac")[pod["serviceAccountName"]]

    for kind in ("ClusterRole", "Role"):
        binding = named(f"{kind}Binding", "rbac")[program]
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": program, "namespace": account["metadata"]["namespace"]}
        ]
        assert binding["roleRef"]["name"] in named(kind, "rbac")


@pytest.mark.parametrize("program", ["workspace-controller", "gpu-provisioner"])
def test_a_program_is_confined(program: str) -> None:
    pod = named("Deployment", "manager")[program]["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_no_role_has_wildcards() -> None:
    for kind in ("ClusterRole", "Role"):
        for name, role in named(kind, "rbac").items():
            for rule in role["rules"]:
                assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], name


@pytest.mark.parametrize("program", ["workspace-controller", "gpu-provisioner"])
def test_a_program_survives_drains_and_reports_its_end(program: str) -> None:
    pod = named("Deployment", "manager")[program]["spec"]["template"]["spec"]
    budget = named("PodDisruptionBudget", "manager")[program]["spec"]

    assert {"key": "CriticalAddonsOnly", "operator": "Exists"} in pod["tolerations"]
    assert pod["containers"][0]["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": {"app.kubernetes.io/name": program}}}


@pytest.mark.parametrize("program", ["workspace-controller", "gpu-provisioner"])
def test_metrics_are_limited_to_labeled_namespaces_and_the_webhook_is_not(program: str) -> None:
    policy = named("NetworkPolicy", "network-policy")[program]["spec"]
    container = named("Deployment", "manager")[program]["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    allowed = {port["port"]: rule.get("from") for rule in policy["ingress"] for port in rule["ports"]}

    assert policy["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": program}}
    assert allowed["metrics"] == [{"namespaceSelector": {"matchLabels": {"metrics": "enabled"}}}]
    assert allowed.keys() == ports - {"health"}, "probes come from the node"
    assert allowed.get("webhook") is None


def test_access_reviews_are_granted_only_with_secure_metrics() -> None:
    reviews = {"tokenreviews", "subjectaccessreviews"}
    for name, role in named("ClusterRole", "rbac").items():
        assert not reviews & {r for rule in role["rules"] for r in rule["resources"]}, name
    granted = named("ClusterRole", "components/secure-metrics")
    for program in ("workspace-controller", "workspace-activator", "gpu-provisioner"):
        assert {r for rule in granted[f"{program}-metrics-auth"]["rules"] for r in rule["resources"]} == reviews


@pytest.mark.parametrize("program", ["workspace-controller", "gpu-provisioner"])
def test_the_leader_can_renew_its_lease(program: str) -> None:
    (verbs,) = [r["verbs"] for r in named("Role", "rbac")[program]["rules"] if "leases" in r["resources"]]

    assert {"get", "create", "update"} <= set(verbs)


def test_secrets_are_never_listed_in_the_cluster() -> None:
    for name, role in named("ClusterRole", "rbac").items():
        for rule in role["rules"]:
            assert "secrets" not in rule["resources"] or rule["verbs"] == ["get"], name


def test_the_webhook_reaches_the_controller_and_may_be_rewritten_by_it() -> None:
    declared, of_sets = workspace_webhook(WorkspaceSettings()), inference_set_webhook(WorkspaceSettings())
    container = named("Deployment", "manager")["workspace-controller"]["spec"]["template"]["spec"]["containers"][0]
    expected = {
        "validation.workspace.kaito.sh": (declared.validate_path, "Fail", ["CREATE", "UPDATE"], ["workspaces"]),
        "validation.inferenceset.kaito.sh": (of_sets.validate_path, "Fail", ["CREATE", "UPDATE"], ["inferencesets"]),
        "defaulting.workspace.kaito.sh": (declared.mutate_path, "Ignore", ["CREATE", "UPDATE"], ["workspaces"]),
    }
    configurations = {document["metadata"]["name"]: document for document in documents("webhook")}
    assert configurations.keys() == expected.keys()
    for name, configuration in configurations.items():
        kind = configuration["kind"]
        (webhook,) = configuration["webhooks"]
        service = webhook["clientConfig"]["service"]
        target = named("Service", "manager")[service["name"]]
        port = next(port for port in target["spec"]["ports"] if port["port"] == service["port"])
        writable = [
            allowed
            for rule in named("ClusterRole", "rbac")["workspace-controller"]["rules"]
            for allowed in rule.get("resourceNames", ())
            if f"{kind.lower()}s" in rule["resources"]
        ]
        assert {"name": port["targetPort"], "containerPort": 9443} in container["ports"]
        assert name in writable
        rule = webhook["rules"][0]
        found = (service["path"], webhook["failurePolicy"], rule["operations"], rule["resources"])
        assert found == expected[name], "and a status write must never be refused"


def test_the_local_cluster_has_the_rules_of_the_installation(tmp_path: Path) -> None:
    configured = {document["metadata"]["name"]: document["webhooks"][0] for document in documents("webhook")}
    configurations = LocalWebhook(tmp_path, 9).configurations()
    assert {configuration.name for configuration in configurations} == configured.keys()
    for configuration in configurations:
        local, shipped = configuration.to_dict()["webhooks"][0], configured[configuration.name]
        assert local["clientConfig"]["url"].endswith(shipped["clientConfig"]["service"]["path"])
        for name in ("name", "rules", "failurePolicy", "sideEffects", "timeoutSeconds", "matchPolicy"):
            assert local[name] == shipped[name]


@pytest.mark.parametrize("program", ["workspace", "provisioner"])
def test_an_image_starts_a_program_that_the_package_installs(program: str) -> None:
    dockerfile = (ROOT / f"Dockerfile.{program}").read_text()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (entry,) = re.findall(r'^ENTRYPOINT \["([^"]+)"\]$', dockerfile, flags=re.MULTILINE)

    assert Path(entry).name in scripts
    assert "USER 65532" in dockerfile


def test_the_deployments_start_with_flags_that_exist() -> None:
    from kaito.workspace.flags import parse

    container = named("Deployment", "manager")["workspace-controller"]["spec"]["template"]["spec"]["containers"][0]
    invocation = parse(container["args"], {e["name"]: e["value"] for e in container["env"] if "value" in e})

    assert invocation.workspace.node_api.value == "machine"
    assert invocation.manager.webhook_port == 9443
