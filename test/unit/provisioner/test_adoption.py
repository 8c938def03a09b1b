"""Adopts pools and nodes of upstream's provisioner, which have neither owner tags nor our labels."""

from typing import TYPE_CHECKING

from kaito.api import labels
from kaito.runtime.kinds import Node

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage

OUR_LABELS = (labels.MANAGED_BY, labels.CLAIM_NAME, labels.CLAIM_KIND, labels.CLAIM_UID)


async def launch_by_upstream(stage: "Stage") -> None:
    """Creates a ready claim with a pool and a node as upstream's provisioner creates them."""
    await stage.start()
    stage.claim()
    await stage.until_ready()
    await stage.stop()
    properties = stage.pool().properties
    properties["tags"] = {}
    properties["nodeLabels"] = {k: v for k, v in properties["nodeLabels"].items() if k not in OUR_LABELS}
    stage.world.patch(Node, stage.node().name, {"metadata": {"labels": dict.fromkeys(OUR_LABELS)}})


async def test_node_of_upstreams_provisioner_is_adopted_and_its_claim_stays_ready(stage: "Stage") -> None:
    await launch_by_upstream(stage)
    await stage.start()
    await stage.world.advance(600)
    assert stage.get().is_ready
    assert stage.node().labels[labels.CLAIM_UID] == stage.get().uid
    assert (stage.calls("PUT"), stage.calls("DELETE")) == (1, 0)


async def test_deletion_of_a_claim_of_upstreams_provisioner_deletes_pool_and_node(stage: "Stage") -> None:
    await launch_by_upstream(stage)
    stage.delete()
    await stage.start()
    await stage.until_gone()
    assert (stage.pools, stage.nodes) == ([], [])


async def test_node_with_another_provider_id_is_not_adopted(stage: "Stage") -> None:
    await launch_by_upstream(stage)
    node = stage.node()
    stage.world.put(node.evolve(spec=node.spec.evolve(provider_id="azure:///elsewhere")))
    await stage.start()
    await stage.world.advance(60)
    assert labels.CLAIM_UID not in stage.node().labels
    assert stage.condition("Ready").reason == "NodeNotFound"
