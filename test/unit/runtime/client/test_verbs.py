"""Every verb of the live client, against the in-memory API server."""

import traceback
from collections.abc import Awaitable, Callable

import pytest

from kaito.runtime.client import ApiRequest, Client, JsonPatch, MergePatch, Reply
from kaito.runtime.errors import (
    AlreadyExists,
    BadRequest,
    ConfigurationError,
    Conflict,
    Invalid,
    NotFound,
    TooManyRequests,
    UnreadableObject,
)
from kaito.runtime.kinds import ConfigMap, Deployment, Namespace, Node, Pod
from kaito.runtime.meta import LabelSelector, LabelSelectorRequirement, ObjectMeta, Resource
from kaito.runtime.testing import World, builders


@pytest.fixture
async def client(world: World) -> Client:
    return Client(world.transport(), field_manager="test-manager")


def config(name: str, namespace: str = "default", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace), data=data)


def deployment(name: str, replicas: int = 1) -> Deployment:
    return Deployment.model_validate(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "main", "image": "busybox"}]},
                },
            },
        }
    )


async def test_create_get_find(client: Client) -> None:
    made = await client.create(config("a", k="v"))
    assert made.uid
    assert (await client.get(ConfigMap, "a", "default")).data == {"k": "v"}
    assert await client.find(ConfigMap, "b", "default") is None
    with pytest.raises(NotFound) as caught:
        await client.get(ConfigMap, "b", "default")
    assert caught.value.reason == "NotFound"
    assert caught.value.details["name"] == "b"
    assert "GET /api/v1/namespaces/default/configmaps/b" in str(caught.value)


async def test_a_second_create_is_already_exists(client: Client) -> None:
    await client.create(config("a"))
    with pytest.raises(AlreadyExists):
        await client.create(config("a"))


async def test_create_of_a_fetched_object_leaves_its_identity_behind(client: Client) -> None:
    made = await client.create(config("a", k="v"))
    copy = await client.create(made.with_metadata(name="b"))
    assert copy.uid != made.uid


async def test_create_with_generated_name(client: Client) -> None:
    made = await client.create(ConfigMap(metadata=ObjectMeta(generate_name="run-", namespace="default")))
    assert made.name.startswith("run-")
    assert len(made.name) > len("run-")


async def test_dry_run_stores_nothing(client: Client) -> None:
    made = await client.create(config("a"), dry_run=True)
    assert made.uid
    assert await client.find(ConfigMap, "a", "default") is None


async def test_list_by_labels_fields_and_namespace(client: Client) -> None:
    for name, namespace, app in (("a", "default", "x"), ("b", "default", "y"), ("c", "kube-system", "x")):
        obj = config(name, namespace)
        await client.create(obj.with_metadata(labels={"app": app}))
    by_label = await client.list(ConfigMap, labels={"app": "x"})
    assert sorted(obj.name for obj in by_label) == ["a", "c"]
    expression = LabelSelector(match_expressions=[LabelSelectorRequirement(key="app", operator="In", values=["y"])])
    assert [obj.name for obj in await client.list(ConfigMap, namespace="default", labels=expression)] == ["b"]
    assert [obj.name for obj in await client.list(ConfigMap, fields={"metadata.name": "c"})] == ["c"]
    assert by_label.resource_version


