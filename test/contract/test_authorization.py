"""RBAC: both servers let the same users do the same things, and refuse the rest in the same words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from test.contract.conftest import Answer, Server

CONFIG_MAPS = "/api/v1/namespaces/{ns}/configmaps"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"
REVIEWS = "/apis/authorization.k8s.io/v1"
PATIENCE = 100
"""Tries, a tenth of a second apart, until a real server's authorizer has seen a role: it reads them from a cache."""


def account(server: Server) -> str:
    return f"system:serviceaccount:{server.namespace}:op"


async def as_user(server: Server, user: str, method: str, path: str, body: object = None, **more: Any) -> Answer:
    headers = {"impersonate-user": user, **more.pop("headers", {})}
    return await server.call(method, path, body, more.pop("content", "application/json"), headers, **more)


async def allowed_soon(server: Server, user: str, path: str, **more: Any) -> None:
    for _ in range(PATIENCE):
        if (await as_user(server, user, "GET", path, **more)).status == 200:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(await as_user(server, user, "GET", path, **more))


async def grant(server: Server, *rules: dict[str, Any], name: str = "op") -> None:
    """Binds a role with these rules to the service account `op`."""
    role = {"metadata": {"name": name}, "rules": list(rules)}
    await server.ok("POST", RBAC + "/namespaces/{ns}/roles", role)
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "op", "namespace": server.namespace}],
    }
    await server.ok("POST", RBAC + "/namespaces/{ns}/rolebindings", binding)


def refusal(server: Server, answer: Answer) -> str:
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden"), answer.body
    return str(answer.body["message"]).replace(server.namespace, "NS")


async def test_what_no_role_allows_is_rejected_in_these_words(server: Server) -> None:
    user = account(server)
    listed = await as_user(server, user, "GET", "/api/v1/namespaces/{ns}/secrets")
    assert refusal(server, listed) == (
        'secrets is forbidden: User "system:serviceaccount:NS:op" cannot list resource "secrets" in API group "" '
        'in the namespace "NS"'
    )
    assert listed.body["details"] == {"kind": "secrets"}
    gotten = await as_user(server, user, "GET", "/apis/apps/v1/namespaces/{ns}/deployments/a/status")
    assert refusal(server, gotten) == (
        'deployments.apps "a" is forbidden: User "system:serviceaccount:NS:op" cannot get resource '
        '"deployments/status" in API group "apps" in the namespace "NS"'
    )
    assert gotten.body["details"] == {"name": "a", "group": "apps", "kind": "deployments"}
    nodes = await as_user(server, user, "GET", "/api/v1/nodes", watch="1")
    assert refusal(server, nodes) == (
        'nodes is forbidden: User "system:serviceaccount:NS:op" cannot watch resource "nodes" in API group "" '
        "at the cluster scope"
    )
    namespace = await as_user(server, user, "DELETE", "/api/v1/namespaces/{ns}")
    assert refusal(server, namespace) == (
        'namespaces "NS" is forbidden: User "system:serviceaccount:NS:op" cannot delete resource "namespaces" '
        'in API group "" in the namespace "NS"'
    )


async def test_a_role_allows_its_verbs_resources_and_names_in_its_namespace(server: Server) -> None:
    user = account(server)
    await grant(
        server,
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get", "watch"]},
    )
    await allowed_soon(server, user, CONFIG_MAPS)
    assert (await as_user(server, user, "POST", CONFIG_MAPS, {"metadata": {"name": "a"}})).status == 201
    assert (await as_user(server, user, "GET", f"{CONFIG_MAPS}/a")).status == 200
    assert "cannot get resource" in refusal(server, await as_user(server, user, "GET", f"{CONFIG_MAPS}/b"))
    one = {"watch": "1", "fieldSelector": "metadata.name=a", "timeoutSeconds": "1"}
    assert (await as_user(server, user, "GET", CONFIG_MAPS, **one)).status == 200
    everything = await as_user(server, user, "GET", CONFIG_MAPS, watch="1", timeoutSeconds="1")
    assert "cannot watch resource" in refusal(server, everything)
    other = await as_user(server, user, "GET", "/api/v1/namespaces/default/configmaps")
    assert "cannot list resource" in refusal(server, other)


async def test_subresources_and_groups_of_users_have_rules_of_their_own(server: Server) -> None:
    await grant(server, {"apiGroups": ["apps"], "resources": ["*/scale", "deployments"], "verbs": ["get", "list"]})
    user, deployments = account(server), "/apis/apps/v1/namespaces/{ns}/deployments"
    await allowed_soon(server, user, deployments)
    assert (await as_user(server, user, "GET", f"{deployments}/a/scale")).status == 404
    assert (await as_user(server, user, "GET", f"{deployments}/a/status")).status == 403
    member = {
        "metadata": {"name": "members"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "op"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "ops"}],
    }
    await server.ok("POST", RBAC + "/namespaces/{ns}/rolebindings", member)
    await allowed_soon(server, "alice", deployments, headers={"impersonate-group": "ops"})
    assert (await as_user(server, "alice", "GET", deployments)).status == 403


