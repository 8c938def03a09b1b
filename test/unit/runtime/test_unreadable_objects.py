"""Objects that a model does not fit: values that a newer API server adds, and strict models of custom kinds.

One pod with a toleration operator of a newer API server made every list of pods fail.
"""

import typing
from typing import Any

import pytest
import structlog
from pydantic.fields import FieldInfo

from kaito.runtime import kinds
from kaito.runtime.cache import Cached, Index
from kaito.runtime.client import Api
from kaito.runtime.client.unreadable import Unreadable
from kaito.runtime.controller import Controller
from kaito.runtime.crd import Version, crd
from kaito.runtime.errors import UnreadableObject
from kaito.runtime.kinds import ConfigMap, NetworkPolicy, Pod, untyped_kind
from kaito.runtime.kinds.deferred import Deferred
from kaito.runtime.meta import Condition, LabelSelector, Model, ObjectMeta, Quantity, Resource
from kaito.runtime.meta.condition import condition_of
from kaito.runtime.meta.model import MicroTime, Time, format_time
from kaito.runtime.reconcile import Request
from kaito.runtime.testing import World, pod

MODELS = {
    name: model
    for name in dir(kinds)
    if isinstance(model := getattr(kinds, name), type) and issubclass(model, Model) and model is not Model
}


def closed(annotation: object) -> bool:
    return typing.get_origin(annotation) is typing.Literal or any(map(closed, typing.get_args(annotation)))


def test_no_built_in_struct_has_a_closed_enumeration() -> None:
    assert len(MODELS) > 100
    assert not [
        f"{name}.{field}"
        for name, model in MODELS.items()
        for field, info in model.model_fields.items()
        if closed(info.annotation)
    ]


TEXTS = [
    f"{name}.{field}"
    for name, model in MODELS.items()
    for field, info in model.model_fields.items()
    if str(info.annotation) in {"<class 'str'>", "str | None"} and name != "Resource"
]


@pytest.mark.parametrize("place", TEXTS)
def test_every_text_field_accepts_an_unknown_value(place: str) -> None:
    name, field = place.split(".")
    model = MODELS[name]
    required = {
        info.alias or field: _sample(_type_of(info)) for field, info in model.model_fields.items() if info.is_required()
    }
    wire = model.model_fields[field].alias or field
    read = model.model_validate(required | {wire: "FromTheFuture"})
    assert getattr(read, field) == "FromTheFuture"
    assert read.to_dict()[wire] == "FromTheFuture"


def _type_of(info: FieldInfo) -> Any:
    deferred = [each.model for each in info.metadata if isinstance(each, Deferred)]
    return deferred[0] if deferred else info.annotation


def _sample(annotation: Any) -> object:
    if annotation is int:
        return 1
    if annotation is bool:
        return True
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return {
            info.alias or name: _sample(_type_of(info))
            for name, info in annotation.model_fields.items()
            if info.is_required()
        }
    return "2026-01-01T00:00:00Z"  # a text, and a time where one is wanted


async def test_a_pod_of_a_newer_server_is_listed_with_the_others(world: World) -> None:
    document = pod("new").to_dict()
    document["spec"]["tolerations"] = [{"key": "gpus", "operator": "Gt", "value": "3", "effect": "NoSchedule"}]
    document["spec"]["containers"][0]["imagePullPolicy"] = "Lazily"
    async with world.manager(cache=[Cached(Pod)]) as manager:
        world.put(pod("a"))
        world.put(untyped_kind("v1", "Pod", plural="pods").model_validate(document))
        await world.settle()
        found = await manager.api.list(Pod)
        assert [each.name for each in found] == ["a", "new"]
        assert found[1].spec.tolerations[0].operator == "Gt"
        assert found.unreadable == []


def test_an_unknown_member_of_a_union_is_kept() -> None:
    volumes = [{"name": "v", "hologram": {"size": 3}}]
    assert Pod.model_validate({"spec": {"volumes": volumes}}).to_dict()["spec"]["volumes"] == volumes


def test_an_unknown_selector_operator_is_read_and_selects_nothing() -> None:
    policy = NetworkPolicy.model_validate(
        {"spec": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}}
    )
    assert policy.spec.pod_selector.matches({"a": "2"}) is False
    assert str(LabelSelector.model_validate({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}))


