"""One bound for every number of nodes: `resource.count` and the annotation `kaito.sh/node-count-override`."""

from typing import Final

MAX_NODE_COUNT: Final = 128
"""Most nodes of one Workspace. Everything planned, listed or created for a Workspace is bounded by it."""


def parse_node_count(text: str) -> int | None:
    """The number of nodes that an annotation asks for; None unless it is a whole number from 1 to `MAX_NODE_COUNT`."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()) or len(digits.lstrip("0")) > len(str(MAX_NODE_COUNT)):
        return None
    number = int(digits.lstrip("0") or "0")
    return number if 1 <= number <= MAX_NODE_COUNT else None
