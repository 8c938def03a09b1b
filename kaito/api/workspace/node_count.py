"""Limit of the number of nodes, for `resource.count`, `spec.replicas` and the annotation
`kaito.sh/node-count-override`."""

from typing import Final

MAX_NODE_COUNT: Final = 128
"""Maximum number of nodes of one Workspace."""


def parse_node_count(text: str) -> int | None:
    """Parses the number of nodes in an annotation; returns None unless it is an integer from 1 to `MAX_NODE_COUNT`."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()) or len(digits.lstrip("0")) > len(str(MAX_NODE_COUNT)):
        return None
    number = int(digits.lstrip("0") or "0")
    return number if 1 <= number <= MAX_NODE_COUNT else None
