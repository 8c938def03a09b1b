"""The client and `Api` against both servers: their guarantees hold on a real kube-apiserver."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar, Protocol

import pytest
import yaml

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Api, Client, JsonPatch, MergePatch, connect
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.client.managed_fields import managed_fields_of
from kaito.runtime.client.write_context import writing_as
from kaito.runtime.clock import SystemClock
from kaito.runtime.crd import Column, Rule, Version, crd
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.errors import (
    AlreadyExists,
    AlreadyOwned,
    BadRequest,
    Conflict,
    Invalid,
    NotFound,
)
from kaito.runtime.finalizer import add_finalizer, remove_finalizer
from kaito.runtime.kinds import ConfigMap, Deployment, Event, Namespace, Pod, untyped_kind
from kaito.runtime.meta import Condition, GroupVersionKind, Model, ObjectMeta, Resource
from kaito.runtime.recorder import EventRecorder
from kaito.runtime.tasks import TaskScope


class At(Protocol):
    """The part of the `server` fixture used here."""

    @property
    def kubeconfig(self) -> Path:
        """Path of a kubeconfig with every right."""
        ...

    @property
    def namespace(self) -> str:
        """The test's own namespace."""
        ...


class GaugeSpec(Model):
    size: int = 1
    """How many."""


class GaugeStatus(Model):
    ready: int = 0
    observed_generation: int | None = None
    conditions: list[Condition] = []


class Gauge(Resource, api="contract.example.com/v1", kind="ContractGauge"):
    """A kind of these tests."""

    rules: ClassVar = (Rule("self.spec.size < 100", "too many"),)

    spec: GaugeSpec
    status: GaugeStatus = GaugeStatus()


@pytest.fixture
async def transport(server: At) -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(await find_cluster_config(server.kubeconfig))
    yield transport
    await transport.close()


@pytest.fixture
async def client(transport: HttpTransport) -> Client:
    return Client(transport, field_manager="contract", discovery=ServerDiscovery(transport))


@pytest.fixture
async def api(transport: HttpTransport, client: Client) -> AsyncIterator[Api]:
    """An `Api` over a synced cache of ConfigMaps and Deployments."""
    cache = Cache(transport, [Cached(ConfigMap), Cached(Deployment)], clock=SystemClock(), rng=random.Random(1))
    async with TaskScope("contract") as scope:
        scope.spawn(cache.run(), name="cache")
        async with asyncio.timeout(20):
            await cache.wait_synced()
        yield Api(client, cache, live=[Gauge])


@pytest.fixture
def namespace(server: At) -> str:
    return server.namespace


def config(namespace: str, name: str = "a", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace), data=data)


@pytest.mark.conformance("client-01")
async def test_errors_are_typed_with_reason_and_causes(client: Client, namespace: str) -> None:
    with pytest.raises(NotFound) as missing:
        await client.get(ConfigMap, "none", namespace)
    assert (missing.value.reason, missing.value.details["name"]) == ("NotFound", "none")
    await client.create(config(namespace))
    with pytest.raises(AlreadyExists):
        await client.create(config(namespace))
    with pytest.raises(Invalid) as invalid:
        await client.create(config(namespace, "Not A Name"))
    assert invalid.value.causes[0]["field"] == "metadata.name"
    with pytest.raises(NotFound) as unserved:
        await client.raw("GET", "/apis/nothing.example.com/v1/things")
    assert not unserved.value.details.get("name")
    with pytest.raises(BadRequest):
        await client.raw("POST", f"/api/v1/namespaces/{namespace}/configmaps", body={"data": 5})


async def test_versions_guard_updates_and_patches(client: Client, namespace: str) -> None:
    made = await client.create(config(namespace, k="1"))
    await client.update(made.evolve(data={"k": "2"}))
    with pytest.raises(Conflict):
        await client.update(made.evolve(data={"k": "3"}))
    with pytest.raises(Conflict):
        await client.patch(made, MergePatch.between(made, made.evolve(data={"k": "3"}), lock=True))
    with pytest.raises(Invalid):
        await client.patch(made, JsonPatch([{"op": "test", "path": "/data/k", "value": "1"}]))


async def test_apply_owns_fields(client: Client, namespace: str) -> None:
    await client.apply(config(namespace, one="1", two="2"))
    assert (await client.apply(config(namespace, two="2"))).data == {"two": "2"}
    with pytest.raises(Conflict) as caught:
        await client.apply(config(namespace, two="3"), field_manager="others", force=False)
    assert caught.value.causes[0]["field"] == ".data.two"
    stranger = config(namespace, "b").with_metadata(uid="11111111-2222-3333-4444-555555555555")
    with pytest.raises(Conflict):
        await client.apply(stranger)


