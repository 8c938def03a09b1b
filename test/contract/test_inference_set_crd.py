"""The CRD of InferenceSets on both API servers: defaults, refusals, columns, and the scale subresource."""

from typing import Any

import pytest

from kaito.runtime.client.patch import contains
from test.contract.conftest import MERGE, Server
from test.contract.test_kaito_crds import causes, install, merged, sample

SETS = "/apis/kaito.sh/v1beta1/namespaces/{ns}/inferencesets"
ALPHA_SETS = "/apis/kaito.sh/v1alpha1/namespaces/{ns}/inferencesets"
NAME = "phi-3-mini"


def manifest(change: dict[str, Any] | None = None, version: str = "v1beta1") -> dict[str, Any]:
    return merged(sample("inferenceset-phi-3-mini"), change or {}) | {"apiVersion": f"kaito.sh/{version}"}


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
async def test_a_set_has_the_defaults_of_upstream_in_both_versions(server: Server, version: str) -> None:
    await install(server)
    path = SETS.replace("v1beta1", version)
    minimal = manifest({"spec": {"replicas": None, "nodeCountLimit": None}}, version)
    await server.ok("POST", path, minimal, fieldValidation="Strict")
    old, new = await server.ok("GET", f"{ALPHA_SETS}/{NAME}"), await server.ok("GET", f"{SETS}/{NAME}")
    assert old["spec"] == new["spec"]
    assert new["spec"]["replicas"] == 1
    assert new["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    assert new["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 1
    assert "autoUpgrade" not in new["spec"]


UPSTREAM: dict[str, Any] = {
    "kind": "InferenceSet",
    "metadata": {
        "name": NAME,
        "annotations": {
            "scaledobject.kaito.sh/auto-provision": "true",
            "scaledobject.kaito.sh/metricName": "vllm:num_requests_waiting",
            "scaledobject.kaito.sh/threshold": "10",
        },
    },
    "spec": {
        "replicas": 2,
        "nodeCountLimit": 10,
        "labelSelector": {"matchLabels": {"apps": NAME}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "autoUpgrade": {
            "enabled": True,
            "strategy": "Surge",
            "maintenanceWindow": {"schedule": "0 2 * * 6", "duration": "4h"},
        },
        "template": {
            "metadata": {"labels": {"team": "search"}, "annotations": {"kaito.sh/runtime": "vllm"}},
            "resource": {"instanceType": "Standard_NC24ads_A100_v4"},
            "inference": {
                "preset": {"name": "phi-4-mini-instruct", "presetOptions": {"modelAccessSecret": "token"}},
                "adapters": [{"source": {"name": "adapter", "image": "registry.example/adapter:1"}, "strength": "1.0"}],
                "config": "inference-config",
            },
        },
    },
}
"""Every field of upstream's InferenceSet that has an effect."""


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
async def test_a_set_with_every_field_of_upstream_is_stored_as_it_stands(server: Server, version: str) -> None:
    await install(server)
    given = UPSTREAM | {"apiVersion": f"kaito.sh/{version}"}
    await server.ok("POST", SETS.replace("v1beta1", version), given, fieldValidation="Strict")
    for path in (SETS, ALPHA_SETS):
        stored = await server.ok("GET", f"{path}/{NAME}")
        assert contains(stored, {"spec": given["spec"], "metadata": given["metadata"]})


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"metadata": {"name": "3-phi"}}, "<nil>", "metadata.name cannot name a Service"),
        ({"metadata": {"name": "a" * 48}}, "<nil>", "metadata.name is too long"),
        ({"spec": {"replicas": -1}}, "spec.replicas", "greater than or equal to 0"),
        ({"spec": {"replicas": 1001}}, "spec.replicas", "less than or equal to 1000"),
        ({"spec": {"nodeCountLimit": -1}}, "spec.nodeCountLimit", "greater than or equal to 0"),
        ({"spec": {"labelSelector": None}}, "spec.labelSelector", "Required value"),
        ({"spec": {"labelSelector": {"matchLabels": None}}}, "spec.labelSelector", "is empty and would match"),
        ({"spec": {"template": None}}, "spec.template", "Required value"),
        ({"spec": {"template": {"inference": None}}}, "spec.template.inference", "Required value"),
        (
            {"spec": {"template": {"inference": {"preset": None}}}},
            "spec.template.inference",
            "neither preset nor template is set",
        ),
        ({"spec": {"updateStrategy": {"type": "Recreate"}}}, "spec.updateStrategy.type", "supported values"),
        (
            {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"maxSurge": 1}}}},
            "spec.updateStrategy.rollingUpdate",
            "belongs to type RollingUpdate",
        ),
        (
            {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}},
            "spec.updateStrategy.rollingUpdate.partition",
            "is not supported",
        ),
        ({"spec": {"autoUpgrade": {"strategy": "Fast"}}}, "spec.autoUpgrade.strategy", "supported values"),
    ],
)
async def test_a_wrong_field_is_refused_with_its_path(
    server: Server, change: dict[str, Any], field: str, message: str
) -> None:
    await install(server)
    found = causes(await server.call("POST", SETS, manifest(change)))
    assert field in found
    assert message in found[field]


async def test_the_template_of_a_set_may_change_entirely(server: Server) -> None:
    await install(server)
    await server.ok("POST", SETS, manifest())
    change = {
        "spec": {
            "labelSelector": {"matchLabels": {"apps": "other"}},
            "template": {
                "resource": {"instanceType": "Standard_NC24ads_A100_v4"},
                "inference": {"preset": {"name": "phi-3-mini-128k-instruct"}},
            },
        }
    }
    changed = await server.ok("PATCH", f"{SETS}/{NAME}", change, MERGE)
    assert changed["spec"]["template"]["inference"]["preset"]["name"] == "phi-3-mini-128k-instruct"


async def test_autoscalers_read_and_write_the_scale_subresource(server: Server) -> None:
    await install(server)
    await server.ok("POST", SETS, manifest())
    selector = f"inferenceset.kaito.sh/created-by={NAME}"
    status = {"status": {"replicas": 2, "selector": selector}}
    await server.ok("PATCH", f"{SETS}/{NAME}/status", status, MERGE)
    for path in (SETS, ALPHA_SETS):
        scale = await server.ok("GET", f"{path}/{NAME}/scale")
        assert (scale["spec"]["replicas"], scale["status"]) == (2, {"replicas": 2, "selector": selector})
    await server.ok("PATCH", f"{SETS}/{NAME}/scale", {"spec": {"replicas": 5}}, MERGE)
    assert (await server.ok("GET", f"{SETS}/{NAME}"))["spec"]["replicas"] == 5


async def test_a_table_has_the_columns_of_upstream(server: Server) -> None:
    await install(server)
    await server.ok("POST", SETS, manifest())
    await server.ok("PATCH", f"{SETS}/{NAME}/status", {"status": {"readyReplicas": 1}}, MERGE)
    answer = await server.call("GET", SETS, headers={"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    shown = [i for i, column in enumerate(answer.body["columnDefinitions"]) if column["priority"] == 0]
    names = [answer.body["columnDefinitions"][i]["name"] for i in shown]
    assert [name.upper() for name in names] == ["NAME", "REPLICAS", "READYREPLICAS", "AGE"]
    assert [answer.body["rows"][0]["cells"][i] for i in shown][:3] == [NAME, 2, 1]
