"""The GPUs of a Workspace's nodes as parts of its chain; the diagnosis reports them as a fact of the node."""

from collections.abc import Iterator
from typing import Final

from kaito.api import labels
from kaito.diagnosis import Link, Situation, advertised_gpus
from kaito.runtime.kinds import Node
from kaito.runtime.meta import Quantity

_NONE: Final = Quantity(0)


def gpu_links(situation: Situation) -> Iterator[Link]:
    """Yields a part of kind GPU for each node, with the name of the node and what its device plugin advertises."""
    for node in situation.nodes:
        yield _gpu(node)
    missing = situation.wanted_nodes - len(situation.nodes)
    if missing > 0 and "nodes" not in situation.unread and situation.workspace.status.state != "Succeeded":
        yield Link(kind="GPU", name="", state="absent", summary="no node yet")


def _gpu(node: Node) -> Link:
    created = node.metadata.creation_timestamp
    found = advertised_gpus(node)
    ready = node.condition("Ready")
    if not found:
        return Link(
            kind="GPU",
            name=node.name,
            state="waiting",
            summary="the device plugin advertises none yet",
            created=created,
        )
    text = ", ".join(f"{node.status.capacity[name]} {name}" for name in found)
    product = node.labels.get(labels.GPU_PRODUCT, "")
    usable = all(node.status.allocatable.get(name, _NONE) != _NONE for name in found)
    if ready is None or ready.status != "True":
        return Link(
            kind="GPU", name=node.name, state="unknown", summary=f"{text}, the node does not report", created=created
        )
    return Link(
        kind="GPU",
        name=node.name,
        state="ok" if usable else "failed",
        summary=", ".join(filter(None, (text, product, "" if usable else "none is allocatable"))),
        since=ready.last_transition_time,
        created=created,
    )
