"""Creation, scaling and deletion through the console, and plans of drafts."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import yaml

from kaito.api import Workspace
from kaito.console.settings import ConsoleSettings
from test.unit.console.conftest import SIZE, WRITE, Scene, opened, ready, workspace
from test.unit.console.test_start_times import claim, pod

DRAFT = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: phi}
resource: {instanceType: Standard_NC24ads_A100_v4, labelSelector: {matchLabels: {apps: phi}}}
inference: {preset: {name: phi-3-mini-4k-instruct}}
"""

SET = """
apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata: {name: phi}
spec:
  replicas: 2
  labelSelector: {matchLabels: {apps: phi}}
  template:
    resource: {instanceType: Standard_NC24ads_A100_v4}
    inference: {preset: {name: phi-3-mini-4k-instruct}}
"""


async def post(scene: Scene, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    async with scene.browser.post(scene.url + path, json=body, headers=WRITE if headers is None else headers) as answer:
        return answer.status, await answer.json()


async def test_a_workspace_is_created_scaled_and_deleted(scene: Scene) -> None:
    assert await post(scene, "/api/workspaces", {"yaml": DRAFT}) == (201, {"namespace": "default", "name": "phi"})
    stored = await scene.client.get(Workspace, "phi", "default")
    assert stored.preset_name == "phi-3-mini-4k-instruct"
    status, body = await post(scene, "/api/workspaces", {"yaml": DRAFT})
    assert (status, body["field"]) == (409, "metadata.name")
    assert (await post(scene, "/api/workspaces/default/phi/scale", {"copies": 2}))[0] == 200
    assert (await scene.client.get(Workspace, "phi", "default")).spec.replicas == 2
    async with scene.browser.delete(f"{scene.url}/api/workspaces/default/phi", headers=WRITE) as answer:
        assert answer.status == 202
    assert await scene.client.find(Workspace, "phi", "default") is None
    async with scene.browser.delete(f"{scene.url}/api/workspaces/default/phi", headers=WRITE) as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("text", "status", "field"),
    [
        ("a: b: c", 400, "yaml"),
        ("", 400, "yaml"),
        (SET, 400, "yaml"),
        (DRAFT + "---" + DRAFT.replace("name: phi}\n", "name: other}\n"), 400, "yaml"),
        (DRAFT.replace("resource:", "resources:"), 422, "resource"),
        (DRAFT + "surprise: 1\n", 422, "surprise"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n" + DRAFT, 400, "yaml"),
        (DRAFT + f"# {'x' * 131_072}\n", 413, "yaml"),
        ("- " * 60_000, 400, "yaml"),
        ("a: \0", 400, "yaml"),
        ("\ud800", 400, "yaml"),  # half a character
        (DRAFT.replace("{name: phi}", "{name: Phi}"), 422, "metadata.name"),
        (DRAFT.replace("{name: phi}", "{namespace: absent, name: phi}"), 404, ""),
        (DRAFT.replace("{name: phi}", "{namespace: 'x/../y', name: phi}"), 422, "metadata.namespace"),
    ],
)
async def test_a_wrong_manifest_is_refused(scene: Scene, text: str, status: int, field: str) -> None:
    found, body = await post(scene, "/api/workspaces", {"yaml": text})
    assert (found, body.get("field", "")) == (status, field), body
    assert body["error"]


async def test_a_set_is_neither_planned_nor_written_as_its_first_workspace(scene: Scene) -> None:
    _, plan = await post(scene, "/api/plan", {"yaml": SET})
    assert not plan["ok"]
    assert "InferenceSet" in plan["refusals"][0]["message"]
    _, body = await post(scene, "/api/workspaces", {"yaml": SET})
    assert "InferenceSet" in body["error"]
    assert await scene.client.list(Workspace) == []


async def test_requests_without_the_header_or_the_right_write_nothing(scene: Scene) -> None:
    assert (await post(scene, "/api/workspaces", {"yaml": DRAFT}, headers={}))[0] == 403
    async with scene.browser.post(f"{scene.url}/api/workspaces", data=DRAFT, headers=WRITE) as answer:
        assert answer.status == 415
    async with AsyncExitStack() as stack:
        other = await opened(stack, ConsoleSettings(port=0))
        status, body = await post(other, "/api/workspaces", {"yaml": DRAFT})
        assert status == 403
        assert "--allow-writes" in body["error"]
    assert await scene.client.list(Workspace) == []


@pytest.mark.parametrize("copies", [-1, 1001, True, "2", None, 1.5])
async def test_a_wrong_number_of_copies_is_refused(scene: Scene, copies: object) -> None:
    await scene.client.create(workspace())
    status, body = await post(scene, "/api/workspaces/default/phi/scale", {"copies": copies})
    assert (status, body["field"]) == (400, "copies")


async def in_chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size >> 16):
        yield b"x" * 2**16


@pytest.mark.parametrize("path", ["/api/workspaces", "/api/plan", "/api/workspaces/default/phi/chat"])
@pytest.mark.parametrize("chunked", [True, False])
async def test_large_bodies_are_refused(scene: Scene, path: str, *, chunked: bool) -> None:
    size = 10 * 2**20
    data = in_chunks(size) if chunked else io.BytesIO(b"x" * size)
    headers = {**WRITE, "Content-Type": "application/json"}
    async with scene.browser.post(scene.url + path, data=data, headers=headers) as answer:
        assert answer.status == 413
        assert "1 MiB" in (await answer.json())["error"]


