"""Changes of the template: in place, by replacement, with the limits of nodes and availability."""

from typing import TYPE_CHECKING, Any

from kaito.api import Workspace
from kaito.api.workspace import WorkspaceStatus
from kaito.runtime.kinds import StatefulSet

if TYPE_CHECKING:
    from test.unit.workspace.inference_sets.conftest import Sets

PRESET: dict[str, Any] = {"template": {"inference": {"preset": {"name": "phi-3-mini-128k-instruct"}}}}
SIZE: dict[str, Any] = {"template": {"resource": {"instanceType": "Standard_NC24ads_A100_v4"}}}


def environment(value: str) -> dict[str, Any]:
    """Returns a change that a Workspace takes in place, and that replaces its pods."""
    return {"template": {"inference": {"preset": {"podOptions": {"env": [{"name": "A", "value": value}]}}}}}


def env_of(sets: "Sets", name: str) -> dict[str, str]:
    container = sets.world.get(StatefulSet, name).spec.template.to_dict()["spec"]["containers"][0]
    return {each["name"]: each.get("value", "") for each in container["env"]}


async def test_a_change_in_place_reaches_one_workspace_after_the_other(sets: "Sets") -> None:
    sets.put(replicas=3)
    async with sets.controller():
        await sets.provision()
        uids = {name: child.uid for name, child in sets.children().items()}
        sets.change(environment("1"))
        await sets.world.settle()
        assert [env_of(sets, f"phi-{n}").get("A") for n in range(3)] == ["1", None, None]
        status, reason, message = sets.condition("InferenceSetUpdated")
        assert (status, reason) == ("False", "Updating")
        assert message.startswith("1 of 3 workspaces have the current template; phi-0: ")
        sets.unready("phi-0")
        await sets.world.advance(300)
        assert env_of(sets, "phi-1").get("A") is None, "waits for the first"
        for number in range(3):
            sets.serve(f"phi-{number}")
            await sets.world.settle()
        await sets.provision()
        assert [env_of(sets, f"phi-{n}").get("A") for n in range(3)] == ["1", "1", "1"]
        assert sets.condition("InferenceSetUpdated")[0] == "True"
        assert {name: child.uid for name, child in sets.children().items()} == uids, "no Workspace is replaced"


async def test_another_model_is_served_by_new_workspaces_before_the_old_ones_are_deleted(sets: "Sets") -> None:
    sets.put(replicas=2)
    async with sets.controller():
        await sets.provision()
        sets.change(PRESET)
        await sets.world.settle()
        assert sets.names() == ["phi-0", "phi-1", "phi-2"]
        assert sets.children()["phi-2"].preset_name == "phi-3-mini-128k-instruct"
        assert sets.current().status.ready_replicas == 2
        await sets.world.advance(600)
        assert sets.names() == ["phi-0", "phi-1", "phi-2"], "the old ones serve until the new one does"
        seen = {len(sets.names())}
        for _ in range(6):
            await sets.provision()
            seen.add(len(sets.names()))
            assert sets.current().status.ready_replicas >= 2
        assert {child.preset_name for child in sets.children().values()} == {"phi-3-mini-128k-instruct"}
        assert len(sets.names()) == 2
        assert max(seen) <= 3
        assert sets.condition("InferenceSetUpdated")[0] == "True"


async def test_a_new_template_that_never_serves_leaves_the_old_workspaces(sets: "Sets") -> None:
    sets.put(replicas=2)
    async with sets.controller():
        await sets.provision()
        sets.change(SIZE)
        await sets.world.advance(1800)
        assert sorted(sets.names())[:2] == ["phi-0", "phi-1"]
        assert sets.condition()[0] == "True"
        assert sets.condition("InferenceSetUpdated")[0] == "False"
        sets.change({"template": {"resource": {"instanceType": "Standard_NC6s_v3"}}})
        await sets.world.settle()
        assert sets.names() == ["phi-0", "phi-1"], "the new one is deleted after the template is reverted"
        assert sets.condition("InferenceSetUpdated")[0] == "True"


async def test_on_delete_keeps_the_old_template_until_a_workspace_is_deleted(sets: "Sets") -> None:
    sets.put(replicas=2, updateStrategy={"type": "OnDelete"})
    async with sets.controller():
        await sets.provision()
        sets.change(PRESET)
        await sets.world.settle()
        assert sets.names() == ["phi-0", "phi-1"]
        assert sets.condition("InferenceSetUpdated")[:2] == ("False", "OnDelete")
        sets.world.delete(Workspace, "phi-0")
        await sets.provision()
        models = {name: child.preset_name for name, child in sets.children().items()}
        assert sorted(models.values()) == ["phi-3-mini-128k-instruct", "phi-3-mini-4k-instruct"]


async def test_the_node_limit_is_never_exceeded(sets: "Sets") -> None:
    sets.put(replicas=3, nodeCountLimit=2)
    async with sets.controller():
        await sets.provision()
        assert len(sets.names()) == 2
        assert sets.condition()[:2] == ("False", "NodeLimitReached")
        assert "2 of at most 2 are in use" in sets.condition()[2]
        events = [event for event in sets.world.events() if event.reason == "NodeLimitReached"]
        assert len(events) == 1
        sets.scale(2)
        sets.change(PRESET)
        most = 0
        for _ in range(8):
            await sets.provision()
            most = max(most, len(sets.claims()))
        assert most == 2
        assert {child.preset_name for child in sets.children().values()} == {"phi-3-mini-128k-instruct"}
        assert sets.condition("InferenceSetUpdated")[0] == "True"


async def test_an_edit_of_a_workspace_is_reverted(sets: "Sets") -> None:
    sets.put(replicas=1)
    async with sets.controller():
        await sets.provision()
        sets.change(environment("1"))
        await sets.provision()
        edit = {"inference": {"preset": {"podOptions": {"env": [{"name": "A", "value": "edited"}]}}}}
        sets.world.patch(Workspace, "phi-0", edit)
        await sets.world.advance(120)
        assert env_of(sets, "phi-0")["A"] == "1"


async def test_an_invalid_set_is_only_scaled_down(sets: "Sets") -> None:
    sets.put(replicas=2)
    async with sets.controller():
        await sets.provision()
        sets.change({"template": {"inference": {"preset": {"name": "no-such-model"}}}})
        await sets.world.settle()
        assert sets.names() == ["phi-0", "phi-1"]
        assert sets.condition("InferenceSetUpdated")[:2] == ("False", "InvalidSpec")
        assert sets.condition()[0] == "True"
        assert "spec.template.inference.preset.name" in sets.condition()[2]
        sets.scale(3)
        await sets.world.settle()
        assert sets.names() == ["phi-0", "phi-1"]
        assert sets.condition()[:2] == ("False", "InvalidSpec")
        sets.scale(1)
        await sets.world.settle()
        assert sets.names() == ["phi-0"]


async def test_workspaces_that_upstream_named_are_adopted(sets: "Sets") -> None:
    sets.put(replicas=1)
    async with sets.controller():
        await sets.provision()
        child = sets.children()["phi-0"]
        owner = child.metadata.owner_references[0]
        upstream = child.evolve(
            metadata=child.metadata.evolve(
                name="phi-x7k2p", uid="", resource_version="", labels={}, owner_references=[owner], finalizers=[]
            ),
            status=WorkspaceStatus(),
        )
        sets.world.put(upstream)
        await sets.world.settle()
        assert sets.names() == ["phi-0"], "counted: the one that does not serve is deleted"
