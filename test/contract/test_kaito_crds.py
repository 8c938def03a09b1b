"""Kaito's CRDs on both API servers: accepted, the contract's manifests admitted, bad input refused with the remedy.

Nothing of Kaito runs here: what is refused is refused by the API server alone, from the schema and its CEL rules.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.api.crds import manifests
from test.contract.conftest import APPLY, MERGE, Answer, Server

ALPHA = "/apis/kaito.sh/v1alpha1/namespaces/{ns}/workspaces"
BETA = "/apis/kaito.sh/v1beta1/namespaces/{ns}/workspaces"
CLAIMS = "/apis/karpenter.sh/v1/nodeclaims"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SAMPLES = Path(__file__).resolve().parents[2] / "config" / "samples"


async def install(server: Server) -> None:
    """Applies the definitions and waits until they are served."""
    for manifest in manifests():
        name = manifest["metadata"]["name"]
        await server.ok("PATCH", f"{DEFINITIONS}/{name}", manifest, APPLY, fieldManager="contract", force="true")
    for path in (ALPHA, BETA, CLAIMS, "/apis/karpenter.sh/v1alpha5/machines"):
        for _ in range(100):
            if (await server.call("GET", path)).status == 200:
                break
            await asyncio.sleep(0.1)
        else:
            pytest.fail(f"{server.name} does not serve {path}")


def sample(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())
    return document


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7386)."""
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            inner: Any = result.get(key)
            result[key] = merged(inner if isinstance(inner, Mapping) else {}, value)  # pyright: ignore[reportUnknownArgumentType]  # JSON
        else:
            result[key] = value
    return result


