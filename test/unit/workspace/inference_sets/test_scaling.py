"""Number of Workspaces of an InferenceSet: creation, scaling in both directions, deletion, and the status."""

from typing import TYPE_CHECKING

from kaito.api import InferenceSet, Workspace, crds, labels
from kaito.runtime.kinds import CustomResourceDefinition, Service, StatefulSet

if TYPE_CHECKING:
    from test.unit.workspace.inference_sets.conftest import Sets


async def test_a_set_creates_its_workspaces_and_becomes_ready(sets: "Sets") -> None:
    sets.put()
    async with sets.controller():
        await sets.world.settle()
        assert sets.names() == ["phi-0", "phi-1"]
        assert sets.condition()[:2] == ("False", "InferenceSetNotReady")
        assert sets.condition()[2].startswith("0 of 2 workspaces serve; phi-0: ")
        await sets.provision()
        status = sets.current().status
        assert sets.condition() == ("True", "InferenceSetReady", "2 of 2 workspaces serve")
        assert sets.condition("InferenceSetUpdated")[0] == "True"
        assert (status.replicas, status.ready_replicas, status.updated_replicas, status.node_count) == (2, 2, 2, 2)
        assert status.selector == "inferenceset.kaito.sh/created-by=phi"
        assert status.observed_generation == sets.current().metadata.generation

        child = sets.children()["phi-0"]
        assert child.labels[labels.CREATED_BY_INFERENCESET] == "phi"
        (owner,) = child.metadata.owner_references
        assert (owner.kind, owner.name, owner.controller) == ("InferenceSet", "phi", True)
        assert child.resource.instance_type == "Standard_NC6s_v3"
        assert child.resource.label_selector.match_labels == {"apps": "phi"}


async def test_one_service_selects_the_pods_of_all_workspaces(sets: "Sets") -> None:
    sets.put()
    async with sets.controller():
        await sets.provision()
        service = sets.world.get(Service, "phi")
        assert [(p.port, p.target_port) for p in service.spec.ports] == [(80, 5000)]
        for name in ("phi-0", "phi-1"):
            pods = sets.world.get(StatefulSet, name).spec.template.metadata.labels
            assert service.spec.selector.items() <= pods.items()
            assert sets.world.get(StatefulSet, name).spec.selector.match_labels == {labels.WORKSPACE: name}


async def test_pods_of_a_workspace_without_a_set_have_no_additional_label(sets: "Sets", phi: Workspace) -> None:
    sets.apply(phi)
    async with sets.controller():
        await sets.until_serving()
        labels_of_pods = sets.world.get(StatefulSet, phi.name).spec.template.metadata.labels
        assert labels.CREATED_BY_INFERENCESET not in labels_of_pods


async def test_scaling_up_and_down_keeps_what_serves(sets: "Sets") -> None:
    sets.put(replicas=1)
    async with sets.controller():
        await sets.provision()
        sets.scale(3)
        await sets.world.settle()
        assert sets.names() == ["phi-0", "phi-1", "phi-2"]
        await sets.provision()
        assert sets.current().status.ready_replicas == 3
        sets.unready("phi-0")
        await sets.world.settle()
        sets.scale(2)
        await sets.world.settle()
        assert sets.names() == ["phi-1", "phi-2"], "the one that does not serve is deleted first"
        sets.scale(1)
        await sets.world.settle()
        assert sets.names() == ["phi-1"], "then the highest number"
        assert sets.condition() == ("True", "InferenceSetReady", "1 of 1 workspaces serve")
        assert len([claim for claim in sets.claims() if not claim.deleting]) == 1


async def test_zero_replicas_are_ready_and_have_no_nodes(sets: "Sets") -> None:
    sets.put()
    async with sets.controller():
        await sets.provision()
        sets.scale(0)
        await sets.world.settle()
        assert sets.names() == []
        assert sets.claims() == []
        assert sets.condition()[:2] == ("True", "InferenceSetReady")
        assert sets.current().status.replicas == 0
        assert sets.world.find(Service, "phi") is not None, "the address is stable"


async def test_status_replicas_are_those_that_exist(sets: "Sets") -> None:
    sets.put(replicas=1)
    async with sets.controller():
        await sets.provision()
        sets.world.fail_next("PATCH", Workspace, status=403, message="no more workspaces today", times=1)
        sets.scale(3)
        await sets.world.settle()
        assert sets.current().status.replicas < 3
        assert sets.condition()[1] == "WorkspaceRefused"
        assert "no more workspaces today" in sets.condition()[2]
        await sets.world.advance(30)
        assert sets.names() == ["phi-0", "phi-1", "phi-2"]
        assert sets.current().status.replicas == 3


async def test_a_deleted_workspace_is_replaced(sets: "Sets") -> None:
    sets.put()
    async with sets.controller():
        await sets.provision()
        sets.world.delete(Workspace, "phi-0")
        await sets.world.settle()
        assert len(sets.names()) == 2
        assert sets.condition()[0] == "False"
        await sets.provision()
        assert sets.condition()[0] == "True"


