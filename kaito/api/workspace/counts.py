"""One bound for every number of nodes: `resource.count` and the annotation `kaito.sh/node-count-override`."""

from typing import Final

COUNT_LIMIT: Final = 128
"""Most nodes of one Workspace. Everything planned, listed or created for a Workspace is bounded by it."""


def node_count(text: str) -> int | None:
    """The number of nodes that an annotation asks for; None unless it is a whole number from 1 to `COUNT_LIMIT`."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()) or len(digits.lstrip("0")) > len(str(COUNT_LIMIT)):
        return None
    number = int(digits.lstrip("0") or "0")
    return number if 1 <= number <= COUNT_LIMIT else None