async def test_an_apply_that_creates_needs_the_right_to_create(server: Server) -> None:
    user = account(server)
    await grant(server, {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "patch"]})
    await allowed_soon(server, user, CONFIG_MAPS)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}, "data": {"a": "b"}}
    apply = {"content": "application/apply-patch+yaml", "fieldManager": "op"}
    refused = await as_user(server, user, "PATCH", f"{CONFIG_MAPS}/new", body, **apply)
    assert refusal(server, refused) == (
        'configmaps "new" is forbidden: User "system:serviceaccount:NS:op" cannot create resource "configmaps" '
        'in API group "" in the namespace "NS"'
    )
    await server.ok("POST", CONFIG_MAPS, {"metadata": {"name": "new"}})
    assert (await as_user(server, user, "PATCH", f"{CONFIG_MAPS}/new", body, **apply)).status == 200


async def test_access_reviews_match_the_authorization_of_requests(server: Server) -> None:
    user = account(server)
    await grant(server, {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]})
    await allowed_soon(server, user, CONFIG_MAPS)
    for verb, allowed in (("list", True), ("delete", False)):
        requested = {"verb": verb, "resource": "configmaps", "namespace": server.namespace}
        own = await as_user(
            server, user, "POST", f"{REVIEWS}/selfsubjectaccessreviews", {"spec": {"resourceAttributes": requested}}
        )
        spec = {"user": user, "resourceAttributes": requested}
        others = await server.ok("POST", f"{REVIEWS}/subjectaccessreviews", {"spec": spec})
        assert own.status == 201
        for status in (own.body["status"], others["status"]):
            assert status["allowed"] is allowed
            reason = status.get("reason", "").replace(server.namespace, "NS")
            assert reason == (
                'RBAC: allowed by RoleBinding "op/NS" of Role "op" to ServiceAccount "op/NS"' if allowed else ""
            )
    may_review = await as_user(server, user, "POST", f"{REVIEWS}/subjectaccessreviews", {"spec": {"user": "x"}})
    assert may_review.status == 403


async def test_a_binding_to_a_missing_role_is_reported(server: Server) -> None:
    user = account(server)
    await grant(server, {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]})
    binding = {
        "metadata": {"name": "broken"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "gone"},
        "subjects": [{"kind": "ServiceAccount", "name": "op", "namespace": server.namespace}],
    }
    await server.ok("POST", RBAC + "/namespaces/{ns}/rolebindings", binding)
    await allowed_soon(server, user, CONFIG_MAPS)
    refused = ""
    for _ in range(PATIENCE):
        refused = refusal(server, await as_user(server, user, "DELETE", f"{CONFIG_MAPS}/a"))
        if "RBAC" in refused:
            break
        await asyncio.sleep(0.1)
    assert refused.endswith(': RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found')


async def test_impersonation_needs_permission(server: Server) -> None:
    """The administrator may; a service account of his may not impersonate another user."""
    await server.ok("POST", "/api/v1/namespaces/{ns}/serviceaccounts", {"metadata": {"name": "op"}})
    token = await server.ok("POST", "/api/v1/namespaces/{ns}/serviceaccounts/op/token", {"spec": {}})
    own = {"authorization": f"Bearer {token['status']['token']}"}
    listed = await server.call("GET", "/api/v1/namespaces/{ns}/secrets", None, "application/json", own)
    assert 'User "system:serviceaccount:NS:op" cannot list' in refusal(server, listed)
    own["impersonate-user"] = "admin"
    refused = refusal(server, await server.call("GET", "/api/v1/namespaces", None, "application/json", own))
    assert refused == (
        'users "admin" is forbidden: User "system:serviceaccount:NS:op" cannot impersonate resource "users" '
        'in API group "" at the cluster scope'
    )


async def test_a_role_author_must_hold_its_permissions(server: Server) -> None:
    user = account(server)
    roles, bindings = RBAC + "/namespaces/{ns}/roles", RBAC + "/namespaces/{ns}/rolebindings"
    await grant(
        server,
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},
        {"apiGroups": [GROUP], "resources": ["roles", "rolebindings"], "verbs": ["create", "get", "list", "patch"]},
        {"apiGroups": [GROUP], "resources": ["roles"], "resourceNames": ["free"], "verbs": ["bind"]},
    )
    await allowed_soon(server, user, CONFIG_MAPS)
    held = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    assert (await as_user(server, user, "POST", roles, {"metadata": {"name": "a"}, "rules": [held]})).status == 201
    more = [held | {"verbs": ["get", "delete", "watch"]}, held | {"resources": ["secrets", "pods/log"]}]
    refused = refusal(server, await as_user(server, user, "POST", roles, {"metadata": {"name": "b"}, "rules": more}))
    assert refused == (
        'roles.rbac.authorization.k8s.io "b" is forbidden: user "system:serviceaccount:NS:op" '
        '(groups=["system:serviceaccounts" "system:serviceaccounts:NS" "system:authenticated"]) '
        "is attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["configmaps"], Verbs:["delete" "watch"]}\n'
        '{APIGroups:[""], Resources:["pods/log"], Verbs:["get"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}'
    )
    patch = {"rules": [held | {"verbs": ["*"]}]}
    widened = await as_user(server, user, "PATCH", f"{roles}/a", patch, content="application/merge-patch+json")
    assert 'Verbs:["*"]' in refusal(server, widened)
    for name in ("free", "guarded"):
        role = {"metadata": {"name": name}, "rules": [held | {"resources": ["secrets"]}]}
        await server.ok("POST", roles, role)

    async def bind(name: str) -> Answer:
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "op", "namespace": server.namespace}],
        }
        return await as_user(server, user, "POST", bindings, binding)

    assert "attempting to grant RBAC permissions not currently held" in refusal(server, await bind("guarded"))
    assert (await bind("free")).status == 201
    assert (await bind("a")).status == 201