async def test_no_workspace_is_created_while_the_definition_of_workspaces_is_removed(sets: "Sets") -> None:
    """The API server refuses it, which the set reports until the definition is installed again."""
    sets.put()
    async with sets.controller():
        await sets.provision()
        claim = sets.claims()[0]
        sets.world.patch(sets.kind, claim.name, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}})
        sets.world.delete(CustomResourceDefinition, "workspaces.kaito.sh", "")
        await sets.world.advance(200)
        assert sets.names() == []
        assert [each.name for each in sets.claims()] == [claim.name]
        assert sets.condition("InferenceSetUpdated")[1] == "WorkspaceRefused"
        sets.world.patch(sets.kind, claim.name, {"metadata": {"finalizers": []}})
        await sets.world.advance(30)
        assert sets.world.find(CustomResourceDefinition, "workspaces.kaito.sh", "") is None
        sets.world.install(crds.workspace_crd())
        await sets.world.advance(120)
        await sets.provision()
        assert sets.condition()[0] == "True"


async def test_deletion_deletes_the_workspaces_and_waits_for_them(sets: "Sets") -> None:
    sets.put()
    async with sets.controller():
        await sets.provision()
        claim = sets.claims()[0]
        sets.world.patch(sets.kind, claim.name, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}})
        sets.world.delete(InferenceSet, "phi")
        await sets.world.settle()
        assert sets.condition("InferenceSetDeleting")[:2] == ("True", "WaitingForWorkspaces")
        assert claim.name in sets.condition("InferenceSetDeleting")[2]
        assert sets.condition()[0] == "False"
        sets.world.patch(sets.kind, claim.name, {"metadata": {"finalizers": []}})
        await sets.world.advance(15)
        assert sets.world.find(InferenceSet, "phi") is None
        assert sets.world.list(Workspace) == []
        assert sets.claims() == []


async def test_the_finalizer_of_upstream_is_removed_too(sets: "Sets") -> None:
    sets.put()
    async with sets.controller():
        await sets.world.settle()
        finalizers = [*sets.current().metadata.finalizers, labels.LEGACY_INFERENCESET_FINALIZER]
        sets.world.patch(InferenceSet, "phi", {"metadata": {"finalizers": finalizers}})
        sets.world.delete(InferenceSet, "phi")
        await sets.world.advance(30)
        assert sets.world.find(InferenceSet, "phi") is None


async def test_names_of_other_workspaces_are_skipped(sets: "Sets", phi: Workspace) -> None:
    sets.apply(phi.with_metadata(name="phi-0"))
    sets.put()
    async with sets.controller():
        await sets.world.settle()
        own = [name for name, child in sets.children().items() if child.metadata.owner_references]
        assert sorted(own) == ["phi-1", "phi-2"]
        assert sets.children()["phi-0"].metadata.owner_references == []


async def test_a_service_of_another_owner_is_left_unchanged_and_reported(sets: "Sets", phi: Workspace) -> None:
    sets.apply(phi.with_metadata(name="phi"))
    async with sets.controller():
        await sets.provision()
        before = sets.world.get(Service, "phi").spec
        sets.put()
        await sets.provision()
        assert sets.condition()[:2] == ("False", "NameConflict")
        assert "give the InferenceSet another name" in sets.condition()[2]
        assert sets.world.get(Service, "phi").spec == before


async def test_a_ready_set_causes_no_requests(sets: "Sets") -> None:
    sets.put()
    async with sets.controller():
        await sets.provision()
        sets.world.clear_requests()
        await sets.world.advance(1800)
        assert [r for r in sets.world.requests if r.method != "GET"] == []


async def test_labels_reach_existing_workspaces_without_an_update(sets: "Sets") -> None:
    sets.put()
    async with sets.controller():
        await sets.provision()
        generations = {name: child.metadata.generation for name, child in sets.children().items()}
        sets.change({"template": {"metadata": {"labels": {"team": "search"}}}})
        await sets.world.settle()
        for name, child in sets.children().items():
            assert child.labels["team"] == "search"
            assert child.metadata.generation == generations[name]
        sets.change({"template": {"metadata": {"labels": None}}})
        await sets.world.settle()
        assert all("team" not in child.labels for child in sets.children().values())


async def test_annotations_of_the_set_reach_the_workspaces_except_the_load_balancer(sets: "Sets") -> None:
    sets.put()
    annotations = {labels.RUNTIME: "transformers", labels.ENABLE_LOAD_BALANCER: "true", "example.com/a": "b"}
    sets.world.patch(InferenceSet, "phi", {"metadata": {"annotations": annotations}})
    async with sets.controller():
        await sets.provision()
        assert sets.children()["phi-0"].annotations[labels.RUNTIME] == "transformers"
        assert labels.ENABLE_LOAD_BALANCER not in sets.children()["phi-0"].annotations
        assert sets.world.get(Service, "phi").spec.type == "LoadBalancer"
        assert sets.world.get(Service, "phi-0").spec.type == "ClusterIP"
