"""An operator's permissions in the `World`: its own RBAC manifests, or one permission taken away."""

import pytest

from kaito.runtime import Controller, ObjectMeta, Request
from kaito.runtime.client import Client
from kaito.runtime.errors import Forbidden
from kaito.runtime.kinds import ClusterRole, ConfigMap, Secret
from kaito.runtime.testing import World
from kaito.runtime.testing.permissions import rules_for

USER = "system:serviceaccount:default:copier"

ROLE = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: copier}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: copier}
rules:
- {apiGroups: [""], resources: [secrets], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [configmaps], verbs: [VERBS]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: copier}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: copier}
subjects:
- {kind: ServiceAccount, name: copier, namespace: default}
"""


async def copy(request: Request[Secret]) -> None:
    await request.api.ensure(ConfigMap(metadata=ObjectMeta(name=request.key.name)), owner=request.object)


def copier() -> Controller[Secret]:
    return Controller(Secret, copy).owns(ConfigMap)


async def test_a_manager_has_the_permissions_of_its_role(world: World) -> None:
    world.apply(ROLE.replace("VERBS", "get, list, watch, create, patch"))
    async with world.manager(copier(), user=USER):
        world.put(Secret(metadata=ObjectMeta(name="a")))
        await world.settle()
        assert world.find(ConfigMap, "a") is not None


async def test_a_verb_that_the_role_lacks_is_missed(world: World) -> None:
    world.apply(ROLE.replace("VERBS", "get, list, watch, patch"))
    async with world.manager(copier(), user=USER) as manager:
        world.put(Secret(metadata=ObjectMeta(name="a")))
        await world.settle()
        assert world.find(ConfigMap, "a") is None
        with pytest.raises(Forbidden, match='User "system:serviceaccount:default:copier" cannot create resource'):
            await manager.api.ensure(ConfigMap(metadata=ObjectMeta(name="b", namespace="default")))
        world.apply(ROLE.replace("VERBS", "get, list, watch, patch, create"))
        await world.advance(60)
        assert world.find(ConfigMap, "a") is not None


async def test_a_denial_hits_the_code_under_test_until_it_is_healed(world: World) -> None:
    client = Client(world.transport(), field_manager="test")
    world.put(Secret(metadata=ObjectMeta(name="a")))
    denial = world.deny("get", Secret, name="a")
    with pytest.raises(Forbidden, match=r'^.*secrets "a" is forbidden: User "admin" cannot get resource "secrets"'):
        await client.get(Secret, "a", "default")
    assert world.get(Secret, "a").name == "a"
    world.heal(denial)
    assert (await client.get(Secret, "a", "default")).name == "a"


async def test_denials_are_about_verbs_and_places(world: World) -> None:
    client = Client(world.transport(), field_manager="test")
    world.deny(("list", "watch"), Secret, namespace="kube-system")
    world.deny("*", ConfigMap)
    assert await client.list(Secret, namespace="default") == []
    with pytest.raises(Forbidden, match='in the namespace "kube-system"'):
        await client.list(Secret, namespace="kube-system")
    with pytest.raises(Forbidden):
        await client.list(ConfigMap)
    world.heal()
    assert await client.list(Secret, namespace="kube-system") == []


async def test_the_minimal_role_contains_the_requests_of_the_test(world: World) -> None:
    async with world.manager(copier(), lease="copier", agent="copier/1"):
        world.put(Secret(metadata=ObjectMeta(name="a")))
        await world.settle()
    needed = {(rule.api_groups[0], *rule.resources): rule.verbs for rule in world.rules_needed("copier/1")}
    assert needed == {
        ("", "configmaps"): ["get", "list", "watch", "create", "patch"],
        ("", "secrets"): ["get", "list", "watch"],
        ("coordination.k8s.io", "leases"): ["get", "create", "update"],
        ("events.k8s.io", "events"): ["create"],
    }


async def test_a_manager_may_run_with_the_role_that_its_tests_found(world: World) -> None:
    world.apply(ROLE.replace("VERBS", "get"))
    async with world.manager(copier()):
        world.put(Secret(metadata=ObjectMeta(name="a")))
        await world.settle()
    world.put(ClusterRole(metadata=ObjectMeta(name="copier"), rules=world.rules_needed()))
    async with world.manager(copier(), user=USER):
        world.put(Secret(metadata=ObjectMeta(name="b")))
        await world.settle()
        assert world.find(ConfigMap, "b") is not None


def test_verbs_and_resources_are_merged() -> None:
    requested = [("watch", "", "pods"), ("list", "", "nodes"), ("watch", "", "nodes")]
    rules = [rule.to_dict() for rule in rules_for([*requested, ("patch", "apps", "deployments/status")])]
    assert rules == [
        {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["apps"], "resources": ["deployments/status"], "verbs": ["patch"]},
    ]
