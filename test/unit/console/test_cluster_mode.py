"""In a cluster: users send bearer tokens, see what they may list, and write with their own rights."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
import yaml

from hack.generate import rbac
from kaito.api import Workspace, crds
from kaito.apiserver import ApiServer, serve
from kaito.console.console import running_console
from kaito.console.security.cluster import BearerToken
from kaito.console.settings import ConsoleSettings
from kaito.runtime.client import Client, ClusterConfig, HttpTransport, NoCredentials
from kaito.runtime.kinds import (
    ClusterRole,
    ClusterRoleBinding,
    CustomResourceDefinition,
    Namespace,
    Role,
    RoleBinding,
    ServiceAccount,
)
from test.unit.console.conftest import WRITE, sse, workspace
from test.unit.console.test_writes import DRAFT

CONSOLE = "system:serviceaccount:kaito-system:kaito-console"
ANNA = "system:serviceaccount:red:anna"
BERT = "system:serviceaccount:blue:bert"
"""Tokens of the in-memory API server are the names of the accounts. Anna may write in red, Bert may read in blue."""


@dataclass
class Scene:
    server: ApiServer
    admin: Client
    url: str
    session: aiohttp.ClientSession

    def headers(self, user: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {user}"} if user else {}

    async def get(self, path: str, user: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path, headers=self.headers(user)) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, user: str, body: Any) -> tuple[int, Any]:
        async with self.session.post(self.url + path, json=body, headers={**self.headers(user), **WRITE}) as answer:
            return answer.status, await answer.json()

    async def rows(self, user: str, count: int) -> set[str]:
        """The first rows of a user, once there are that many."""
        found: set[str] = set()
        async with (
            self.session.get(f"{self.url}/api/events", headers=self.headers(user)) as answer,
            aclosing(sse(answer)) as events,
        ):
            async for kind, data in events:
                if kind in {"snapshot", "change"}:
                    found |= {row["name"] for row in data.get("workspaces", data.get("upserts"))}
                if len(found) >= count:
                    return found
        return found


async def grant(admin: Client, user: str, role: str, namespace: str, *rules: dict[str, Any]) -> None:
    """Binds a role to an account in a namespace."""
    names = {"metadata": {"name": role, "namespace": namespace}}
    await admin.create(Role.model_validate({**names, "rules": list(rules)}))
    _, _, account_namespace, account = user.split(":")
    subject = {"kind": "ServiceAccount", "name": account, "namespace": account_namespace}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}
    await admin.create(RoleBinding.model_validate({**names, "subjects": [subject], "roleRef": ref}))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        server = ApiServer(authorization="RBAC")
        listening = await stack.enter_async_context(serve(server))
        config = ClusterConfig(server=listening.url, credentials=NoCredentials())
        transport = HttpTransport(config)
        stack.push_async_callback(transport.close)
        admin = Client(transport, field_manager="admin")
        for definition in crds.manifests():
            await admin.apply(CustomResourceDefinition.model_validate(definition))
        for name in ("kaito-system", "red", "blue"):
            await admin.create(Namespace.model_validate({"metadata": {"name": name}}))
        for user in (CONSOLE, ANNA, BERT):
            _, _, namespace, name = user.split(":")
            await admin.create(ServiceAccount.model_validate({"metadata": {"name": name, "namespace": namespace}}))
        for manifest in rbac.CONSOLE.manifests():
            if manifest["kind"] == "ClusterRole":
                await admin.create(ClusterRole.model_validate(manifest))
            elif manifest["kind"] == "ClusterRoleBinding":
                await admin.create(ClusterRoleBinding.model_validate(manifest))
        everything = {"apiGroups": ["kaito.sh"], "resources": ["workspaces", "workspaces/scale"], "verbs": ["*"]}
        reading = {"apiGroups": ["kaito.sh"], "resources": ["workspaces"], "verbs": ["get", "list"]}
        await grant(admin, ANNA, "writer", "red", everything)
        await grant(admin, BERT, "reader", "blue", reading)
        own = HttpTransport(replace(config, credentials=BearerToken(CONSOLE)))
        stack.push_async_callback(own.close)
        settings = ConsoleSettings(mode="cluster", port=0, allow_writes=True)
        console = await stack.enter_async_context(running_console(settings, own, cluster=config))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Scene(server, admin, console.url.rstrip("/"), session)


@pytest.mark.parametrize("user", ["", "stranger", "x" * 20_000, "a b", "\u00e9"])
async def test_a_request_without_a_valid_token_is_refused(scene: Scene, user: str) -> None:
    for path in ("/api/session", "/api/events", "/api/workspaces/red/phi"):
        status, body = await scene.get(path, user)
        assert status == 401, body


async def test_each_user_sees_what_the_user_may_list(scene: Scene) -> None:
    await scene.admin.create(workspace("phi", "red"))
    await scene.admin.create(workspace("mistral", "blue"))
    assert await scene.rows(ANNA, 1) == {"phi"}
    assert await scene.rows(BERT, 1) == {"mistral"}
    status, session = await scene.get("/api/session", BERT)
    assert (status, session["user"], session["mode"]) == (200, BERT, "cluster")
    assert session["namespaces"] == ["blue"]
    assert (await scene.get("/api/workspaces/blue/mistral", ANNA))[0] == 403
    assert (await scene.get("/api/workspaces/blue/absent", ANNA))[0] == 403
    _, money = await scene.get("/api/money", ANNA)
    assert [each["namespace"] for each in money["byNamespace"]] == ["red"]


async def test_what_a_user_may_not_read_is_named(scene: Scene) -> None:
    await scene.admin.create(workspace("mistral", "blue"))
    assert await scene.rows(BERT, 1) == {"mistral"}
    status, detail = await scene.get("/api/workspaces/blue/mistral", BERT)
    assert status == 200
    notes = " ".join(detail["notes"])
    for kind in ("claims", "nodes", "pods", "events", "services"):
        assert f"{kind} could not be read: you have no right to list" in notes


async def test_writes_are_those_of_the_user(scene: Scene) -> None:
    red, blue = (DRAFT.replace("{name: phi}", f"{{name: phi, namespace: {name}}}") for name in ("red", "blue"))
    assert (await scene.post("/api/workspaces", ANNA, {"yaml": red}))[0] == 201
    stored = await scene.admin.get(Workspace, "phi", "red")
    assert stored.preset_name == "phi-3-mini-4k-instruct"
    for user, text in ((ANNA, blue), (BERT, blue), (BERT, red)):
        status, body = await scene.post("/api/workspaces", user, {"yaml": text})
        assert (status, "not allow" in body["error"]) == (403, True)
    assert (await scene.post("/api/workspaces/red/phi/scale", BERT, {"copies": 0}))[0] == 403
    assert (await scene.post("/api/workspaces/red/phi/scale", ANNA, {"copies": 0}))[0] == 200
    assert [each.key.namespace for each in await scene.admin.list(Workspace)] == ["red"]


async def test_a_plan_uses_the_rights_of_the_user(scene: Scene) -> None:
    text = DRAFT.replace("{name: phi}", "{name: phi, namespace: red}")
    status, plan = await scene.post("/api/plan", ANNA, {"yaml": text})
    assert status == 200
    assert plan["ok"] is True
    assert any("nodes were not compared" in warning for warning in plan["warnings"])
    outside = yaml.safe_dump(yaml.safe_load(text) | {"inference": {"preset": {"name": "org/model"}}})
    _, plan = await scene.post("/api/plan", ANNA, {"yaml": outside})
    assert plan["ok"] is False or plan["nodes"] is None or plan["warnings"]


async def test_the_role_of_the_console_allows_no_write(scene: Scene) -> None:
    await scene.admin.create(workspace("phi", "red"))
    await scene.rows(ANNA, 1)
    verbs = {(verb, resource) for agent, verb, _, resource in scene.server.permissions_used if "console" in agent}
    written = {(verb, resource) for verb, resource in verbs if verb not in {"get", "list", "watch"}}
    assert written == {("create", "tokenreviews"), ("create", "subjectaccessreviews")}