async def test_pages_and_selectors(client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaito.runtime.client.client.PAGE_SIZE", 2)
    for number in range(5):
        obj = config(namespace, f"c{number}").with_metadata(labels={"odd": str(number % 2)})
        await client.create(obj)
    found = await client.list(ConfigMap, namespace=namespace, labels="odd")
    assert [obj.name for obj in found] == [f"c{n}" for n in range(5)]
    assert int(found.resource_version) > 0
    assert len(await client.list(ConfigMap, namespace=namespace, labels={"odd": "1"})) == 2
    assert len(await client.list(ConfigMap, namespace=namespace, fields={"metadata.name": "c3"})) == 1


async def test_deletes_know_whom_they_mean(client: Client, namespace: str) -> None:
    first = await client.create(config(namespace))
    assert await client.delete(first) is True
    second = await client.create(config(namespace).with_metadata(finalizers=["example.com/x"]))
    assert await client.delete(first) is False
    result = await client.delete_with_result(second)
    assert (result.is_deleted, result.uid) == (False, second.uid)
    left = await client.get(ConfigMap, "a", namespace)
    await client.update(left.with_metadata(finalizers=[]))
    assert await client.find(ConfigMap, "a", namespace) is None
    read = await client.create(config(namespace))
    changed = await client.patch(read, MergePatch({"data": {"a": "b"}}))
    with pytest.raises(Conflict):
        await client.delete(read, if_unchanged=True)
    assert await client.delete(changed, if_unchanged=True)
    assert not await client.delete(changed, if_unchanged=True)
    third = await client.delete_with_result(await client.create(config(namespace)))
    assert third.is_deleted


async def test_pods_are_deleted_and_evicted(client: Client, namespace: str) -> None:
    def pod(name: str) -> Pod:
        spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "nowhere"}
        return Pod.model_validate({"metadata": {"name": name, "namespace": namespace}, "spec": spec})

    bound = await client.create(pod("a"))
    result = await client.delete_with_result(bound, grace_seconds=30)
    assert (result.existed, result.is_deleted) == (True, False)  # the kubelet's turn
    assert (await client.delete_with_result(bound, grace_seconds=0)).is_deleted
    assert await client.evict(await client.create(pod("b")), grace_seconds=0) is True
    assert await client.evict(pod("none")) is False


async def test_a_dry_run_of_every_verb_is_validated_and_not_stored(client: Client, namespace: str) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    metadata = {"name": "app", "namespace": namespace}
    app = await client.create(Deployment.model_validate({"metadata": metadata, "spec": spec}))
    pod = await client.create(Pod.model_validate({"metadata": metadata, "spec": template["spec"]}))
    kept = await client.create(config(namespace, text="1"))

    async def all_there() -> list[list[tuple[str, str]]]:
        return [
            [(obj.name, obj.metadata.resource_version) for obj in await client.list(kind, namespace=namespace)]
            for kind in (ConfigMap, Deployment, Pod)
        ]

    before = await all_there()
    dry = client.dry_run()
    assert (await dry.create(config(namespace, "new", text="1"))).uid
    assert (await dry.update(kept.evolve(data={"text": "2"}))).data == {"text": "2"}
    assert (await dry.patch(kept, MergePatch({"data": {"text": "3"}}))).data["text"] == "3"
    assert (await dry.apply(config(namespace, text="4"))).data["text"] == "4"
    await dry.update_status(app)
    await dry.scale(app, 7)
    assert (await dry.delete_with_result(kept)).is_deleted
    await dry.delete_all(ConfigMap, namespace=namespace, labels=None)
    assert await dry.evict(pod)
    await dry.raw("DELETE", f"/api/v1/namespaces/{namespace}/configmaps/a")
    with pytest.raises(Invalid):
        await dry.create(config(namespace, "No Name"))
    assert await all_there() == before


async def test_a_bound_client_needs_no_namespace(client: Client, namespace: str) -> None:
    bound = client.namespaced(namespace)
    made = await bound.create(config("", text="1"))
    assert made.namespace == namespace
    assert (await bound.apply(config("", "b", text="1"))).namespace == namespace
    version = made.metadata.resource_version
    await bound.update(config("", text="2").with_metadata(resource_version=version))
    await bound.patch(config(""), MergePatch({"data": {"more": "3"}}))
    assert [obj.data for obj in await bound.list(ConfigMap) if obj.name == "a"] == [{"text": "2", "more": "3"}]
    assert (await bound.get(Namespace, namespace)).name == namespace
    assert await bound.delete(config(""))
    assert await client.find(ConfigMap, "a", namespace) is None


