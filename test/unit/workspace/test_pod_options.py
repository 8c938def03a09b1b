"""`podOptions` and the installation's defaults reach the pods; what the controller owns cannot be replaced."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.api.workspace import PodOptions
from kaito.models.weights import Weights
from kaito.runtime.kinds import Job, Node, Secret, StatefulSet
from kaito.runtime.testing import builders
from kaito.workspace.classes import RuntimeClass
from kaito.workspace.flags import parse
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.plan import ModelContainer, Plan
from kaito.workspace.pod_options import merge_options, read_defaults
from kaito.workspace.preflight import validate_workspace
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.unit.workspace.input_cases import tuned

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
EVERYTHING: dict[str, Any] = {
    "imagePullSecrets": ["mirror"],
    "resources": {"requests": {"memory": "64Gi"}, "limits": {"memory": "96Gi", "cpu": "500m"}},
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "HOME", "value": "/home/mine"}],
    "serviceAccountName": "model",
    "tolerations": [{"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"}],
    "nodeSelector": {"topology.kubernetes.io/zone": "1"},
    "podSecurityContext": {"fsGroup": 1000},
    "securityContext": {"readOnlyRootFilesystem": False},
    "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/mine", "readOnly": True}],
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "labels": {"team": "a", "kaito.sh/workspace": "other"},
    "annotations": {"note": "mine"},
}


@pytest.fixture
def node_api() -> NodeApi:
    return NodeApi.MACHINE


def with_options(phi: Workspace, options: dict[str, Any], **preset: Any) -> Workspace:
    given = {"name": "phi-3-mini-4k-instruct", "podOptions": options, **preset}
    return phi.evolve(inference={"preset": given})


def rendered(workspace: Workspace, plan: Plan, container: ModelContainer, **defaults: Any) -> dict[str, Any]:
    settings = WorkspaceSettings(pod_defaults=PodOptions.model_validate(defaults))
    weights = Weights(method="Pull", artifact="r.example/phi:1")
    planned = replace(plan, container=replace(container, weights=weights))
    template: dict[str, Any] = inference_stateful_set(workspace, planned, settings).to_dict()["spec"]["template"]
    return template


def test_every_option_reaches_the_pod(phi: Workspace, plan: Plan, model_container: ModelContainer) -> None:
    template = rendered(with_options(phi, EVERYTHING), plan, model_container)
    metadata, spec = template["metadata"], template["spec"]
    assert metadata["labels"] == {"team": "a", "kaito.sh/workspace": NAME}
    assert metadata["annotations"] == {"note": "mine"}
    assert spec["tolerations"][0] == EVERYTHING["tolerations"][0]
    assert len(spec["tolerations"]) == 4
    assert spec["nodeSelector"] == EVERYTHING["nodeSelector"]
    assert spec["securityContext"]["fsGroup"] == 1000
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert (spec["serviceAccountName"], spec["priorityClassName"]) == ("model", "high")
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["automountServiceAccountToken"] is False
    assert EVERYTHING["volumes"][0] in spec["volumes"]
    (server,), (puller,) = spec["containers"], spec["initContainers"]
    for container in (server, puller):
        assert EVERYTHING["volumeMounts"][0] in container["volumeMounts"]
        assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container["env"]
        assert [each["value"] for each in container["env"] if each["name"] == "HOME"] == ["/home/mine"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert server["resources"] == {
        "requests": {"cpu": "500m", "memory": "64Gi", "nvidia.com/gpu": "1"},
        "limits": {"cpu": "500m", "memory": "96Gi", "nvidia.com/gpu": "1"},
    }
    assert puller["resources"] == {"requests": {"memory": "64Gi"}, "limits": {"cpu": "500m", "memory": "96Gi"}}


def test_without_options_nothing_is_added(phi: Workspace, plan: Plan, model_container: ModelContainer) -> None:
    assert rendered(with_options(phi, {}), plan, model_container) == rendered(phi, plan, model_container)


def test_the_workspace_takes_precedence_over_the_installation() -> None:
    defaults = PodOptions.model_validate(EVERYTHING)
    own = PodOptions.model_validate(
        {
            "imagePullSecrets": ["own", "mirror"],
            "resources": {"limits": {"cpu": "4"}},
            "env": [{"name": "HTTPS_PROXY", "value": "http://other:3128"}, {"name": "MINE", "value": "1"}],
            "nodeSelector": {"disk": "fast"},
            "securityContext": {"readOnlyRootFilesystem": True},
            "volumes": [{"name": "ca", "secret": {"secretName": "ca"}}],
            "priorityClassName": "low",
            "labels": {"team": "b"},
        }
    )
    merged = merge_options(defaults, own).to_dict()
    assert merged["imagePullSecrets"] == ["own", "mirror"]
    assert merged["resources"] == {"requests": {"memory": "64Gi"}, "limits": {"memory": "96Gi", "cpu": "4"}}
    values = {each["name"]: each["value"] for each in merged["env"]}
    assert values == {"HTTPS_PROXY": "http://other:3128", "HOME": "/home/mine", "MINE": "1"}
    assert merged["nodeSelector"] == {"topology.kubernetes.io/zone": "1", "disk": "fast"}
    assert merged["securityContext"] == {"readOnlyRootFilesystem": True}
    assert merged["volumes"] == [{"name": "ca", "secret": {"secretName": "ca"}}]
    assert (merged["priorityClassName"], merged["serviceAccountName"]) == ("low", "model")
    assert merged["runtimeClassName"] == "nvidia"
    assert merged["labels"]["team"] == "b"


def test_defaults_do_not_change_a_pod_template(phi: Workspace, plan: Plan) -> None:
    template = {"spec": {"containers": [{"name": "server", "image": "mine:1"}]}}
    workspace = phi.evolve(inference={"template": template})
    settings = WorkspaceSettings(pod_defaults=PodOptions.model_validate(EVERYTHING))
    planned = replace(plan, container=None)
    with_defaults, without = (
        inference_stateful_set(workspace, planned, each).to_dict() for each in (settings, WorkspaceSettings())
    )
    assert with_defaults == without


REJECTED: list[tuple[dict[str, Any], str, str]] = [
    ({"resources": {"limits": {"nvidia.com/gpu": "4"}}}, "resources.limits[nvidia.com/gpu]", "plans the GPUs"),
    ({"resources": {"requests": {"amd.com/gpu": "1"}}}, "resources.requests[amd.com/gpu]", "plans the GPUs"),
    ({"resources": {"requests": {"cpu": "-1"}}}, "resources.requests[cpu]", "cannot be negative"),
    (
        {"resources": {"requests": {"memory": "9Gi"}, "limits": {"memory": "8Gi"}}},
        "resources.requests[memory]",
        "more than the limit 8Gi",
    ),
    ({"env": [{"name": "KAITO_ADAPTER_STRENGTHS", "value": "{}"}]}, "env[0].name", "set by the controller"),
    ({"env": [{"name": "HF_TOKEN", "value": "x"}]}, "env[0].name", "presetOptions.modelAccessSecret"),
    ({"env": [{"name": "A=B", "value": "x"}]}, "env[0].name", "not the name of an environment variable"),
    ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "env[1].name", "set twice"),
    ({"env": [{"name": "A", "value": "1", "valueFrom": {}}]}, "env[0].valueFrom", "remove one"),
    ({"tolerations": [{"value": "a"}]}, "tolerations[0].key", "name the taint, or set operator to Exists"),
    ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "tolerations[0].value", "no effect"),
    ({"podSecurityContext": {"runAsUser": 0}}, "podSecurityContext.runAsUser", "set runAsNonRoot to false"),
    ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser", "set runAsNonRoot to false"),
    ({"securityContext": {"privileged": "perhaps"}}, "securityContext.privileged", "should be a valid boolean"),
    ({"volumes": [{"name": "dshm", "emptyDir": {}}]}, "volumes[0].name", "is a volume of the controller"),
    ({"volumes": [{"name": "adapter-volume-a", "emptyDir": {}}]}, "volumes[0].name", "volume of the controller"),
    ({"volumes": [{"name": "A", "emptyDir": {}}]}, "volumes[0].name", "is not a name"),
    ({"volumes": [{"name": "a"}]}, "volumes[0]", "has no source"),
    ({"volumes": [{"name": "a", "emptydir": {}}]}, "volumes[0].emptydir", "did you mean emptyDir?"),
    ({"volumeMounts": [{"name": "a", "mountPath": "/a"}]}, "volumeMounts[0].name", "is not a volume of podOptions"),
    ({"labels": {"karpenter.sh/nodepool": "x"}}, "labels[karpenter.sh/nodepool]", "set by the controller"),
    ({"labels": {"kaito.sh/workspace": "x"}}, "labels[kaito.sh/workspace]", "set by the controller"),
    ({"labels": {"inferenceset.kaito.sh/created-by": "x"}}, "labels[inferenceset.kaito.sh/created-by]", "controller"),
    ({"labels": {"kaito.sh/installation": "true"}}, "labels[kaito.sh/installation]", "set by the controller"),
    ({"annotations": {"workspace.kaito.sh/x": "x"}}, "annotations[workspace.kaito.sh/x]", "set by the controller"),
    ({"annotations": {"kaito.sh/config-hash": "x"}}, "annotations[kaito.sh/config-hash]", "set by the controller"),
    ({"imagePullSecrets": ["A b"]}, "imagePullSecrets[0]", "cannot be the name of a Secret"),
    ({"serviceAccountName": "A b"}, "serviceAccountName", "cannot be the name of a ServiceAccount"),
    ({"priorityClassName": "A b"}, "priorityClassName", "cannot be the name of a PriorityClass"),
    ({"runtimeClassName": "A b"}, "runtimeClassName", "cannot be the name of a RuntimeClass"),
]


@pytest.mark.parametrize(("options", "field", "words"), REJECTED)
def test_options_that_cannot_work_are_rejected_at_admission(
    phi: Workspace, options: dict[str, Any], field: str, words: str
) -> None:
    found = validate_workspace(with_options(phi, options), None, WorkspaceSettings())
    errors = [violation for violation in found if violation.severity == "error"]
    assert [violation.field for violation in errors] == [f"inference.preset.podOptions.{field}"]
    assert words in errors[0].message


@pytest.mark.parametrize(
    ("directory", "hidden"),
    [
        ("/workspace", "/workspace"),
        ("/workspace/tfs", "/workspace"),
        ("/mnt", "/mnt/adapter"),
        ("/mnt/config/", "/mnt/config"),
        ("/", "/dev/shm"),
        ("/tmp", "/tmp"),
        ("relative", None),
        ("/mnt/own", ""),
        ("/mnt/configuration", ""),
        ("/tmp/cache", ""),
    ],
)
def test_mounts_do_not_hide_those_of_the_controller(phi: Workspace, directory: str, hidden: str | None) -> None:
    options: dict[str, Any] = {
        "volumes": [{"name": "a", "emptyDir": {}}],
        "volumeMounts": [{"name": "a", "mountPath": directory}],
    }
    found = [str(v) for v in validate_workspace(with_options(phi, options), None, WorkspaceSettings())]
    if hidden is None:
        assert "is not an absolute path" in found[0]
    else:
        assert bool(found) is bool(hidden)
        assert not hidden or f"hides {hidden}, which the controller mounts" in found[0]


def test_mounts_may_name_volumes_of_the_installation(phi: Workspace) -> None:
    options = {"volumeMounts": [{"name": "ca", "mountPath": "/a"}]}
    defaults = PodOptions.model_validate({"volumes": EVERYTHING["volumes"]})
    assert not validate_workspace(with_options(phi, options), None, WorkspaceSettings(pod_defaults=defaults))
    assert validate_workspace(with_options(phi, options), None, WorkspaceSettings())


# -- the file of the installation --


def test_the_file_with_the_defaults_is_read_once_at_start(tmp_path: Path) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text("imagePullSecrets: [mirror]\nenv: [{name: HTTPS_PROXY, value: 'http://p:1'}]\nlabels: null\n")
    found = parse([f"--pod-defaults={file}"], {}).workspace.pod_defaults
    assert found.image_pull_secrets == ["mirror"]
    assert [(each.name, each.value) for each in found.env] == [("HTTPS_PROXY", "http://p:1")]
    file.write_text("")
    assert read_defaults(file) == PodOptions()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a]", "does not contain podOptions: it must be a YAML mapping"),
        ("a: [", "cannot be read"),
        ("command: [sh]", "command is not a field of podOptions: use annotations, env, imagePullSecrets"),
        ("resources: {limit: {cpu: 1}}", "resources.limit is not a field"),
        ("resources: {limits: {cpu: many}}", "resources.limits.cpu"),
        ("resources: {limits: {nvidia.com/gpu: 1}}", "resources.limits[nvidia.com/gpu]: is set by the controller"),
        ("volumeMounts: [{name: a, mountPath: /a}]", "volumeMounts[0].name: 'a' is not a volume of podOptions"),
    ],
)
def test_a_wrong_file_ends_the_start_with_the_field(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        parse([f"--pod-defaults={file}"], {})
    assert stopped.value.code == 2
    output = capsys.readouterr().err
    assert f"--pod-defaults: {file}" in output
    assert words in output


def test_a_missing_file_ends_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([f"--pod-defaults={tmp_path / 'absent'}"], {})
    assert "cannot be read" in capsys.readouterr().err


# -- the controller --


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"imagePullSecrets": ["absent"]}, "imagePullSecrets[0]", "Secret 'absent' does not exist"),
        ({"serviceAccountName": "absent"}, "serviceAccountName", "ServiceAccount 'absent' does not exist"),
        ({"priorityClassName": "absent"}, "priorityClassName", "PriorityClass 'absent' does not exist in the cluster"),
        ({"runtimeClassName": "absent"}, "runtimeClassName", "RuntimeClass 'absent' does not exist in the cluster"),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "a"}}}]},
            "env[0].valueFrom.secretKeyRef.name",
            "Secret 'absent' does not exist",
        ),
        (
            {"volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "absent"}}]},
            "volumes[0].persistentVolumeClaim.claimName",
            "PersistentVolumeClaim 'absent' does not exist",
        ),
        ({"resources": {"requests": {"memory": "4Ti"}}}, "resources", "requests 4096 GiB of memory"),
        ({"nodeSelector": {"apps": "other"}}, "nodeSelector[apps]", "but the Workspace's nodes have 'phi-3'"),
        ({"nodeSelector": {"mine": "x"}}, "nodeSelector[mine]", "is a label that no new node has"),
    ],
)
async def test_options_that_need_what_does_not_exist_buy_no_node(
    cluster: "Cluster", phi: Workspace, options: dict[str, Any], field: str, words: str
) -> None:
    cluster.apply(with_options(phi, options))
    async with cluster.controller():
        await cluster.world.advance(30)
        assert cluster.claims() == []
        message = cluster.conditions()["ResourceReady"][2]
        assert f"inference.preset.podOptions.{field}" in message
        assert words in message


async def test_classes_that_exist_or_are_created_later_are_used(cluster: "Cluster", phi: Workspace) -> None:
    options = {"priorityClassName": "system-cluster-critical", "runtimeClassName": "nvidia"}
    cluster.apply(with_options(phi, options))
    async with cluster.controller():
        await cluster.world.advance(30)
        assert "RuntimeClass 'nvidia'" in cluster.conditions()["ResourceReady"][2]
        cluster.world.put(RuntimeClass.model_validate({"metadata": {"name": "nvidia"}, "handler": "nvidia"}))
        await cluster.world.advance(120)
        assert len(cluster.claims()) == 1


async def test_the_classes_of_a_pod_template_must_exist(cluster: "Cluster", phi: Workspace) -> None:
    spec = {"containers": [{"name": "model", "image": "model"}], "priorityClassName": "absent"}
    template = {"inference": {"template": {"spec": spec}}}
    cluster.apply(Workspace.model_validate(phi.to_dict() | template))
    async with cluster.controller():
        await cluster.world.advance(30)
        assert cluster.claims() == []
        message = cluster.conditions()["ResourceReady"][2]
        assert "inference.template.spec.priorityClassName: PriorityClass 'absent' does not exist" in message


async def test_what_the_defaults_need_is_reported_under_their_flag(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    defaults = PodOptions.model_validate({"imagePullSecrets": ["mirror"]})
    async with cluster.controller(WorkspaceSettings(pod_defaults=defaults)):
        await cluster.world.advance(30)
        assert cluster.claims() == []
        assert "--pod-defaults.imagePullSecrets[0]: Secret 'mirror'" in cluster.conditions()["ResourceReady"][2]
        cluster.world.put(
            Secret.model_validate(
                {
                    "metadata": {"name": "mirror", "namespace": "default"},
                    "type": "kubernetes.io/dockerconfigjson",
                    "data": {".dockerconfigjson": "eyJhdXRocyI6e319"},
                }
            )
        )
        await cluster.world.advance(30)
        assert len(cluster.claims()) == 1


@pytest.mark.parametrize(("tolerations", "ready"), [([], "False"), ([{"key": "team", "operator": "Exists"}], "True")])
async def test_a_node_with_a_tolerated_taint_is_usable(
    cluster: "Cluster", phi: Workspace, tolerations: list[dict[str, str]], ready: str
) -> None:
    node = builders.node(
        "own",
        labels={"apps": "phi-3", labels.INSTANCE_TYPE: "Standard_NC24ads_A100_v4"},
        capacity={labels.NVIDIA_GPU: "1"},
    )
    taints = [{"key": "team", "value": "a", "effect": "NoSchedule"}]
    cluster.world.put(Node.model_validate(node.to_dict() | {"spec": {"taints": taints}}))
    workspace = with_options(phi, {"tolerations": tolerations})
    cluster.apply(workspace.evolve(resource=workspace.resource.evolve(instance_type="")))
    async with cluster.controller(WorkspaceSettings(node_api=NodeApi.BYO)):
        await cluster.world.advance(30)
        assert cluster.conditions()["ResourceReady"][0] == ready
        assert bool(cluster.world.list(StatefulSet)) is (ready == "True")


async def test_a_node_selector_that_no_existing_node_has_is_reported(cluster: "Cluster", phi: Workspace) -> None:
    node_labels = {"apps": "phi-3", labels.INSTANCE_TYPE: "Standard_NC24ads_A100_v4"}
    cluster.world.put(builders.node("own", labels=node_labels, capacity={labels.NVIDIA_GPU: "1"}))
    workspace = with_options(phi, {"nodeSelector": {"disk": "fast"}})
    cluster.apply(workspace.evolve(resource=workspace.resource.evolve(instance_type="")))
    async with cluster.controller(WorkspaceSettings(node_api=NodeApi.BYO)):
        await cluster.world.advance(30)
        message = cluster.conditions()["ResourceReady"][2]
        assert "podOptions.nodeSelector: no node that resource.labelSelector matches has disk=fast" in message


async def test_a_tuning_run_survives_an_upgrade_and_not_an_edit(cluster: "Cluster", phi: Workspace) -> None:
    part = tuned(output={"volumeSource": {"emptyDir": {}}})
    cluster.apply(Workspace.model_validate({**phi.to_dict(), "inference": None, **part}))
    async with cluster.controller():
        await cluster.world.settle()
        for claim in cluster.claims():
            cluster.join(claim)
        await cluster.world.advance(30)
        job = cluster.world.get(Job, NAME)
    upgraded = WorkspaceSettings(
        serving_image="other.example/kaito-serving:2", pod_defaults=PodOptions.model_validate({"labels": {"a": "b"}})
    )
    async with cluster.controller(upgraded):
        await cluster.world.advance(120)
        assert cluster.world.get(Job, NAME).uid == job.uid
        cluster.world.patch(Workspace, NAME, {"tuning": {"preset": {"podOptions": {"labels": {"a": "c"}}}}})
        await cluster.world.advance(120)
        found = cluster.world.list(Job)
        assert all(each.uid != job.uid or each.deleting for each in found)