async def test_a_draft_is_planned(scene: Scene) -> None:
    status, plan = await post(scene, "/api/plan", {"yaml": DRAFT})
    assert status == 200
    assert (plan["ok"], plan["nodes"], plan["instanceType"]) == (True, 1, "Standard_NC24ads_A100_v4")
    assert {part["part"] for part in plan["memory"]} >= {"weights", "key-value cache"}
    assert {each["kind"] for each in plan["objects"]} >= {"Workspace", "Machine", "StatefulSet", "Service"}
    assert "planned" in plan["text"]
    assert await scene.client.list(Workspace) == []


async def test_the_plan_says_how_long_the_same_took_before(scene: Scene) -> None:
    status, plan = await post(scene, "/api/plan", {"yaml": DRAFT})
    assert (status, plan["timeToReady"]) == (200, None)
    await scene.client.create(workspace("before"))
    node = await scene.client.create(claim(140, size=SIZE))
    created = node.metadata.creation_timestamp
    assert created is not None
    await scene.client.update_status(node.evolve(status=claim(140, start=created).status))
    server = await scene.client.create(pod(60, of="before"))
    await scene.client.update_status(server.evolve(status=pod(60).status))
    async with asyncio.timeout(20):
        while plan["timeToReady"] is None:
            _, plan = await post(scene, "/api/plan", {"yaml": DRAFT})
    parts = [{"label": "node", "seconds": 140}, {"label": "server", "seconds": 60}]
    assert plan["timeToReady"] == {"seconds": 200, "parts": parts}
    _, refused = await post(scene, "/api/plan", {"yaml": DRAFT.replace("Standard_NC24ads_A100_v4", "Standard_D2s_v5")})
    assert refused["timeToReady"] is None


async def test_a_draft_that_is_refused_names_the_field(scene: Scene) -> None:
    _, plan = await post(scene, "/api/plan", {"yaml": DRAFT.replace("Standard_NC24ads_A100_v4", "Standard_D2s_v5")})
    assert plan["ok"] is False
    assert [refusal["field"] for refusal in plan["refusals"]] == ["resource.instanceType"]
    _, plan = await post(scene, "/api/plan", {"yaml": "not: a workspace"})
    assert plan["ok"] is False
    assert plan["refusals"]


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ("{}", "metadata.name"),
        ("{generateName: phi-}", "metadata.name"),
        ("{name: Phi}", "metadata.name"),
        ("{name: phi, namespace: absent}", "metadata.namespace"),
        ("{name: phi, namespace: '../x'}", "metadata.namespace"),
    ],
)
async def test_a_draft_that_is_being_typed_is_refused_by_field(scene: Scene, metadata: str, field: str) -> None:
    status, plan = await post(scene, "/api/plan", {"yaml": DRAFT.replace("{name: phi}", metadata)})
    assert (status, plan["ok"]) == (200, False)
    assert plan["refusals"][0]["field"] == field
    assert (plan["nodes"] == 1) == (metadata in {"{}", "{generateName: phi-}"})


@pytest.mark.parametrize("metadata", ["{name: Phi}", "{name: phi, namespace: '../x'}"])
async def test_refused_name_is_not_preceded_by_its_field_twice(scene: Scene, metadata: str) -> None:
    _, plan = await post(scene, "/api/plan", {"yaml": DRAFT.replace("{name: phi}", metadata)})
    for refusal in plan["refusals"]:
        assert not refusal["message"].startswith(refusal["field"])
        assert f"{refusal['field']}: {refusal['message']}" in plan["text"]


async def test_draft_with_the_name_of_a_workspace_is_refused_by_its_name(scene: Scene) -> None:
    await scene.client.create(workspace())
    other = DRAFT.replace("Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5")
    _, plan = await post(scene, "/api/plan", {"yaml": other})
    assert [refusal["field"] for refusal in plan["refusals"]] == ["metadata.name"]
    assert "exists: choose another name" in plan["refusals"][0]["message"]
    _, plan = await post(scene, "/api/plan", {"yaml": other, "update": True})
    assert [refusal["field"] for refusal in plan["refusals"]] == ["resource.instanceType"]


async def test_catalog_and_schema(scene: Scene) -> None:
    catalog = await scene.get("/api/catalog")
    phi = next(model for model in catalog["models"] if model["name"] == "phi-3-mini-4k-instruct")
    assert phi["parameters"] == 3.8e9
    assert phi["runtime"] == ["vllm", "transformers"]
    assert {"Standard_NC24ads_A100_v4"} < {each["name"] for each in catalog["instanceTypes"]}
    schema = await scene.get("/api/schema")
    assert set(schema["properties"]) >= {"resource", "inference", "tuning"}


async def test_the_manifest_in_the_detail_creates_the_workspace_again(scene: Scene) -> None:
    made = await scene.client.create(workspace())
    await scene.client.update_status(made.evolve(status=type(made.status).model_validate(ready())))
    await scene.until("phi")
    detail = await scene.get("/api/workspaces/default/phi")
    copy = yaml.safe_load(detail["yaml"])
    copy["metadata"]["name"] = "again"
    assert (await post(scene, "/api/workspaces", {"yaml": yaml.safe_dump(copy)}))[0] == 201
