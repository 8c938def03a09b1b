"""Kinds without a plural are found on the server, also when they appear or go later."""

import pytest

from kaito.runtime.client import Client
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.errors import ConfigurationError, NotFound
from kaito.runtime.kinds import Untyped, untyped_kind
from kaito.runtime.meta import GroupVersionKind, Model, ObjectMeta, Resource
from kaito.runtime.testing import World


class Spec(Model):
    size: int = 0


class Policy(Resource, api="late.example.com/v1", kind="Policy", plural="policies", namespaced=False):
    spec: Spec = Spec()


@pytest.fixture
async def client(world: World) -> Client:
    transport = world.transport()
    return Client(transport, field_manager="test", discovery=ServerDiscovery(transport))


async def test_a_builtin_kind_without_a_model(client: Client, world: World) -> None:
    ingress = untyped_kind("networking.k8s.io/v1", "Ingress")
    made = await client.create(
        ingress.model_validate(
            {
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
            }
        )
    )
    assert isinstance(made, Untyped)
    assert made.field("spec.defaultBackend.service.port.number") == 80
    assert made.field("spec.nothing.here") is None
    assert [obj.name for obj in await client.list(ingress)] == ["web"]
    assert len([r for r in world.requests if r.path == "/apis/networking.k8s.io/v1"]) == 1


async def test_a_kind_installed_or_deleted_later_is_discovered(client: Client, world: World) -> None:
    late = untyped_kind("late.example.com/v1", "Policy")
    with pytest.raises(NotFound, match="is its CustomResourceDefinition installed"):
        await client.find(late, "p")
    world.install(Policy)
    await world.advance(2)
    made = await client.create(late(metadata=ObjectMeta(name="p")))
    assert made.name == "p"
    await client.raw("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/policies.late.example.com")
    await world.advance(2)
    with pytest.raises(NotFound, match="page not found"):
        await client.find(late, "p")
    with pytest.raises(NotFound, match="does not serve"):  # after that 404 the server was asked again
        await client.find(late, "p")


async def test_an_unknown_kind_is_not_discovered_again_at_once(world: World) -> None:
    discovery = ServerDiscovery(world.transport())
    gvk = GroupVersionKind("", "v1", "Nonsense")
    for _ in range(10):
        assert await discovery.find(gvk) is None
    assert len(world.requests) == 1
    await world.advance(1)
    await discovery.find(gvk)
    assert len(world.requests) == 2


async def test_what_a_resource_can_do(world: World) -> None:
    pods = await ServerDiscovery(world.transport()).find(GroupVersionKind("", "v1", "Pod"))
    assert pods is not None
    assert (pods.plural, pods.namespaced) == ("pods", True)
    assert "po" in pods.short_names
    assert {"status", "eviction"} <= pods.subresources
    assert {"get", "list", "watch"} <= pods.verbs


async def test_without_discovery_the_plural_must_be_given(world: World) -> None:
    client = Client(world.transport(), field_manager="test")
    with pytest.raises(ConfigurationError, match="Ingress has no plural"):
        await client.list(untyped_kind("networking.k8s.io/v1", "Ingress"))
    named = untyped_kind("networking.k8s.io/v1", "Ingress", plural="ingresses")
    assert list(await client.list(named)) == []
