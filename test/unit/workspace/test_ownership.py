"""What belongs to a Workspace: which label or time decides, one at a time, from an object that has all of them."""

import pytest

from kaito.api import Machine, NodeClaim, Workspace
from kaito.runtime.kinds import Pod, StatefulSet
from kaito.runtime.meta import ObjectMeta, OwnerReference
from kaito.runtime.testing import builders
from kaito.workspace.indexes import MACHINES, NODES, PODS, WORKSPACES_BY_CONFIG, claims_of
from kaito.workspace.ownership import (
    is_controller_of,
    is_node_of,
    name_conflict_message,
    owner_key,
    owner_labels,
    owns_claim,
    pod_labels,
)
from kaito.workspace.settings import NodeApi
from test.unit.workspace.conftest import UID

OWNED = {"kaito.sh/workspace": "workspace-phi-3-mini", "kaito.sh/workspacenamespace": "default"}
OURS = {**OWNED, "kaito.sh/workspace-uid": UID}
NODE = {**OURS, "apps": "phi-3"}
CREATED = "2030-01-01T00:00:00Z"


def changed(found: dict[str, str], change: dict[str, str | None]) -> dict[str, str]:
    """The labels with some of them replaced; None removes."""
    return {key: value for key, value in (found | change).items() if value is not None}


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({}, True),
        ({"kaito.sh/workspace-uid": None}, True),  # provisioners other than ours need not copy it
        ({"kaito.sh/workspace-uid": "another"}, False),
        ({"kaito.sh/workspace": None}, False),
        ({"kaito.sh/workspace": "other"}, False),
        ({"kaito.sh/workspacenamespace": None}, False),
        ({"kaito.sh/workspacenamespace": "other"}, False),
        ({"apps": None}, False),
        ({"apps": "other"}, False),
        ({"more": "x"}, True),
    ],
)
@pytest.mark.parametrize("node_api", [NodeApi.MACHINE, NodeApi.NODECLAIM])
def test_a_claimed_node_counts_by_selector_owner_and_uid(
    phi: Workspace, node_api: NodeApi, change: dict[str, str | None], *, counts: bool
) -> None:
    assert is_node_of(phi, builders.node("n", labels=changed(NODE, change)), node_api=node_api) is counts


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({}, True),
        ({"kaito.sh/workspace": "other", "kaito.sh/workspace-uid": "another"}, True),
        ({"apps": None}, False),
        ({"apps": "other"}, False),
    ],
)
def test_an_existing_node_counts_by_the_selector_alone(
    phi: Workspace, change: dict[str, str | None], *, counts: bool
) -> None:
    assert is_node_of(phi, builders.node("n", labels=changed(NODE, change)), node_api=NodeApi.BYO) is counts


def claim(change: dict[str, str | None], created: str | None = CREATED) -> Machine:
    metadata = {"name": "ws1", "labels": changed(OURS, change), "creationTimestamp": created}
    return Machine.model_validate({"metadata": metadata})


@pytest.mark.parametrize(
    ("found", "is_ours"),
    [
        (claim({}), True),
        (claim({}, "2020-01-01T00:00:00Z"), True),  # the UID decides, not the time
        (claim({"kaito.sh/workspace-uid": "another"}), False),
        (claim({"kaito.sh/workspace": "other"}), False),
        (claim({"kaito.sh/workspacenamespace": "other"}), False),
        (claim({"kaito.sh/workspacenamespace": None}), False),
        (claim({"kaito.sh/workspace-uid": None}), True),
        (claim({"kaito.sh/workspace-uid": None}, "2030-01-01T00:00:01Z"), True),
        (claim({"kaito.sh/workspace-uid": None}, "2029-12-31T23:59:59Z"), False),
        (claim({"kaito.sh/workspace-uid": None}, None), True),
    ],
)
def test_a_claim_is_owned_by_uid_or_by_age(phi: Workspace, found: Machine, *, is_ours: bool) -> None:
    assert owns_claim(phi, found) is is_ours


def test_the_owner_is_named_by_two_labels(phi: Workspace) -> None:
    assert owner_labels(phi) == OWNED
    assert pod_labels(phi) == {"kaito.sh/workspace": "workspace-phi-3-mini"}
    assert owner_key(claim({})) == phi.key
    for missing in OWNED:
        assert owner_key(claim({missing: None})) is None
        assert owner_key(claim({missing: ""})) is None


def workload(*owners: OwnerReference) -> StatefulSet:
    return StatefulSet(metadata=ObjectMeta(name="w", namespace="default", owner_references=list(owners)))


def owner(
    uid: str = UID, kind: str = "Workspace", name: str = "workspace-phi-3-mini", *, controller: bool = True
) -> OwnerReference:
    return OwnerReference(api_version="v1", kind=kind, name=name, uid=uid, controller=controller)


@pytest.mark.parametrize(
    ("found", "is_controlled"),
    [
        (workload(owner()), True),
        (workload(owner("other"), owner()), True),
        (workload(owner(controller=False)), False),
        (workload(owner("other")), False),
        (workload(), False),
    ],
)
def test_a_workload_is_controlled_by_uid(phi: Workspace, found: StatefulSet, *, is_controlled: bool) -> None:
    assert is_controller_of(phi, found) is is_controlled


def test_a_conflict_names_the_object_and_its_owners() -> None:
    found = name_conflict_message(workload(owner("a", "Deployment", "d"), owner("b", "Job", "j")))
    assert found.startswith("StatefulSet w exists and belongs to Deployment d, Job j: ")
    assert name_conflict_message(workload()).startswith("StatefulSet w exists and belongs to no controller: ")


def test_indexes_find_objects_by_their_owner(phi: Workspace) -> None:
    key = "default/workspace-phi-3-mini"
    assert MACHINES.values(claim({})) == [key]
    assert MACHINES.values(claim({"kaito.sh/workspace": None})) == []
    assert NODES.values(builders.node("n", labels=NODE)) == [key]
    pod = Pod(metadata=ObjectMeta(name="p", namespace="team", labels={"kaito.sh/workspace": "phi"}))
    assert PODS.values(pod) == ["team/phi"]
    assert PODS.values(Pod(metadata=ObjectMeta(name="p", namespace="team"))) == []


def test_the_index_key_of_claims_depends_on_their_kind(phi: Workspace) -> None:
    assert claims_of(Machine, phi.key).kind is Machine
    assert claims_of(NodeClaim, phi.key).kind is NodeClaim
    assert claims_of(Machine, phi.key).values == ("default/workspace-phi-3-mini",)


def test_workspaces_are_found_by_the_config_map_they_name(phi: Workspace) -> None:
    assert phi.inference is not None
    assert WORKSPACES_BY_CONFIG.values(phi) == []
    named = phi.evolve(inference=phi.inference.evolve(config="settings"))
    assert WORKSPACES_BY_CONFIG.values(named) == ["default/settings"]
    tuning = {
        "preset": {"name": "phi-4"},
        "method": "lora",
        "config": "training",
        "input": {"image": "i"},
        "output": {"image": "o"},
    }
    tuned = Workspace.model_validate(phi.to_dict() | {"inference": None, "tuning": tuning})
    assert WORKSPACES_BY_CONFIG.values(tuned) == ["default/training"]