@pytest.mark.real
async def test_a_kubeconfig_may_impersonate(real: At, tmp_path: Path) -> None:
    content = yaml.safe_load(real.kubeconfig.read_text())
    content["users"][0]["user"] |= {
        "as": "jane",
        "as-uid": "1234",
        "as-groups": ["admins", "staff"],
        "as-user-extra": {"example.com/Reason": ["on call", "again"]},
    }
    (tmp_path / "config").write_text(yaml.safe_dump(content))
    async with connect(tmp_path / "config", field_manager="contract") as jane:
        answer = await jane.raw("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body={})
    assert answer["status"]["userInfo"] == {
        "username": "jane",
        "uid": "1234",
        "groups": ["admins", "staff", "system:authenticated"],
        "extra": {"example.com/reason": ["on call", "again"]},
    }


async def test_discovery_finds_plurals(client: Client, transport: HttpTransport, namespace: str) -> None:
    ingress = untyped_kind("networking.k8s.io/v1", "Ingress")
    assert list(await client.list(ingress, namespace=namespace)) == []
    pods = await ServerDiscovery(transport).find(GroupVersionKind("", "v1", "Pod"))
    assert pods is not None
    assert {"status", "eviction"} <= pods.subresources


@pytest.mark.conformance(36)
async def test_ensure_is_idempotent_and_repairs(api: Api, namespace: str) -> None:
    web = Deployment.model_validate(
        {
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "containers": [
                            {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}}
                        ]
                    },
                },
            },
        }
    )
    owner = await api.create(config(namespace, "owner"))
    first = await api.ensure(web, owner=owner)
    again = await api.ensure(web, owner=owner)
    assert again.metadata.resource_version == first.metadata.resource_version
    await api.scale(first, 7)
    assert (await api.get(Deployment, "web", namespace)).spec.replicas == 7
    assert (await api.ensure(web, owner=owner)).spec.replicas == 1
    other = await api.create(config(namespace, "other"))
    with pytest.raises(AlreadyOwned):
        await api.ensure(web, owner=other)


async def test_empty_metadata_is_no_difference(api: Api, namespace: str) -> None:
    """A server that stored empty maps would make every status of the object cost a request."""
    web = Deployment.model_validate(
        {
            "metadata": {"name": "web", "namespace": namespace, "labels": {}, "annotations": {}, "finalizers": []},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]},
                },
            },
        }
    )
    first = await api.ensure(web)
    assert not {"labels", "annotations", "finalizers"} & first.to_dict()["metadata"].keys()
    status = {"status": {"observedGeneration": 1, "replicas": 1}}
    written = await api.patch(first, MergePatch(status), subresource="status")
    again = await api.ensure(web)
    assert again.metadata.resource_version == written.metadata.resource_version
    annotated = await api.ensure(web.with_metadata(annotations={"note": "x"}))
    assert annotated.annotations == {"note": "x"}
    assert (await api.ensure(web)).annotations == {}


@pytest.mark.conformance(32)
async def test_own_writes_are_seen_at_once(api: Api, namespace: str) -> None:
    kept: list[str] = []
    for number in range(20):
        made = await api.create(config(namespace, f"c{number:02}"))
        assert [obj.name for obj in await api.list(ConfigMap, namespace=namespace)] == [*kept, made.name]
        if number % 2:
            await api.delete(made)
            assert await api.find(ConfigMap, made.name, namespace) is None
        else:
            kept.append(made.name)


async def test_a_missing_field_is_null_in_the_test_of_a_json_patch(client: Client, namespace: str) -> None:
    made = await client.create(config(namespace))
    label = {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}
    unlabeled = {"op": "test", "path": "/metadata/labels", "value": None}
    assert (await client.patch(made, JsonPatch([unlabeled, label]))).labels == {"a": "b"}
    with pytest.raises(Invalid):
        await client.patch(made, JsonPatch([unlabeled, label]))
    with pytest.raises(Invalid):
        await client.patch(made, JsonPatch([{**unlabeled, "path": "/nothing/labels"}]))


async def test_finalizers_come_and_go(api: Api, namespace: str) -> None:
    made = await api.create(config(namespace))
    await api.patch(made, MergePatch({"data": {"k": "2"}}))
    held = await add_finalizer(api, made, "example.com/one")  # from a stale object
    assert held.data == {"k": "2"}
    await add_finalizer(api, made, "example.com/two")  # from a stale object
    await api.delete(held)
    deleting = await api.get(ConfigMap, "a", namespace)
    assert deleting.deleting
    with pytest.raises(Invalid):
        await add_finalizer(api, deleting, "example.com/late")
    await remove_finalizer(api, deleting, "example.com/one")
    await remove_finalizer(api, deleting, "example.com/two")  # from a stale object
    assert await api.find(ConfigMap, "a", namespace) is None


