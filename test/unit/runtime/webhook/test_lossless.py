"""Conversions that keep in an annotation what a version cannot say."""

from typing import Any

import pytest

from kaito.runtime import Model, ObjectMeta, Resource
from kaito.runtime.crd import Version, crd
from kaito.runtime.testing import World
from kaito.runtime.webhook import Conversion, Spoke, conversion_manifest

GROUP = "lossless.test.dev"


class NewSpec(Model):
    replicas: int = 1
    cpu: str | None = None
    """In thousandths; the old version has whole ones."""
    parameters: dict[str, str] = {}


class Status(Model):
    ready: int = 0


class New(Resource, api=f"{GROUP}/v1", kind="Gadget"):
    spec: NewSpec = NewSpec()
    status: Status = Status()


class OldSpec(Model):
    size: int = 1
    cpus: int | None = None
    flavor: str | None = None


class Old(Resource, api=f"{GROUP}/v1beta1", kind="Gadget"):
    spec: OldSpec = OldSpec()
    status: Status = Status()


class OlderSpec(Model):
    size: int = 1


class Older(Resource, api=f"{GROUP}/v1alpha1", kind="Gadget"):
    spec: OlderSpec = OlderSpec()


def up(old: Old) -> New:
    cpu = None if old.spec.cpus is None else f"{old.spec.cpus}000m"
    return New(metadata=old.metadata, spec=NewSpec(replicas=old.spec.size, cpu=cpu))  # forgets the status


def down(new: New) -> Old:
    cpus = None if new.spec.cpu is None else int(new.spec.cpu.removesuffix("m")) // 1000
    return Old(metadata=new.metadata, spec=OldSpec(size=new.spec.replicas, cpus=cpus))


def up_older(older: Older) -> New:
    return New(metadata=ObjectMeta(name=older.name), spec=NewSpec(replicas=older.spec.size))  # drops annotations


def down_older(new: New) -> Older:
    return Older(metadata=ObjectMeta(name=new.name), spec=OlderSpec(size=new.spec.replicas))


conversion = Conversion(New, Spoke(Old, up, down), Spoke(Older, up_older, down_older), lossless=True)
V1, V1BETA1, V1ALPHA1 = New.api_version, Old.api_version, Older.api_version


def new(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "a", "annotations": {"mine": "x"}}
    return {"apiVersion": V1, "kind": "Gadget", "metadata": metadata, "spec": spec, "status": {"ready": 2}}


def old(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": V1BETA1, "kind": "Gadget", "metadata": {"name": "a"}, "spec": spec}


def test_there_and_back_nothing_is_lost() -> None:
    document = new(replicas=3, cpu="1500m", parameters={"a": "b"})
    through = conversion.convert(document, V1BETA1)
    assert through["spec"] == {"size": 3, "cpus": 1}
    assert through["metadata"]["annotations"].keys() == {"mine", f"{GROUP}/kept-from-v1"}
    assert conversion.convert(through, V1) == document


def test_the_other_way_round_too() -> None:
    document = old(size=2, flavor="vanilla")
    through = conversion.convert(document, V1)
    assert through["spec"] == {"replicas": 2}
    assert through["metadata"]["annotations"].keys() == {f"{GROUP}/kept-from-v1beta1"}
    assert conversion.convert(through, V1BETA1) == document


def test_what_was_changed_on_the_way_is_newer() -> None:
    through = conversion.convert(new(replicas=3, cpu="1500m", parameters={"a": "b"}), V1BETA1)
    through["spec"] |= {"size": 4, "cpus": 2}
    back = conversion.convert(through, V1)
    assert back["spec"] == {"replicas": 4, "cpu": "2000m", "parameters": {"a": "b"}}


def test_a_value_taken_away_on_the_way_stays_away() -> None:
    through = conversion.convert(new(replicas=3, cpu="1500m"), V1BETA1)
    del through["spec"]["cpus"]
    assert conversion.convert(through, V1)["spec"] == {"replicas": 3}


def test_nothing_is_kept_when_nothing_is_lost() -> None:
    document = old(size=2)
    assert "annotations" not in conversion.convert(document, V1)["metadata"]


def test_it_holds_across_two_steps_and_for_functions_that_drop_annotations() -> None:
    document = old(size=2, flavor="vanilla")
    through = conversion.convert(document, V1ALPHA1)
    assert through["spec"] == {"size": 2}
    assert conversion.convert(through, V1BETA1) == document


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"lost": 3}', '{"lost": {"spec": 3}, "instead": {}}'])
def test_an_annotation_that_somebody_wrote_breaks_nothing(text: str) -> None:
    document = old(size=2)
    document["metadata"]["annotations"] = {f"{GROUP}/kept-from-v1": text}
    assert conversion.convert(document, V1)["spec"] == {"replicas": 2}


async def test_an_object_edited_in_its_old_version_keeps_its_new_fields(world: World) -> None:
    versions = [Version(model=New, storage=True), Version(model=Old), Version(model=Older)]
    world.install(crd(versions, conversion=conversion_manifest(namespace="default", service="gadgets")))
    world.convert(conversion)
    world.put(New(metadata=ObjectMeta(name="a"), spec=NewSpec(parameters={"a": "b"}), status=Status(ready=1)))
    world.patch(Old, "a", {"spec": {"size": 5, "flavor": "vanilla"}})
    stored = world.get(New, "a")
    assert (stored.spec.replicas, stored.spec.parameters, stored.status.ready) == (5, {"a": "b"}, 1)
    assert world.get(Old, "a").spec.flavor == "vanilla"
    world.patch(New, "a", {"spec": {"replicas": 6}})
    assert world.get(Old, "a").spec.to_dict() == {"size": 6, "flavor": "vanilla"}
