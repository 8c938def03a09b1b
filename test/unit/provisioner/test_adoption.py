"""Taking over from upstream's provisioner: its pools carry no marker, its nodes no label of ours, and both end well."""

from typing import TYPE_CHECKING

from kaito.api import labels
from kaito.runtime.kinds import Node

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage

OUR_LABELS = (labels.MANAGED_BY, labels.CLAIM_NAME, labels.CLAIM_KIND, labels.CLAIM_UID)


async def inherited(stage: "Stage") -> None:
    """A ready claim whose pool and node look as upstream's provisioner leaves them."""
    await stage.start()
    stage.claim()
    await stage.until_ready()
    await stage.stop()
    properties = stage.pool().properties
    properties["tags"] = {}
    properties["nodeLabels"] = {k: v for k, v in properties["nodeLabels"].items() if k not in OUR_LABELS}
    stage.world.patch(Node, stage.node().name, {"metadata": {"labels": dict.fromkeys(OUR_LABELS)}})


async def test_a_fulfilled_claim_stays_ready_and_its_node_is_taken_over(stage: "Stage") -> None:
    await inherited(stage)
    await stage.start()
    await stage.world.advance(600)
    assert stage.get().is_ready
    assert stage.node().labels[labels.CLAIM_UID] == stage.get().uid
    assert (stage.calls("PUT"), stage.calls("DELETE")) == (1, 0)


async def test_its_deletion_leaves_nothing_behind(stage: "Stage") -> None:
    await inherited(stage)
    stage.delete()
    await stage.start()
    await stage.until_gone()
    assert (stage.pools, stage.nodes) == ([], [])


async def test_a_node_of_that_name_on_another_machine_is_not_taken_over(stage: "Stage") -> None:
    await inherited(stage)
    node = stage.node()
    stage.world.put(node.evolve(spec=node.spec.evolve(provider_id="azure:///elsewhere")))
    await stage.start()
    await stage.world.advance(60)
    assert labels.CLAIM_UID not in stage.node().labels
    assert stage.condition("Ready").reason == "NodeNotFound"
