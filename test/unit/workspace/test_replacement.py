"""Claims that are lost repeatedly are replaced with growing backoff, and the cause is reported."""

import copy
import random
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from kaito.api import Claim, Workspace, labels
from kaito.runtime.kinds import Event, Node
from kaito.runtime.kinds.references import ObjectReference
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import World
from kaito.workspace.claim_policy import ProvisionAttempts
from kaito.workspace.manifests.claim import claim_name
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.status import claim_condition_type

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

TEN_MINUTES = 600
QUOTA = "creating instance, insufficient capacity, no on-demand capacity of Standard_NC6s_v3"


class Life:
    """Plays the provisioner second by second and notes when claims are created."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.start = cluster.world.now
        self.born: dict[str, float] = {}
        self.again: set[str] = set()
        self.most = 0

    @property
    def now(self) -> float:
        return (self.cluster.world.now - self.start).total_seconds()

    @property
    def creations(self) -> list[float]:
        return sorted(self.born.values())

    @property
    def gaps(self) -> list[float]:
        times = self.creations
        return [round(later - earlier) for earlier, later in pairwise(times)]

    async def run(
        self, seconds: float, act: Callable[["Life", Claim], None], *, step: float = 1.0, checked: bool = True
    ) -> None:
        world = self.cluster.world
        end = self.now + seconds
        await world.settle()
        while self.now < end:
            for claim in self.cluster.claims():
                made = claim.metadata.creation_timestamp
                assert made is not None
                at = (made - self.start).total_seconds()
                if self.born.setdefault(claim.name, at) != at:
                    self.again.add(claim.name)
                    self.born[claim.name] = at
                act(self, claim)
            self.most = max(self.most, len(self.cluster.claims()))
            await world.advance(step)
            if checked:
                self.check_condition()

    def age(self, claim: Claim) -> float:
        return self.now - self.born[claim.name]

    def check_condition(self) -> None:
        """The time of the next attempt, in condition and record, is never in the past."""
        cluster = self.cluster
        condition = cluster.conditions()[claim_condition_type(cluster.settings.node_api)]
        record = ProvisionAttempts.from_annotations(cluster.workspace().annotations)
        if record.is_replacement_pending and record.next_attempt_at is not None:
            assert record.next_attempt_at >= cluster.world.now
        if condition[1] != "ReplacementPending":
            return
        text = condition[2].rsplit(" ", 1)[-1]
        retry_at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert retry_at >= cluster.world.now.replace(microsecond=0), condition


def delete_at_once(life: Life, claim: Claim) -> None:
    """Karpenter core without capacity: the claim goes at once, an Event stays."""
    cluster = life.cluster
    if cluster.world.find(cluster.kind, claim.name, "") is None:
        return
    cluster.world.delete(cluster.kind, claim.name)
    tell(cluster, claim, "InsufficientCapacityError", f"NodeClaim {claim.name} event: {QUOTA}")


def tell(cluster: "Cluster", claim: Claim, reason: str, note: str, event_type: str = "Warning") -> None:
    cluster.world.put(
        Event(
            metadata=ObjectMeta(name=f"{claim.name}.{reason.lower()}", namespace="default"),
            event_time=cluster.world.now,
            reporting_controller="karpenter",
            reporting_instance="karpenter-0",
            action="Disrupting",
            reason=reason,
            note=note,
            type="Warning" if event_type == "Warning" else "Normal",
            regarding=ObjectReference(api_version=claim.api_version, kind=claim.kind, name=claim.name, uid=claim.uid),
        )
    )


def never_joins(life: Life, claim: Claim) -> None:
    """The gpu-provisioner with nodes that never join: a finalizer, deletion after 5 s, deleted 7 s later."""
    cluster = life.cluster
    if not claim.deleting:
        if labels.TERMINATION_FINALIZER not in claim.metadata.finalizers:
            finalizers = {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}}
            cluster.world.patch(cluster.kind, claim.name, finalizers)
            why = "no node joined within 5 s"
            cluster.set_claim_status(
                claim,
                {"type": claim.stages.launched, "status": "True", "reason": "Launched"},
                {"type": claim.stages.registered, "status": "False", "reason": "RegistrationTimeout", "message": why},
                {"type": "Ready", "status": "False", "reason": "UnhealthyDependents"},
                providerID=f"azure:///{claim.name}",
            )
        elif life.age(claim) >= 5:
            cluster.world.delete(cluster.kind, claim.name)
            tell(cluster, claim, "RegistrationTimeout", "no node joined within 5 s")
    elif life.age(claim) >= 12:
        cluster.world.patch(cluster.kind, claim.name, {"metadata": {"finalizers": []}})


@pytest.mark.parametrize(
    ("act", "cause", "gaps"),
    [
        (delete_at_once, QUOTA, [30, 60, 120, 240]),
        (never_joins, "no node joined within 5 s", [30 + 12, 60 + 12, 120 + 12, 240 + 12]),
    ],
)
async def test_the_backoff_grows_and_the_cause_is_reported(
    cluster: "Cluster", phi: Workspace, act: Callable[[Life, Claim], None], cause: str, gaps: list[int]
) -> None:
    cluster.apply(phi)
    life = Life(cluster)
    async with cluster.controller():
        await life.run(TEN_MINUTES, act)
        assert life.most <= 1
        assert not life.again
        assert len(life.creations) == 5, life.creations
        for gap, expected in zip(life.gaps, gaps, strict=True):
            assert expected <= gap <= expected + 4, life.gaps
        record = ProvisionAttempts.from_annotations(cluster.workspace().annotations)
        assert (record.serial, record.failures) == (5, 5)
        for name in (claim_condition_type(cluster.settings.node_api), "ResourceReady", "WorkspaceReady"):
            status, _, message = cluster.conditions()[name]
            assert status == "False"
            assert cause in message
            assert "5 times in a row" in message


async def test_a_later_stage_is_not_the_cause_of_a_claim_that_was_not_launched(
    cluster: "Cluster", phi: Workspace
) -> None:
    """Karpenter reports "node not registered" on a claim that it deletes because it cannot launch it."""

    def delete_with_stages(life: Life, claim: Claim) -> None:
        launched, _, initialized = claim.stages
        if life.age(claim) < 1:
            life.cluster.set_claim_status(
                claim,
                {"type": launched, "status": "Unknown", "reason": "AwaitingReconciliation"},
                {"type": initialized, "status": "Unknown", "reason": "NodeNotFound", "message": "no node registered"},
            )
            life.cluster.world.patch(life.cluster.kind, claim.name, {"metadata": {"finalizers": ["example.com/f"]}})
            tell(life.cluster, claim, "InsufficientCapacityError", QUOTA)
            life.cluster.world.delete(life.cluster.kind, claim.name)
        else:
            life.cluster.world.patch(life.cluster.kind, claim.name, {"metadata": {"finalizers": []}})

    cluster.apply(phi)
    life = Life(cluster)
    async with cluster.controller():
        await life.run(100, delete_with_stages)
        message = cluster.conditions()["WorkspaceReady"][2]
        assert QUOTA in message
        assert "no node registered" not in message


async def test_the_cause_stays_while_the_replacement_is_on_its_way(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    life = Life(cluster)
    async with cluster.controller():
        await life.run(20, delete_at_once)
        await life.run(20, lambda _life, _claim: None)
        assert len(life.creations) == 2
        _, reason, message = cluster.conditions()["WorkspaceReady"]
        assert reason in {"MachineNotReady", "NodeClaimNotReady"}
        assert QUOTA in message


async def test_an_event_that_arrives_after_the_deletion_is_found(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        lost = cluster.claim()
        cluster.world.delete(cluster.kind, lost.name)
        await cluster.world.settle()
        assert "most recently because: cause unknown" in cluster.conditions()["ResourceReady"][2]
        tell(cluster, lost, "NodeClassNotReady", "NodeClass default is not ready: no subnets")
        await cluster.world.advance(3)
        assert (
            "NodeClassNotReady: NodeClass default is not ready: no subnets" in cluster.conditions()["ResourceReady"][2]
        )


async def test_without_access_to_events_only_the_cause_is_unknown(cluster: "Cluster", phi: Workspace) -> None:
    cluster.world.deny("list", Event)
    cluster.apply(phi)
    life = Life(cluster)
    async with cluster.controller():
        await life.run(120, delete_at_once)
        assert len(life.creations) == 3
        assert cluster.conditions()["ResourceReady"][:2] == ("False", "ReplacementPending")


async def test_a_claim_deleted_by_hand_again_and_again(cluster: "Cluster", phi: Workspace) -> None:
    """Also when it had become ready each time, for less than the minimum."""

    def ready_then_lost(life: Life, claim: Claim) -> None:
        if not claim.is_ready:
            life.cluster.join(claim)
        elif life.age(claim) > 20:
            life.cluster.world.delete(life.cluster.kind, claim.name)
            life.cluster.world.delete(Node, f"node-{claim.name}", "")

    cluster.apply(phi)
    life = Life(cluster)
    async with cluster.controller():
        await life.run(TEN_MINUTES, ready_then_lost)
        assert len(life.creations) == 5, life.creations
        assert life.gaps == sorted(life.gaps)
        assert life.gaps[-1] >= 240


async def test_stable_claims_reset_the_backoff(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    life = Life(cluster)
    async with cluster.controller():
        await life.run(100, delete_at_once)
        assert ProvisionAttempts.from_annotations(cluster.workspace().annotations).failures == 3
        await cluster.world.advance(120)
        cluster.join(cluster.claim())
        await cluster.world.advance(610)
        record = ProvisionAttempts.from_annotations(cluster.workspace().annotations)
        assert (record.serial, record.failures, record.cause) == (3, 0, "")
        assert cluster.conditions()["ResourceReady"][0] == "True"
        assert "lost" not in cluster.conditions()["ResourceReady"][2]
        last = cluster.claim()
        cluster.world.delete(cluster.kind, last.name)
        cluster.world.delete(Node, f"node-{last.name}", "")
        await cluster.world.advance(31)
        assert cluster.claim().name != last.name


async def test_claims_lost_while_the_controller_was_down(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
    lost = cluster.claim()
    cluster.world.delete(cluster.kind, lost.name)
    cluster.world.delete(Node, f"node-{lost.name}", "")
    async with cluster.controller():
        await cluster.world.advance(29)
        assert cluster.claims() == []
        assert ProvisionAttempts.from_annotations(cluster.workspace().annotations).failures == 1
        await cluster.world.advance(2)
        assert cluster.claim().name != lost.name


async def test_a_new_leader_with_an_old_cache_counts_nothing_twice(cluster: "Cluster", phi: Workspace) -> None:
    """The watch of the claims is delayed: claims that seem lost exist on the API server."""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
    for turn in range(3):
        cluster.world.lag(cluster.kind, 30)
        async with cluster.controller():
            cluster.world.patch(Workspace, phi.name, {"metadata": {"labels": {"turn": str(turn)}}})
            await cluster.world.advance(5)
        cluster.world.heal()
    assert len(cluster.claims()) == 1
    assert ProvisionAttempts.from_annotations(cluster.workspace().annotations) == ProvisionAttempts()


async def test_a_node_that_is_ready_again_keeps_its_claim(cluster: "Cluster", phi: Workspace) -> None:
    """The watch of the nodes is delayed: the cache contains a node that is not Ready when its time is over."""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        claim = cluster.claim()
        cluster.node_ready(claim.status.node_name, "False", "the kubelet is silent")
        await cluster.world.advance(595)
        cluster.world.lag(Node, 60)
        cluster.node_ready(claim.status.node_name, "True")
        await cluster.world.advance(30)
        assert [each.uid for each in cluster.claims() if not each.deleting] == [claim.uid]
        cluster.world.heal()
        await cluster.world.advance(120)
    assert [each.uid for each in cluster.claims() if not each.deleting] == [claim.uid]
    assert ProvisionAttempts.from_annotations(cluster.workspace().annotations).failures == 0


async def test_a_claim_that_changes_before_it_is_given_up_is_evaluated_again(
    cluster: "Cluster", phi: Workspace
) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        claim = cluster.claim()
        cluster.node_ready(claim.status.node_name, "False", "the kubelet is silent")
        await cluster.world.advance(595)
        cluster.world.fail_next("delete", cluster.kind, status=409)
        await cluster.world.advance(30)
    given_up = [each for each in cluster.world.list(Event) if each.reason.endswith("GivenUp")]
    assert len(given_up) == 1
    assert claim.uid not in {each.uid for each in cluster.claims() if not each.deleting}


async def test_one_of_several_nodes_is_lost(cluster: "Cluster", phi: Workspace) -> None:
    several = phi.evolve(resource=phi.resource.evolve(count=3))
    cluster.apply(several)
    async with cluster.controller():
        await cluster.until_serving()
        before = {claim.name for claim in cluster.claims()}
        assert len(before) == 3
        victim = sorted(before)[1]
        cluster.world.patch(cluster.kind, victim, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}})
        cluster.world.delete(cluster.kind, victim)
        await cluster.world.advance(100)
        assert {claim.name for claim in cluster.claims()} == before, "the pause begins when the claim is gone"
        cluster.world.patch(cluster.kind, victim, {"metadata": {"finalizers": []}})
        cluster.world.delete(Node, f"node-{victim}", "")
        await cluster.world.advance(29)
        assert len(cluster.claims()) == 2
        await cluster.world.advance(3)
        after = {claim.name for claim in cluster.claims()}
        assert len(after) == 3
        assert before - after == {victim}
        assert ProvisionAttempts.from_annotations(cluster.workspace().annotations).failures == 1


@pytest.mark.sample(1)
@pytest.mark.parametrize("act", [delete_at_once, never_joins])
@pytest.mark.parametrize("seed", range(3))
async def test_a_crash_at_any_write_neither_hides_nor_repeats_a_loss(
    cluster: "Cluster", phi: Workspace, act: Callable[[Life, Claim], None], seed: int
) -> None:
    """Processes die after one to six writes, one after the other, while the claims are lost again and again.

    The first creation is not recorded before it is made, so that a new Workspace costs no further request: a claim
    that is lost before the first status may be made again once for each process that dies there.
    """
    rng = random.Random(seed)
    cluster.apply(phi)
    life = Life(cluster)
    for _ in range(12):
        async with cluster.killed_after(rng.randint(2, 7)):
            await life.run(rng.randint(5, 60), act, checked=False)
    async with cluster.controller():
        await life.run(TEN_MINUTES, act)
    record = ProvisionAttempts.from_annotations(cluster.workspace().annotations)
    assert record.failures >= 4
    names = len(life.born)
    assert record.serial in {names, names - 1}, "each name is one loss, at most the last one is not lost yet"
    assert life.again <= {claim_name(cluster.workspace(), index=0, serial=0)}
    assert all(gap >= 29 for gap in life.gaps), life.gaps
    assert life.gaps[-1] >= 120


async def test_a_crd_that_lacks_the_list_of_claims_causes_no_loop(
    world: World, settings: WorkspaceSettings, phi: Workspace
) -> None:
    """An upgrade that keeps the old CRD, as with Helm: the API server drops `status.claims`."""
    from test.unit.workspace.conftest import DEFINITIONS, Cluster

    cluster = Cluster(world, settings)
    (definition,) = [copy.deepcopy(each) for each in DEFINITIONS if each["metadata"]["name"] == "workspaces.kaito.sh"]
    for version in definition["spec"]["versions"]:
        del version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["claims"]
    world.install(definition)
    cluster.apply(phi)
    life = Life(cluster)
    async with cluster.controller():
        await life.run(300, delete_at_once)
        assert cluster.workspace().status.claims == []
        assert len(life.creations) == 4, life.creations
        assert life.gaps == sorted(life.gaps)
        assert life.gaps[-1] >= 120


@pytest.mark.slow("test_stable_claims_reset_the_backoff")
async def test_nodes_that_fail_soon_after_they_joined_are_no_lasting_success(
    cluster: "Cluster", phi: Workspace
) -> None:
    """The claim stays Ready for the ten minutes that its NotReady node is waited for."""

    def fails(life: Life, claim: Claim) -> None:
        if not claim.is_ready:
            life.cluster.join(claim)
        elif life.age(claim) > 60 and life.age(claim) <= 90:
            life.cluster.node_ready(f"node-{claim.name}", "False", "the GPU fell off the bus")

    cluster.apply(phi)
    life = Life(cluster)
    async with cluster.controller():
        await life.run(3600, fails, step=30)
        assert len(life.creations) >= 4
        pauses = [gap - 660 for gap in life.gaps]
        assert pauses == sorted(pauses)
        assert pauses[-1] >= 120