async def test_list_reads_all_pages(client: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        world.put(config(f"c{number}"))
    monkeypatch.setattr("kaito.runtime.client.client.PAGE_SIZE", 3)
    assert [obj.name for obj in await client.list(ConfigMap, namespace="default")] == [f"c{n}" for n in range(7)]
    assert world.count("list", ConfigMap) == 3


@pytest.mark.conformance("client-05")
async def test_client_05_list_begins_again_when_its_page_token_expires(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        world.put(config(f"c{number}"))
    monkeypatch.setattr("kaito.runtime.client.client.PAGE_SIZE", 3)
    fault = world.fail_next("GET", ConfigMap, status=410)
    fault.skip = 1
    found = await client.list(ConfigMap, namespace="default")
    assert [obj.name for obj in found] == [f"c{n}" for n in range(7)]
    assert world.count("list", ConfigMap) == 3  # a page, the refused page, all at once


@pytest.mark.conformance("client-05")
async def test_client_05_a_list_whose_history_expires_between_pages_is_read_anew_and_shows_one_moment(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        world.put(config(f"c{number}"))
    monkeypatch.setattr("kaito.runtime.client.client.PAGE_SIZE", 3)
    requested: list[str] = []

    async def forgetful(request: ApiRequest, send: Callable[[ApiRequest], Awaitable[Reply]]) -> Reply:
        requested.append(request.target)
        reply = await send(request)
        if len(requested) == 2:  # c0 to c5 are read; the third page will be refused
            world.delete(ConfigMap, "c0")
            world.server.expire_history()
        return reply

    found = await client.intercepted(forgetful).list(ConfigMap, namespace="default")
    assert [obj.name for obj in found] == [f"c{n}" for n in range(1, 7)]
    assert [("continue=" in target, "limit=" in target) for target in requested] == [
        (False, True),
        (True, True),
        (True, True),
        (False, False),
    ]


async def test_update_is_guarded_by_the_version(client: Client) -> None:
    made = await client.create(config("a", k="1"))
    newer = await client.update(made.evolve(data={"k": "2"}))
    assert newer.data == {"k": "2"}
    with pytest.raises(Conflict) as caught:
        await client.update(made.evolve(data={"k": "3"}))
    assert not isinstance(caught.value, AlreadyExists)


async def test_update_keeps_fields_the_model_does_not_know(client: Client, world: World) -> None:
    world.put(
        Pod.model_validate(
            {
                "metadata": {"name": "p", "namespace": "default"},
                "spec": {"containers": [{"name": "a", "image": "b", "stdinOnce": True}], "setHostnameAsFQDN": True},
            }
        )
    )
    pod = await client.get(Pod, "p", "default")
    await client.update(pod.with_metadata(labels={"seen": "yes"}))
    raw = await client.raw("GET", "/api/v1/namespaces/default/pods/p")
    assert raw["spec"]["setHostnameAsFQDN"] is True
    assert raw["spec"]["containers"][0]["stdinOnce"] is True
    assert raw["metadata"]["labels"] == {"seen": "yes"}


async def test_status_is_written_apart(client: Client) -> None:
    made = await client.create(deployment("web"))
    busy = made.evolve(status=made.status.evolve(replicas=1, ready_replicas=1))
    unchanged = await client.update(busy.evolve(spec=made.spec.evolve(replicas=2)))
    assert (unchanged.spec.replicas, unchanged.status.ready_replicas) == (2, 0)
    written = await client.update_status(unchanged.evolve(status=busy.status, spec=made.spec))
    assert (written.spec.replicas, written.status.ready_replicas) == (2, 1)


async def test_apply_creates_changes_and_removes(client: Client) -> None:
    made = await client.apply(config("a", one="1", two="2"))
    assert made.data == {"one": "1", "two": "2"}
    changed = await client.apply(config("a", two="3"))
    assert changed.data == {"two": "3"}


async def test_apply_without_force_respects_other_managers(client: Client) -> None:
    await client.apply(config("a", k="theirs"), field_manager="others")
    with pytest.raises(Conflict) as caught:
        await client.apply(config("a", k="ours"), force=False)
    assert caught.value.causes[0]["field"] == ".data.k"
    assert (await client.apply(config("a", k="ours"))).data == {"k": "ours"}


async def test_apply_with_a_uid_never_creates(client: Client) -> None:
    obj = config("a").with_metadata(uid="11111111-2222-3333-4444-555555555555")
    with pytest.raises(Conflict):
        await client.apply(obj)


async def test_merge_patch_and_json_patch(client: Client) -> None:
    made = await client.create(config("a", keep="1", drop="2"))
    merged = await client.patch(made, MergePatch({"data": {"drop": None, "new": "3"}}))
    assert merged.data == {"keep": "1", "new": "3"}
    patched = await client.patch(
        made, JsonPatch([{"op": "test", "path": "/data/new", "value": "3"}, {"op": "remove", "path": "/data/new"}])
    )
    assert patched.data == {"keep": "1"}
    with pytest.raises(Invalid):
        await client.patch(made, JsonPatch([{"op": "test", "path": "/data/keep", "value": "other"}]))


async def test_an_empty_patch_is_not_sent(client: Client, world: World) -> None:
    obj = config("never-created")
    assert await client.patch(obj, MergePatch({})) is obj
    assert await client.patch(obj, JsonPatch([])) is obj
    assert world.count() == 0


async def test_merge_patch_between_two_states_with_lock(client: Client) -> None:
    made = await client.create(config("a", k="1"))
    wanted = made.evolve(data={"k": "2"})
    patch = MergePatch.between(made, wanted, lock=True)
    assert patch.document == {"data": {"k": "2"}, "metadata": {"resourceVersion": made.metadata.resource_version}}
    await client.patch(made, patch)
    with pytest.raises(Conflict):
        await client.patch(made, patch)


async def test_patch_of_a_subresource(client: Client) -> None:
    made = await client.create(deployment("web"))
    patched = await client.patch(made, MergePatch({"status": {"replicas": 4}}), subresource="status")
    assert patched.status.replicas == 4


async def test_delete_only_the_very_object(client: Client, world: World) -> None:
    first = await client.create(config("a"))
    world.delete(ConfigMap, "a")
    second = await client.create(config("a"))
    assert await client.delete(first) is False
    assert (await client.get(ConfigMap, "a", "default")).uid == second.uid
    assert await client.delete(first, if_uid=False) is True
    assert await client.delete(second) is False


async def test_delete_only_what_was_read(client: Client, world: World) -> None:
    read = await client.create(config("a"))
    world.patch(ConfigMap, "a", {"data": {"by": "another"}})
    with pytest.raises(Conflict):
        await client.delete(read, if_unchanged=True)
    with pytest.raises(Conflict):
        await client.delete(read, if_uid=False, if_unchanged=True)
    assert await client.delete(await client.get(ConfigMap, "a", "default"), if_unchanged=True)
    assert not await client.delete(read, if_unchanged=True)
    with pytest.raises(ConfigurationError, match="an object that was read"):
        await client.delete(config("a"), if_unchanged=True)


async def test_delete_with_result_reports_whether_the_object_remains(client: Client) -> None:
    held = await client.create(config("held").with_metadata(finalizers=["example.com/wait"]))
    result = await client.delete_with_result(held)
    assert (result.existed, result.is_deleted) == (True, False)
    assert result.resource_version == (await client.get(ConfigMap, "held", "default")).metadata.resource_version
    free = await client.create(config("free"))
    result = await client.delete_with_result(free)
    assert (result.existed, result.is_deleted, result.uid) == (True, True, free.uid)


async def test_delete_all_by_label(client: Client) -> None:
    for name, app in (("a", "x"), ("b", "x"), ("c", "y")):
        await client.create(config(name).with_metadata(labels={"app": app}))
    await client.delete_all(ConfigMap, namespace="default", labels={"app": "x"})
    assert [obj.name for obj in await client.list(ConfigMap, namespace="default")] == ["c"]


async def test_scale(client: Client) -> None:
    made = await client.create(deployment("web"))
    await client.scale(made, 5)
    assert (await client.get(Deployment, "web", "default")).spec.replicas == 5


async def test_evict(client: Client, world: World) -> None:
    pod = world.put(builders.pod("p"))
    assert await client.evict(pod, grace_seconds=0) is True
    assert await client.evict(pod) is False


async def test_eviction_rejected_by_a_budget_is_too_many_requests(client: Client, world: World) -> None:
    pod = world.put(builders.pod("p"))
    world.fail_next("POST", subresource="eviction", status=429, retry_after=10)
    with pytest.raises(TooManyRequests) as caught:
        await client.evict(pod)
    assert caught.value.retry_after == 10


async def test_cluster_scoped_kinds_need_no_namespace_and_ignore_one(client: Client) -> None:
    await client.create(Namespace(metadata=ObjectMeta(name="team")))
    assert (await client.get(Namespace, "team", "default")).name == "team"
    assert [node.name for node in await client.list(Node, namespace="default")] == []


async def test_raw_is_typed_in_its_errors(client: Client) -> None:
    assert (await client.raw("get", "/version"))["major"]
    with pytest.raises(NotFound):
        await client.raw("GET", "/apis/nothing.example.com/v1")
    with pytest.raises(BadRequest):
        await client.raw("POST", "/api/v1/namespaces", body={"kind": "Namespace", "apiVersion": "v9", "metadata": {}})


@pytest.mark.parametrize("name", ["", "a/b", "..", "a%2fb"])
async def test_a_name_cannot_leave_its_place_in_the_path(client: Client, world: World, name: str) -> None:
    with pytest.raises(ConfigurationError):
        await client.get(ConfigMap, name, "default")
    assert world.count() == 0


async def test_a_namespace_is_demanded_before_anything_is_sent(client: Client, world: World) -> None:
    with pytest.raises(ConfigurationError, match="is namespaced"):
        await client.get(ConfigMap, "a")
    with pytest.raises(ConfigurationError, match="is namespaced"):
        await client.create(ConfigMap(metadata=ObjectMeta(name="a")))
    assert world.count() == 0


async def test_every_write_names_the_field_manager(client: Client) -> None:
    made = await client.create(config("a", k="v"))
    fields = made.metadata.model_extra or {}
    assert fields["managedFields"][0]["manager"] == "test-manager"


async def test_an_object_that_does_not_fit_its_model_is_named_without_its_values(client: Client, world: World) -> None:
    class Odd(Resource, api="v1", kind="ConfigMap"):
        data: dict[str, int]

    world.put(config("a", password="hunter2"))
    with pytest.raises(UnreadableObject, match=r"ConfigMap does not fit its model: data\.password") as caught:
        await client.get(Odd, "a", "default")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_client_needs_a_field_manager() -> None:
    with pytest.raises(ConfigurationError, match="field manager"):
        Client(None, field_manager="")  # type: ignore[arg-type]  # refused before the transport is looked at
