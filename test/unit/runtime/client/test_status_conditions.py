"""The status scope writes conditions in the class the kind has, and rejects at once what it cannot write."""

from typing import Any

import pytest

from kaito.runtime.cache import Cached
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import Deployment, Node
from kaito.runtime.kinds.apps import DeploymentSpec
from kaito.runtime.meta import LabelSelector, Model, ObjectMeta, Resource
from kaito.runtime.testing import World, node


class LooseStatus(Model):
    conditions: list[dict[str, Any]] = []


class Loose(Resource, api="test.example.com/v1", kind="Loose", plural="looses"):
    status: LooseStatus = LooseStatus()


def deployment() -> Deployment:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = DeploymentSpec.model_validate({"selector": LabelSelector(match_labels={"a": "b"}), "template": template})
    return Deployment(metadata=ObjectMeta(name="d", namespace="default"), spec=spec)


async def test_kinds_with_conditions_of_their_own_are_written_in_them(world: World) -> None:
    async with world.manager(cache=[Cached(Node), Cached(Deployment)]) as manager:
        world.put(node("n1"))
        world.put(deployment())
        await world.settle()
        n1 = await manager.api.get(Node, "n1", "")
        async with manager.api.status(n1) as status:
            assert status.condition("Ready", False, "KubeletStopped", "gone")
            assert status.condition("DiskHealthy", True, "Checked")
            assert not status.condition("DiskHealthy", True, "Checked")
            found = status.find("Ready")
            assert found is not None
            assert found.reason == "KubeletStopped"
        stored = await manager.api.get(Deployment, "d", "default")
        async with manager.api.status(stored) as status:
            status.condition("Progressing", None, "Paused")
    assert world.condition(Node, "n1", "Ready").message == "gone"
    healthy = world.get(Node, "n1").to_dict()["status"]["conditions"][1]
    assert "observedGeneration" not in healthy
    assert healthy["lastTransitionTime"] == "2030-01-01T00:00:00Z"
    assert world.condition(Deployment, "d", "Progressing").reason == "Paused"


async def test_conditions_without_a_model_are_rejected_at_once(world: World) -> None:
    async with world.manager(cache=[Cached(Loose)]) as manager:
        world.put(Loose(metadata=ObjectMeta(name="l")))
        await world.settle()
        loose = await manager.api.get(Loose, "l", "default")
        async with manager.api.status(loose) as status:
            with pytest.raises(ConfigurationError, match=r"LooseStatus.conditions is list.*declare list\[Condition\]"):
                status.condition("Ready", True, "Yes")


@pytest.mark.parametrize(
    ("condition", "reason", "flaw"),
    [
        ("Ready", "", "'' is not a valid reason of condition Ready"),
        ("Ready", "not ready", "'not ready' is not a valid reason"),
        ("Ready", "x" * 1025, "is not a valid reason"),
        ("Is Ready", "Yes", "'Is Ready' is not a condition type"),
    ],
)
async def test_words_the_conventions_do_not_allow_are_rejected_at_once(
    world: World, condition: str, reason: str, flaw: str
) -> None:
    async with world.manager(cache=[Cached(Node)]) as manager:
        world.put(node("n1"))
        await world.settle()
        n1 = await manager.api.get(Node, "n1", "")
        async with manager.api.status(n1) as status:
            with pytest.raises(ConfigurationError, match=flaw):
                status.condition(condition, True, reason)