def beta(name: str, change: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return merged(sample(name), change or {}) | {"apiVersion": "kaito.sh/v1beta1"}


def causes(answer: Answer) -> dict[str, str]:
    assert answer.status == 422, answer.body
    return {cause["field"]: cause["message"] for cause in answer.body["details"]["causes"]}


FOUNDING = ["workspace-phi-3-mini", "workspace-phi-3-mini-adapter", "workspace-tuning-phi-3"]


async def test_the_founding_manifests_are_admitted_and_read_back_in_both_versions(server: Server) -> None:
    await install(server)
    for name in FOUNDING:
        manifest = sample(name)
        await server.ok("POST", ALPHA, manifest, fieldValidation="Strict")

        old, new = await server.ok("GET", f"{ALPHA}/{name}"), await server.ok("GET", f"{BETA}/{name}")
        assert (old["apiVersion"], new["apiVersion"]) == ("kaito.sh/v1alpha1", "kaito.sh/v1beta1")
        for part in ("resource", "inference", "tuning"):
            assert old.get(part) == new.get(part)
        assert old["resource"]["count"] == 1, "the only default"
        assert old["resource"]["instanceType"] == "Standard_NC6s_v3"


async def test_a_table_has_the_columns_of_the_contract(server: Server) -> None:
    await install(server)
    await server.ok("POST", ALPHA, sample("workspace-phi-3-mini"))
    status = {
        "status": {
            "conditions": [
                {
                    "type": kind,
                    "status": value,
                    "reason": "Because",
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
                for kind, value in (
                    ("ResourceReady", "True"),
                    ("InferenceReady", "False"),
                    ("WorkspaceReady", "Unknown"),
                )
            ]
        }
    }
    await server.ok("PATCH", f"{BETA}/workspace-phi-3-mini/status", status, MERGE)
    for path in (ALPHA, BETA):
        answer = await server.call("GET", path, headers={"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
        shown = [i for i, column in enumerate(answer.body["columnDefinitions"]) if column["priority"] == 0]

        names = [answer.body["columnDefinitions"][i]["name"].upper() for i in shown]
        assert names == ["NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE"]
        cells = [answer.body["rows"][0]["cells"][i] for i in shown]
        assert cells[:5] == ["workspace-phi-3-mini", "Standard_NC6s_v3", "True", "False", "Unknown"]


ADAPTER = {"source": {"name": "a", "image": "registry.example/a:1"}, "strength": "0.5"}
PHI, TUNE = "workspace-phi-3-mini", "workspace-tuning-phi-3"

REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    (PHI, {"metadata": {"name": "a" * 53}}, "", "metadata.name is too long for the Service and pods of that name"),
    (PHI, {"metadata": {"name": "3-phi"}}, "", "metadata.name cannot name a Service: begin with a lower-case letter"),
    (PHI, {"inference": None}, "inference", "neither inference nor tuning is set: set one"),
    (PHI, {"tuning": sample(TUNE)["tuning"]}, "tuning", "inference and tuning are both set: remove one"),
    (PHI, {"resource": None}, "resource", "Required value"),
    (PHI, {"resource": {"labelSelector": None}}, "resource.labelSelector", "Required value"),
    (PHI, {"resource": {"labelSelector": {"matchLabels": None}}}, "resource.labelSelector", "is empty and would match"),
    (
        PHI,
        {"resource": {"labelSelector": {"matchLabels": {"karpenter.sh/nodepool": "x"}}}},
        "resource.labelSelector.matchLabels",
        "has a label key reserved for the controllers",
    ),
    (PHI, {"resource": {"count": 0}}, "resource.count", "greater than or equal to 1"),
    (PHI, {"resource": {"partition": {"mode": "mig"}}}, "resource.partition", "mode mig needs a profile"),
    (PHI, {"inference": {"preset": None}}, "inference", "neither preset nor template is set: name a model"),
    (PHI, {"inference": {"template": {"spec": {}}}}, "inference", "preset and template are both set: remove one"),
    (PHI, {"inference": {"adapters": [ADAPTER] * 2}}, "inference.adapters", "two adapters have the same source.name"),
    (
        PHI,
        {"inference": {"adapters": [merged(ADAPTER, {"source": {"name": f"a{n}"}}) for n in range(11)]}},
        "inference.adapters",
        "must have at most 10 items",
    ),
    (
        PHI,
        {"inference": {"adapters": [merged(ADAPTER, {"strength": "1.1"})]}},
        "inference.adapters[0].strength",
        "must be a number from 0 to 1 as text",
    ),
    (
        PHI,
        {"inference": {"adapters": [merged(ADAPTER, {"source": {"image": None}})]}},
        "inference.adapters[0].source",
        "set exactly one of image and volumeSource",
    ),
    (
        PHI,
        {"inference": {"preset": {"accessMode": "private"}}},
        "inference.preset.presetOptions.image",
        "accessMode private needs presetOptions.image",
    ),
    (
        PHI,
        {"resource": {"instanceTypes": ["Standard_NC6s_v3"]}},
        "resource.instanceTypes",
        "instanceType and instanceTypes are both set: remove one",
    ),
    (
        PHI,
        {"resource": {"instanceType": None, "instanceTypes": ["Standard_NC6s_v3", "standard_nc6s_v3"]}},
        "resource.instanceTypes",
        "names an instance type twice: remove one of them",
    ),
    (
        PHI,
        {"resource": {"instanceType": None, "instanceTypes": [f"Standard_NC{n}" for n in range(17)]}},
        "resource.instanceTypes",
        "must have at most 16 items",
    ),
    (PHI, {"resource": {"capacityType": "cheap"}}, "resource.capacityType", 'supported values: "on-demand"'),
    (PHI, {"resource": {"zones": ["1", "1"]}}, "resource.zones[1]", "Duplicate value"),
    (PHI, {"resource": {"maxHourlyCost": "-1"}}, "resource.maxHourlyCost", "not an amount of money: use a decimal"),
    (TUNE, {"resource": {"count": 2}}, "resource.count", "a tuning Job runs on one node"),
    (TUNE, {"spec": {"replicas": 1}}, "spec.replicas", "a tuning Job is not scaled: remove spec.replicas"),
    (PHI, {"spec": {"replicas": 129}}, "spec.replicas", "less than or equal to 128"),
    (TUNE, {"tuning": {"method": "magic"}}, "tuning.method", "is not a method: use lora or qlora"),
    (TUNE, {"tuning": {"input": {"image": "x"}}}, "tuning.input", "set exactly one of urls, volumeSource and image"),
    (TUNE, {"tuning": {"input": {"urls": ["/a"]}}}, "tuning.input.urls", "must be absolute http or https URLs"),
    (TUNE, {"tuning": {"output": {"imagePushSecret": None}}}, "tuning.output.imagePushSecret", "set both or neither"),
    (
        TUNE,
        {"tuning": {"ttlSecondsAfterFinished": -1}},
        "tuning.ttlSecondsAfterFinished",
        "should be greater than or equal to 0",
    ),
]


async def test_bad_input_is_rejected_by_the_server_alone_with_field_and_remedy(server: Server) -> None:
    await install(server)
    problems: list[str] = []
    for name, change, field, message in REFUSED:
        answer = await server.call("POST", BETA, beta(name, change))
        found = causes(answer) if answer.status == 422 else {"": f"HTTP {answer.status}"}
        place = next(
            (text for where, text in found.items() if where == field or (not field and where in {"", "<nil>"})),
            "",
        )
        if message not in place:
            problems.append(f"{json.dumps(change)[:80]}: wanted {field}: {message}, got {found}")

    assert problems == []


FIXED: list[tuple[str, dict[str, Any], str]] = [
    (PHI, {"resource": {"instanceType": "Standard_NC12s_v3"}}, "resource.instanceType"),
    (PHI, {"resource": {"labelSelector": {"matchLabels": {"more": "x"}}}}, "resource.labelSelector"),
    (PHI, {"resource": {"partition": {"mode": "mig", "profile": "1g.5gb"}}}, "resource.partition"),
    (PHI, {"inference": {"preset": {"name": "phi-4"}}}, "inference.preset.name"),
    (PHI, {"inference": {"preset": None, "template": {"spec": {}}}}, "inference"),
    (TUNE, {"tuning": {"preset": {"name": "phi-4"}}}, "tuning.preset.name"),
    (TUNE, {"tuning": {"method": "lora"}}, "tuning.method"),
    (TUNE, {"tuning": {"input": {"name": "other"}}}, "tuning.input.name"),
]


async def test_what_was_bought_for_cannot_change(server: Server) -> None:
    await install(server)
    for name in (PHI, TUNE):
        await server.ok("POST", BETA, beta(name))
    for name, change, field in FIXED:
        found = causes(await server.call("PATCH", f"{BETA}/{name}", change, MERGE))

        assert list(found) == [field], found
        assert "delete the Workspace and create a new one" in found[field]


async def test_inference_does_not_become_tuning(server: Server) -> None:
    await install(server)
    await server.ok("POST", BETA, beta(PHI))
    change = {"inference": None, "tuning": sample(TUNE)["tuning"]}

    found = causes(await server.call("PATCH", f"{BETA}/{PHI}", change, MERGE))

    assert set(found) == {"inference", "tuning"}


async def test_what_may_change_may(server: Server) -> None:
    await install(server)
    await server.ok("POST", BETA, beta(PHI))
    for change in (
        {"inference": {"adapters": [ADAPTER]}},
        {"inference": {"config": "settings"}},
        {"inference": {"preset": {"presetOptions": {"modelAccessSecret": "rotated"}}}},
        {"resource": {"preferredNodes": ["node-1"]}},
        {"resource": {"count": 3}},
    ):
        await server.ok("PATCH", f"{BETA}/{PHI}", change, MERGE)

    assert (await server.ok("GET", f"{BETA}/{PHI}"))["metadata"]["generation"] == 6


async def test_a_pod_template_and_a_volume_keep_every_field(server: Server) -> None:
    await install(server)
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "x", "fieldOfTomorrow": {"y": 1}}]},
    }
    change = {"inference": {"preset": None, "template": template}}

    stored = await server.ok("POST", BETA, beta(PHI, change))

    assert stored["inference"]["template"] == template


