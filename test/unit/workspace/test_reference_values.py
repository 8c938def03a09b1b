"""Which objects a Workspace uses, by field, and the paths of what the API server would reject in a pod template."""

from typing import Any

import pytest

from kaito.api import Workspace
from kaito.api.workspace.pod_options import PodOptions
from kaito.workspace.preflight.objects import Use, uses
from kaito.workspace.preflight.pod_rules import pod_rules
from test.unit.workspace.input_cases import SIZE, adapter, template, tuned

ADAPTER = "inference.adapters[0].source"
VOLUME = f"{ADAPTER}.volumeSource"
POD = "inference.template.spec"


def used(part: dict[str, Any]) -> list[Use]:
    document = {
        "metadata": {"name": "w", "namespace": "default"},
        "resource": {"instanceType": SIZE, "labelSelector": {"matchLabels": {"apps": "w"}}},
        **part,
    }
    return list(uses(Workspace.model_validate(document), PodOptions()))


def credentials(field: str, name: str, image: str = "") -> Use:
    return Use(field, "Secret", name, ".dockerconfigjson", credentials=True, image=image)


def projected(*sources: dict[str, Any]) -> dict[str, Any]:
    return adapter(volumeSource={"projected": {"sources": list(sources)}})


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (tuned(), [credentials("tuning.output.imagePushSecret", "push", "registry.example.com/adapter:1")]),
        (
            adapter(image="registry.example.com/a:1", imagePullSecrets=["a", "b"]),
            [credentials(f"{ADAPTER}.imagePullSecrets[{index}]", name) for index, name in enumerate("ab")],
        ),
        (adapter(volumeSource={"secret": {"secretName": "s"}}), [Use(f"{VOLUME}.secret.secretName", "Secret", "s")]),
        (adapter(volumeSource={"secret": {"secretName": "s", "optional": True}}), []),
        (
            adapter(volumeSource={"secret": {"secretName": "s", "items": [{"key": "a", "path": "a"}]}}),
            [Use(f"{VOLUME}.secret.secretName", "Secret", "s", "a")],
        ),
        (
            adapter(volumeSource={"configMap": {"name": "c", "items": [{"key": k, "path": k} for k in "ab"]}}),
            [Use(f"{VOLUME}.configMap.name", "ConfigMap", "c", key) for key in "ab"],
        ),
        (
            adapter(volumeSource={"persistentVolumeClaim": {"claimName": "p"}}),
            [Use(f"{VOLUME}.persistentVolumeClaim.claimName", "PersistentVolumeClaim", "p")],
        ),
        (
            adapter(volumeSource={"azureFile": {"secretName": "s", "shareName": "x"}}),
            [Use(f"{VOLUME}.azureFile.secretName", "Secret", "s")],
        ),
        (
            adapter(volumeSource={"csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}),
            [Use(f"{VOLUME}.csi.nodePublishSecretRef.name", "Secret", "s")],
        ),
        (
            projected({"secret": {"name": "s"}}, {"configMap": {"name": "c"}}),
            [
                Use(f"{VOLUME}.projected.sources[0].secret.name", "Secret", "s"),
                Use(f"{VOLUME}.projected.sources[1].configMap.name", "ConfigMap", "c"),
            ],
        ),
        (
            template(container={"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            [Use(f"{POD}.containers[0].env[0].valueFrom.secretKeyRef.name", "Secret", "s", "k")],
        ),
        (
            template(container={"envFrom": [{"configMapRef": {"name": "c"}}]}),
            [Use(f"{POD}.containers[0].envFrom[0].configMapRef.name", "ConfigMap", "c")],
        ),
        (
            template(serviceAccountName="a", priorityClassName="p", runtimeClassName="r"),
            [
                Use(f"{POD}.serviceAccountName", "ServiceAccount", "a"),
                Use(f"{POD}.priorityClassName", "PriorityClass", "p"),
                Use(f"{POD}.runtimeClassName", "RuntimeClass", "r"),
            ],
        ),
        (template(serviceAccountName="default", priorityClassName="system-node-critical"), []),
        (template(imagePullSecrets=[{"name": "s"}]), [Use(f"{POD}.imagePullSecrets[0].name", "Secret", "s")]),
    ],
    ids=lambda value: None,
)
def test_each_field_that_names_an_object_is_a_use(part: dict[str, Any], expected: list[Use]) -> None:
    assert used(part) == expected


def device(**parts: str) -> dict[str, Any]:
    return {"resources": {part: {"nvidia.com/gpu": amount} for part, amount in parts.items()}}


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"tolerations": [{}, {"operator": "Is"}]}, "tolerations[1].operator", "'Is' is not allowed: use "),
        ({"containers": [{"name": "A"}]}, "containers[0].name", "'A' is not a name"),
        ({"initContainers": [{"name": "a"}], "containers": [{"name": "a"}]}, "containers[0].name", "'a' is used twice"),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, "volumes[1].name", "'v' is used twice"),
        (
            {"containers": [{"name": "a", "ports": [{"containerPort": 0}]}]},
            "containers[0].ports[0].containerPort",
            "is 0",
        ),
        ({"terminationGracePeriodSeconds": -1}, "terminationGracePeriodSeconds", "is -1: use a number from 0 to "),
        ({"topologySpreadConstraints": [{"maxSkew": 0}]}, "topologySpreadConstraints[0].maxSkew", "is 0: use a number"),
        (
            {"containers": [{"name": "a", **device(limits="1", requests="-1")}]},
            "containers[0].resources.requests[nvidia.com/gpu]",
            "is -1: an amount cannot be negative",
        ),
        (
            {"containers": [{"name": "a", **device(limits="1500m", requests="1500m")}]},
            "containers[0].resources.limits[nvidia.com/gpu]",
            "use a whole number of devices",
        ),
        (
            {"containers": [{"name": "a", **device(limits="2", requests="1")}]},
            "containers[0].resources.requests[nvidia.com/gpu]",
            "is 1, but the limit is 2: set limits[nvidia.com/gpu] to the same number",
        ),
    ],
    ids=lambda value: None,
)
def test_what_the_api_server_would_reject_is_named_by_its_path(spec: dict[str, Any], field: str, words: str) -> None:
    found = [*pod_rules({"spec": spec}, "inference.template")]
    assert [
        each.message for each in found if each.field == f"inference.template.spec.{field}" and words in each.message
    ]
    assert {each.reason for each in found} == {"WorkloadRefused"}


def test_a_template_that_breaks_no_rule_has_no_finding() -> None:
    spec = {
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        "initContainers": [{"name": "a"}],
        "containers": [{"name": "b", "ports": [{"containerPort": 65535}], **device(limits="1", requests="1")}],
        "volumes": [{"name": "a"}],
    }
    assert [*pod_rules({"metadata": {"labels": {"a.b/c": "d"}}, "spec": spec}, "inference.template")] == []