async def test_a_generated_definition_is_accepted_and_served(api: Api, namespace: str) -> None:
    client = api.client
    definition = crd([Version(model=Gauge, storage=True, columns=[Column("Size", ".spec.size", "integer")])])
    await client.raw(
        "PATCH",
        f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}",
        query={"fieldManager": "contract", "force": True},
        body=definition,
        content_type="application/apply-patch+yaml",
    )
    gauge = Gauge(metadata=ObjectMeta(name="g", namespace=namespace), spec=GaugeSpec())
    async with asyncio.timeout(20):
        while True:
            try:
                made = await client.create(gauge)
                break
            except NotFound:  # not served yet
                await asyncio.sleep(0.1)
    assert made.spec.size == 1
    assert made.metadata.generation == 1
    with pytest.raises(Invalid, match="too many"):
        await client.patch(made, MergePatch({"spec": {"size": 100}}))
    for _ in range(2):
        async with api.status(await api.get(Gauge, "g", namespace)) as status:
            status.condition("Ready", True, "Fine")
            status.set(ready=1)
    written = await client.get(Gauge, "g", namespace)
    assert (written.status.ready, written.status.observed_generation) == (1, 1)
    assert written.metadata.generation == 1
    async with api.status(made) as status:  # stale: the conflict is solved inside
        status.condition("Other", False, "Why")
    written = await client.get(Gauge, "g", namespace)
    assert sorted(condition.type for condition in written.status.conditions) == ["Other", "Ready"]


async def test_events_are_accepted(client: Client, namespace: str) -> None:
    subject = await client.create(config(namespace, "subject"))
    scope_of_it = await client.get(Namespace, namespace)
    dropped: list[str] = []
    recorder = EventRecorder(client, component="contract-tests", on_drop=dropped.append)
    async with TaskScope("events") as scope:
        scope.spawn(recorder.run(), name="recorder")
        await asyncio.sleep(0)
        for _ in range(2):
            recorder.record(subject, "Warning", "Broken", "it broke", action="Mend")
        for number in range(12):
            recorder.record(subject, "Normal", "Counted", f"number {number}", action="Count")
        recorder.record(scope_of_it, "Normal", "Shared", "ü" * 2000, action="Share", related=subject)
    assert dropped == []
    events = await client.list(Event, namespace=namespace)
    broken = [event for event in events if event.reason == "Broken"]
    assert len(broken) == 1
    assert broken[0].series is not None
    assert broken[0].series.count == 2
    assert len([event for event in events if event.reason == "Counted"]) == 10
    shared = [event for event in await client.list(Event, namespace="default") if event.reason == "Shared"]
    assert namespace in {event.regarding.name for event in shared}


class Plain(Resource, api="contract.example.com/v1", kind="ContractPlain"):
    """A kind whose CustomResourceDefinition has no subresources."""

    status: GaugeStatus = GaugeStatus()


async def test_a_missing_subresource_is_distinguished_from_a_missing_object(api: Api, namespace: str) -> None:
    """kube-apiserver answers both alike."""
    client = api.client
    definition = crd([Version(model=Plain, storage=True)])
    del definition["spec"]["versions"][0]["subresources"]
    await client.raw(
        "PATCH",
        f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}",
        query={"fieldManager": "contract", "force": True},
        body=definition,
        content_type="application/apply-patch+yaml",
    )
    plain = Plain(metadata=ObjectMeta(name="p", namespace=namespace))
    async with asyncio.timeout(20):
        while True:
            try:
                made = await client.create(plain)
                break
            except NotFound:  # not served yet
                await asyncio.sleep(0.1)
    with pytest.raises(
        NotFound, match=r"exists, but contractplains of contract\.example\.com/v1 have no 'status'"
    ) as missing:
        async with api.status(made) as status:
            status.set(ready=1)
    assert not missing.value.is_object
    with pytest.raises(NotFound, match="no 'scale' subresource"):
        await client.scale(made, 2)
    await client.delete(made)
    async with api.status(made) as status:  # gone: nothing to say it about
        status.set(ready=1)
    pod = Pod(metadata=ObjectMeta(name="none", namespace=namespace))
    assert not await client.evict(pod)
    assert not await client.delete(pod)


async def test_fields_of_a_former_field_manager_are_removed(client: Client, api: Api, namespace: str) -> None:
    """A version that applied as the manager itself, then one whose controller applies less."""
    await client.apply(config(namespace, "shared", a="1", dropped="1"))
    await client.apply(config(namespace, "shared", theirs="1"), field_manager="another")
    with writing_as("shop"):
        ensured = await api.ensure(config(namespace, "shared", a="1"))
    assert ensured.data == {"a": "1", "theirs": "1"}
    entries = managed_fields_of(await client.get(ConfigMap, "shared", namespace))
    assert {(entry.manager, entry.operation) for entry in entries} == {
        ("contract/shop", "Apply"),
        ("another", "Apply"),
    }
    with writing_as("other"):
        await api.ensure(config(namespace, "shared", b="1"))
    with writing_as("shop"):
        assert (await api.ensure(config(namespace, "shared", a="2"))).data == {"a": "2", "b": "1", "theirs": "1"}