def test_an_unknown_condition_status_is_read_as_unknown() -> None:
    class Status(Model):
        conditions: list[Condition] = []

    class Thing(Resource, api="example.com/v1", kind="Thing"):
        status: Status = Status()

    thing = Thing.model_validate({"status": {"conditions": [{"type": "Ready", "status": "Perhaps"}]}})
    assert thing.status.conditions[0].status == "Perhaps"
    assert condition_of(thing, "Ready").status == "Unknown"
    assert not thing.status.conditions[0].is_true


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("1e3", 1000),
        ("12E2", 1200),
        ("5E", 5 * 10**18),
        ("+1.5Gi", 3 * 2**29),
        (".5", 1),
        ("1e-9", 1),
        ("1e999999999", 2**63 - 1),
        ("-1e999999999", -(2**63 - 1)),
        ("1e-999999999", 1),
        ("0e999999999", 0),
        ("99999999999999999999Ei", 2**63 - 1),
    ],
)
def test_a_quantity_of_any_size_is_bounded_as_the_api_server_bounds_it(text: str, whole: int) -> None:
    assert int(Quantity(text)) == whole
    assert str(Quantity(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.1Z",
        "2026-01-02T03:04:05.123456789Z",
        "2026-01-02T05:04:05+02:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ],
)
def test_times_of_any_precision_are_read(text: str) -> None:
    class Moments(Model):
        time: Time
        micro: MicroTime

    read = Moments.model_validate_json(f'{{"time": "{text}", "micro": "{text}"}}')
    again = Moments.model_validate(read.to_dict())
    assert again.micro == read.micro
    assert len(format_time(read.time)) == len("2026-01-02T03:04:05Z")


class Spec(Model):
    size: int = 0


class App(Resource, api="example.com/v1", kind="App"):
    """A custom kind whose model is stricter than its CustomResourceDefinition."""

    spec: Spec = Spec()


def put(world: World, name: str, size: object, **metadata: Any) -> None:
    manifest = crd([Version(model=App, storage=True)])
    schema = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["size"] = {"x-kubernetes-preserve-unknown-fields": True}
    world.install(manifest)
    raw = untyped_kind("example.com/v1", "App", plural="apps")
    metadata = {"name": name, "namespace": "default", "labels": {"app": "x"}, **metadata}
    world.put(raw.model_validate({"metadata": metadata, "spec": {"size": size}}))


BY_SIZE = Index(App, lambda app: [str(app.spec.size)], name="by-size")


@pytest.mark.parametrize("consistency", ["own-writes", "live"])
async def test_one_object_that_does_not_fit_does_not_stop_a_list(consistency: Any, world: World) -> None:
    put(world, "a", 1)
    put(world, "bad", "many")
    put(world, "c", 3)
    async with world.manager(cache=[Cached(App)]) as manager:
        with structlog.testing.capture_logs() as logged:
            for labels in (None, "app=x"):
                found = await manager.api.list(App, labels=labels, consistency=consistency)
                assert [each.name for each in found] == ["a", "c"]
                assert [error.key for error in found.unreadable] == ["default/bad"]
                assert "App default/bad does not fit its model: spec.size" in str(found.unreadable[0])
                assert "many" not in str(found.unreadable[0])
            assert [each.name for each in manager.cache.list(App)] == ["a", "c"]
        assert len([line for line in logged if "left out" in line["event"]]) <= 1  # once for each state of the object
        with pytest.raises(UnreadableObject, match="default/bad"):
            await manager.api.list(App, consistency=consistency, unreadable="fail")
        with pytest.raises(UnreadableObject):
            await manager.api.get(App, "bad", "default")


@pytest.mark.parametrize("consistency", ["own-writes", "live"])
async def test_a_list_of_somethings_objects_fails_rather_than_miss_one(consistency: Any, world: World) -> None:
    owner = world.put(ConfigMap(metadata=ObjectMeta(name="owner")))
    other = world.put(ConfigMap(metadata=ObjectMeta(name="other")))
    put(world, "a", 1)
    put(world, "bad", "many", ownerReferences=[owner.owner_reference().to_dict()])

    async def names(api: Api, unreadable: Unreadable | None = None, **question: Any) -> list[str]:
        found = await api.list(App, consistency=consistency, unreadable=unreadable, **question)
        return [each.name for each in found]

    async with world.manager(cache=[Cached(App, indexes=[BY_SIZE])]) as manager:
        with pytest.raises(UnreadableObject, match="default/bad"):
            await names(manager.api, owned_by=owner)
        assert await names(manager.api, owned_by=other) == []
        assert await names(manager.api, "skip", owned_by=owner) == []
        with pytest.raises(UnreadableObject, match="default/bad"):
            await names(manager.api, index=BY_SIZE("1"))
        found = await manager.api.list(App, index=BY_SIZE("1"), consistency=consistency, unreadable="skip")
        assert [each.name for each in found] == ["a"]
        assert [error.key for error in found.unreadable] == ["default/bad"]


async def test_other_objects_are_reconciled_and_the_unreadable_one_fails_alone(world: World) -> None:
    seen: list[str] = []

    async def reconcile(request: Request[App]) -> None:
        listed = await request.api.list(App)
        seen.append(f"{request.key.name} of {len(listed)}")

    put(world, "a", 1)
    put(world, "bad", "many")
    async with world.manager(Controller(App, reconcile)):
        await world.settle()
        assert seen == ["a of 1"]
        assert {run.outcome for run in world.reconciles("default/bad")} == {"error"}
        world.patch(untyped_kind("example.com/v1", "App", plural="apps"), "bad", {"spec": {"size": 2}})
        await world.settle()
        assert seen == ["a of 1", "bad of 2"]
