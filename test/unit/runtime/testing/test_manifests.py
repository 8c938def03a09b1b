"""`World.apply` does what `kubectl apply --server-side` does; `World.condition` reads a status."""

from pathlib import Path
from typing import Any

import pytest

from kaito.runtime import Condition, Model, ObjectMeta, Resource
from kaito.runtime.crd import Version, crd, to_yaml
from kaito.runtime.errors import ApiError, ConfigurationError, Conflict, NotFound
from kaito.runtime.kinds import ConfigMap, Namespace, Node
from kaito.runtime.testing import World, node

TWO = """
    apiVersion: v1
    kind: Namespace
    metadata:
      name: prod
    ---
    # a comment and an empty document do no harm
    ---
    apiVersion: v1
    kind: ConfigMap
    metadata:
      name: words
      namespace: prod
    data:
      hello: world
"""


class LampStatus(Model):
    conditions: list[Condition] = []


class Lamp(Resource, api="light.example.com/v1", kind="Lamp"):
    status: LampStatus = LampStatus()


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_documents_are_applied_in_order(world: World) -> None:
    applied = world.apply(TWO)
    assert [manifest["kind"] for manifest in applied] == ["Namespace", "ConfigMap"]
    assert world.get(Namespace, "prod").status.phase == "Active"
    assert world.get(ConfigMap, "words", "prod").data == {"hello": "world"}


async def test_applying_again_removes_fields_that_the_manifest_omits(world: World) -> None:
    world.apply(config("a", one="1", two="2"), namespace="default")
    world.patch(ConfigMap, "a", {"data": {"three": "3"}})
    world.apply(config("a", one="1"))
    assert world.get(ConfigMap, "a").data == {"one": "1", "three": "3"}


async def test_what_others_own_is_a_conflict(world: World) -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name="a"), data={"one": "mine"}))
    with pytest.raises(Conflict, match=r"\.data\.one"):
        world.apply(config("a", one="yours"))


async def test_unknown_fields_are_rejected_as_kubectl_rejects_them(world: World) -> None:
    with pytest.raises(ApiError, match="color"):
        world.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}, "spec": {"color": "red"}})


async def test_files_folders_and_lists_are_read(world: World, tmp_path: Path) -> None:
    (tmp_path / "1-crd.yaml").write_text(to_yaml(crd([Version(model=Lamp, storage=True)])))
    (tmp_path / "2-lamp.json").write_text(
        '{"apiVersion": "light.example.com/v1", "kind": "Lamp", "metadata": {"name": "a"}}'
    )
    (tmp_path / "notes.txt").write_text("not a manifest")
    world.apply(tmp_path)
    assert world.get(Lamp, "a").name == "a"
    world.apply({"apiVersion": "v1", "kind": "List", "items": [config("b"), config("c")]}, namespace="kube-system")
    assert [found.name for found in world.list(ConfigMap, "kube-system")] == ["b", "c"]
    world.apply(tmp_path / "2-lamp.json", namespace="kube-system")
    assert world.find(Lamp, "a", "kube-system") is not None


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ("deploy/rbac.yaml", "pass files and directories as Path"),
        ("kind: ConfigMap", "has no apiVersion"),
        ("apiVersion: v1\nkind: ConfigMap", "a ConfigMap, has no metadata.name"),
        ("apiVersion: e.com/v1\nkind: Lamp\nmetadata: {name: a}", 'no matches for kind "Lamp" in version "e.com/v1"'),
        ("apiVersion: v1\nkind: Lamp\nmetadata: {name: a}", 'no matches for kind "Lamp" in version "v1"'),
    ],
)
async def test_what_cannot_be_applied_is_reported(world: World, manifest: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        world.apply(manifest)


async def test_a_condition_is_read_in_one_word(world: World) -> None:
    ready = Condition(type="Ready", status="False", reason="NoBulb", message="there is no bulb")
    world.put(Lamp(metadata=ObjectMeta(name="a"), status=LampStatus(conditions=[ready])))
    assert world.condition(Lamp, "a", "Ready").reason == "NoBulb"
    assert not world.condition(Lamp, "a", "Ready").is_true
    absent = world.condition(Lamp, "a", "Warm")
    assert (absent.status, absent.reason) == ("Unknown", "")
    with pytest.raises(NotFound):
        world.condition(Lamp, "b", "Ready")


async def test_conditions_of_older_kinds_are_read_alike(world: World) -> None:
    world.put(node("n1"))
    assert world.condition(Node, "n1", "Ready").is_true
    world.patch(Node, "n1", {"status": {"conditions": [{"type": "Ready", "status": "perhaps"}]}}, subresource="status")
    assert world.condition(Node, "n1", "Ready").status == "Unknown"
    world.put(ConfigMap(metadata=ObjectMeta(name="a")))
    assert world.condition(ConfigMap, "a", "Ready").status == "Unknown"
