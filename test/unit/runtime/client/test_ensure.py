"""`ensure`: one request for what is new, none for what is already so."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kaito.runtime.cache import Cached
from kaito.runtime.client import Api
from kaito.runtime.client.applied import with_digest
from kaito.runtime.client.codec import for_apply
from kaito.runtime.client.managed_fields import managed_fields_of
from kaito.runtime.errors import AlreadyOwned, ConfigurationError
from kaito.runtime.kinds import ConfigMap, Deployment, Namespace, Secret, Service
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.ownership import controlled_by, controller_of, disowned, is_owned_by, owned_by
from kaito.runtime.testing import World


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    cached = [Cached(ConfigMap), Cached(Deployment), Cached(Secret, only="metadata")]
    async with world.manager(cache=cached, live=[Service]) as manager:
        yield manager.api


def config(name: str = "child", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default", labels={"app": "x"}), data=data)


def deployment(cpu: str = "1000m") -> Deployment:
    return Deployment.model_validate(
        {
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "main", "image": "b", "resources": {"requests": {"cpu": cpu}}}]},
                },
            },
        }
    )


@pytest.mark.conformance(36)
async def test_twice_is_one_request(api: Api, world: World) -> None:
    first = await api.ensure(config(k="v"))
    second = await api.ensure(config(k="v"))
    assert first.metadata.resource_version == second.metadata.resource_version
    assert second.data == {"k": "v"}
    assert world.count("PATCH") == 1
    assert world.count("get") == 0


async def test_a_different_object_is_applied_and_omitted_fields_are_removed(api: Api, world: World) -> None:
    await api.ensure(config(a="1", b="2"))
    assert (await api.ensure(config(a="1"))).data == {"a": "1"}
    assert world.count("PATCH") == 2


async def test_a_foreign_field_is_left_alone_and_costs_nothing(api: Api, world: World) -> None:
    await api.ensure(config(a="1"))
    world.patch(ConfigMap, "child", {"data": {"theirs": "x"}, "metadata": {"annotations": {"note": "y"}}})
    await world.settle()
    assert (await api.ensure(config(a="1"))).data == {"a": "1", "theirs": "x"}
    assert world.count("PATCH") == 1


async def test_empty_metadata_that_the_server_does_not_store_costs_nothing(api: Api, world: World) -> None:
    """Builders set `annotations={}`. The server stores none, which is not a difference."""
    wanted = Deployment.model_validate(
        {**deployment().to_dict(), "metadata": {"name": "web", "namespace": "default", "labels": {}, "annotations": {}}}
    )
    await api.ensure(wanted)
    for replicas in (1, 2):
        world.patch(Deployment, "web", {"status": {"replicas": replicas}}, subresource="status")
        await world.settle()
        await api.ensure(wanted)
    assert world.count("PATCH") == 1


async def test_empty_annotations_remove_those_that_were_applied(api: Api, world: World) -> None:
    annotated = config(a="1").with_metadata(annotations={"note": "x"})
    assert (await api.ensure(annotated)).annotations == {"note": "x"}
    assert (await api.ensure(annotated.with_metadata(annotations={}))).annotations == {}


@pytest.mark.parametrize(
    "drift", [{"data": {"a": "changed"}}, {"data": None}, {"metadata": {"labels": {"app": "changed"}}}]
)
async def test_drift_is_put_right(api: Api, world: World, drift: dict[str, object]) -> None:
    await api.ensure(config(a="1"))
    world.patch(ConfigMap, "child", drift)
    await world.settle()
    restored = await api.ensure(config(a="1"))
    assert (restored.data, restored.labels) == ({"a": "1"}, {"app": "x"})


async def test_an_item_that_another_client_appends_to_a_list_is_removed(api: Api, world: World) -> None:
    await api.ensure(with_args("--a"))
    document = with_args("--a", "--b").to_dict()
    world.patch(Deployment, "web", {"spec": document["spec"]})
    await world.settle()
    assert (await api.ensure(with_args("--a"))).spec.template.spec.containers[0].args == ["--a"]


def with_args(*args: str) -> Deployment:
    document = deployment().to_dict()
    document["spec"]["template"]["spec"]["containers"][0]["args"] = list(args)
    return Deployment.model_validate(document)


RECORD = "example.com/applied"


async def of_another_process(world: World, wanted: ConfigMap | Deployment, *, manager: str = "") -> int:
    """Ensures an object in a new process, and returns how many requests it sent."""
    cached = [Cached(ConfigMap), Cached(Deployment)]
    async with world.manager(cache=cached) as other:
        before = world.count("PATCH")
        await other.api.ensure(wanted, record=RECORD, field_manager=manager)
        found = world.count("PATCH") - before
        await other.api.ensure(wanted, record=RECORD, field_manager=manager)
        assert world.count("PATCH") - before == found
    return found


def test_the_manifest_with_the_digest_is_that_of_the_object() -> None:
    for wanted in (config(a="1"), config(a="1").with_metadata(annotations={"a": "b"}), deployment()):
        recorded, document = with_digest(wanted, for_apply(wanted), RECORD, "kaito")
        assert document == for_apply(recorded)


async def test_a_new_process_does_not_apply_what_is_recorded(api: Api, world: World) -> None:
    applied = await api.ensure(config(a="1"), record=RECORD)
    assert len(applied.annotations[RECORD]) == 32
    await api.ensure(deployment("1"), record=RECORD)
    assert await of_another_process(world, config(a="1")) == 0
    assert await of_another_process(world, deployment("1")) == 0
    world.patch(Deployment, "web", {"status": {"replicas": 1}}, subresource="status")
    assert await of_another_process(world, deployment("1")) == 0
    assert await of_another_process(world, deployment("2")) == 1


async def test_empty_annotations_of_a_template_are_not_applied_again(api: Api, world: World) -> None:
    document = deployment("1").to_dict()
    document["spec"]["template"]["metadata"]["annotations"] = {}
    wanted = Deployment.model_validate(document)
    await api.ensure(wanted, record=RECORD)
    assert await of_another_process(world, wanted) == 0


async def test_what_the_server_normalizes_is_applied_once_in_each_process(api: Api, world: World) -> None:
    await api.ensure(deployment("1000m"), record=RECORD)
    assert await of_another_process(world, deployment("1000m")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"a": "changed"}},
        {"data": {"a": None}},
        {"metadata": {"labels": {"app": "changed"}}},
        {"metadata": {"annotations": {RECORD: "changed"}}},
        {"metadata": {"annotations": None}},
    ],
)
async def test_a_new_process_restores_what_others_have_changed(api: Api, world: World, change: dict[str, Any]) -> None:
    before = await api.ensure(config(a="1"), record=RECORD)
    world.patch(ConfigMap, "child", change)
    assert await of_another_process(world, config(a="1")) == 1
    after = world.get(ConfigMap, "child")
    assert (after.data, after.labels, after.annotations) == (before.data, before.labels, before.annotations)


async def test_a_new_process_removes_an_appended_item(api: Api, world: World) -> None:
    await api.ensure(with_args("--a"), record=RECORD)
    world.patch(Deployment, "web", {"spec": with_args("--a", "--b").to_dict()["spec"]})
    assert await of_another_process(world, with_args("--a")) == 1
    assert world.get(Deployment, "web").spec.template.spec.containers[0].args == ["--a"]


async def test_a_new_process_removes_a_field_that_is_omitted(api: Api, world: World) -> None:
    await api.ensure(config(a="1", b="2"), record=RECORD)
    assert await of_another_process(world, config(a="1")) == 1
    assert world.get(ConfigMap, "child").data == {"a": "1"}


async def test_a_copy_of_a_recorded_object_is_applied(api: Api, world: World) -> None:
    """A restored backup has the annotation, but the field manager does not own its fields."""
    applied = await api.ensure(config(a="1"), record=RECORD)
    world.delete(ConfigMap, "child")
    world.put(config(a="1").with_metadata(annotations=applied.annotations))
    assert await of_another_process(world, config(a="1")) == 1


async def test_another_field_manager_applies_what_is_recorded(api: Api, world: World) -> None:
    await api.ensure(config(a="1"), record=RECORD)
    assert await of_another_process(world, config(a="1"), manager="other") == 1


async def test_fields_of_a_former_field_manager_are_taken_over(world: World) -> None:
    """The annotation alone does not show that a crash came before the former manager was removed."""
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        client = manager.api.client
        await client.managed_by("old").apply(config(a="1"))
        await manager.api.ensure(config(a="1"), record=RECORD)
        await world.settle()
        current = Api(client, manager.cache, former_field_managers=["old"])
        await current.ensure(config(a="1"), record=RECORD)
        assert {entry.manager for entry in managed_fields_of(world.get(ConfigMap, "child"))} == {client.field_manager}


async def test_what_is_forgotten_costs_one_request(api: Api, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaito.runtime.client.applied.MAX_OBJECTS", 2)
    for name in ("a", "b", "a", "c", "a", "b"):  # b is the least recently ensured when c comes
        await api.ensure(config(name))
    assert world.count("PATCH", name="a") == 1
    assert world.count("PATCH", name="b") == 2


async def test_other_writes_of_ours_are_not_mistaken_for_drift_by_others(api: Api, world: World) -> None:
    made = await api.ensure(config(a="1"))
    await api.update(made.evolve(data={"a": "2"}))
    assert (await api.ensure(config(a="1"))).data == {"a": "1"}
    assert world.count("PATCH") == 2


async def test_a_deleted_object_is_made_again(api: Api, world: World) -> None:
    first = await api.ensure(config())
    world.delete(ConfigMap, "child")
    await world.settle()
    assert (await api.ensure(config())).uid != first.uid


async def test_an_object_recreated_by_another_client_is_applied_again(api: Api, world: World) -> None:
    await api.ensure(config(a="1"))
    world.delete(ConfigMap, "child")
    world.put(config(a="1"))
    await world.settle()
    await api.ensure(config(a="1"))
    assert world.count("PATCH") == 2  # its fields are not ours until they are applied


async def test_status_written_by_others_and_normalized_amounts_cost_nothing(api: Api, world: World) -> None:
    await api.ensure(deployment())
    world.patch(Deployment, "web", {"status": {"replicas": 1, "readyReplicas": 1}}, subresource="status")
    await world.settle()
    found = await api.ensure(deployment())
    assert found.status.ready_replicas == 1
    assert world.count("PATCH") == 1


async def test_a_live_kind_is_applied_each_time(api: Api, world: World) -> None:
    service = Service.model_validate(
        {"metadata": {"name": "s", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}}
    )
    first = await api.ensure(service)
    assert (await api.ensure(service)).metadata.resource_version == first.metadata.resource_version
    assert world.count("PATCH") == 2


async def test_a_kind_cached_as_metadata_only_is_applied_each_time_and_returned_completely(
    api: Api, world: World
) -> None:
    secret = Secret(metadata=ObjectMeta(name="s", namespace="default")).with_value("k", b"v")
    await api.ensure(secret)
    assert (await api.ensure(secret)).value("k") == b"v"
    assert world.count("PATCH") == 2


async def test_the_owner_is_set_and_gives_its_namespace(api: Api, world: World) -> None:
    owner = world.put(config("owner"))
    child = await api.ensure(ConfigMap(metadata=ObjectMeta(name="child")), owner=owner)
    assert child.namespace == "default"
    reference = controller_of(child.metadata)
    assert reference is not None
    assert (reference.uid, reference.controller, reference.block_owner_deletion) == (owner.uid, True, True)
    assert is_owned_by(child, owner)


async def test_an_owner_in_another_namespace_is_rejected_before_anything_is_sent(api: Api, world: World) -> None:
    owner = world.put(config("owner"))
    stranger = config().with_metadata(namespace="kube-system")
    with pytest.raises(ConfigurationError, match="of another namespace"):
        await api.ensure(stranger, owner=owner)
    with pytest.raises(ConfigurationError, match="cluster-scoped"):
        controlled_by(Namespace(metadata=ObjectMeta(name="n")), owner)
    assert world.count("PATCH") == 0


async def test_another_controllers_object_is_rejected(api: Api, world: World) -> None:
    first, second = world.put(config("first")), world.put(config("second"))
    await api.ensure(config(), owner=first)
    with pytest.raises(AlreadyOwned, match=r"child is controlled by ConfigMap first"):
        await api.ensure(config(), owner=second)
    assert is_owned_by(world.get(ConfigMap, "child"), first)


async def test_a_recreated_owner_waits_for_the_garbage_collector_or_adopts(api: Api, world: World) -> None:
    old = world.put(config("owner"))
    await api.ensure(config(), owner=old)
    world.patch(ConfigMap, "child", {"metadata": {"finalizers": ["example.com/keep"]}})
    world.delete(ConfigMap, "owner")
    new = world.put(config("owner"))
    await world.settle()
    with pytest.raises(AlreadyOwned, match="which does not exist"):
        await api.ensure(config(), owner=new)
    child = await api.ensure(config(), owner=new, adopt=True)
    assert [reference.uid for reference in child.metadata.owner_references] == [new.uid]


async def test_a_second_owner_that_does_not_control(world: World) -> None:
    one, two = world.put(config("one")), world.put(config("two"))
    child = owned_by(controlled_by(config(), one), two)
    assert [(r.name, r.controller) for r in child.metadata.owner_references] == [("one", True), ("two", None)]
    assert owned_by(child, two) == child
    assert disowned(disowned(child, one), two).metadata.owner_references == []
    with pytest.raises(ConfigurationError, match="does not belong to ConfigMap default/owner"):
        disowned(child, config("owner").with_metadata(uid="another"))
    with pytest.raises(AlreadyOwned):
        controlled_by(child, two)


def test_an_owner_without_a_uid_is_rejected() -> None:
    with pytest.raises(ValueError, match="has no uid yet"):
        controlled_by(config(), config("owner"))