async def test_an_unknown_field_is_rejected_when_the_client_asks_for_strictness(server: Server) -> None:
    await install(server)

    answer = await server.call("POST", BETA, beta(PHI, {"resource": {"instancetype": "x"}}), fieldValidation="Strict")

    assert answer.status == 400
    assert 'unknown field "resource.instancetype"' in answer.body["message"]


async def test_a_node_claim_is_checked_and_never_changes(server: Server) -> None:
    await install(server)
    claim = sample("nodeclaim")
    name = f"ws{server.namespace.removeprefix('t-')}"
    claim["metadata"]["name"] = name
    try:
        await server.ok("POST", CLAIMS, claim)
        change = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
        assert causes(await server.call("PATCH", f"{CLAIMS}/{name}", change, MERGE)) == {
            "spec": _message("spec is immutable")
        }
        empty = [{"key": "node.kubernetes.io/instance-type", "operator": "In"}]
        bad = merged(claim, {"metadata": {"name": f"{name}b"}, "spec": {"requirements": empty}})
        assert causes(await server.call("POST", CLAIMS, bad)) == {
            "spec.requirements": _message("requirements with operator 'In' must have a value defined")
        }
    finally:
        await server.call("DELETE", f"{CLAIMS}/{name}")


class _message(str):  # noqa: N801 - reads as a verb where it is used
    """Equal to every text that contains it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self) in other

    __hash__ = str.__hash__
