"""Strategic merge patch of built-in types."""

from __future__ import annotations

from collections.abc import Callable

from kaito.apiserver.kinds import Resource
from kaito.apiserver.patch import merge_patch
from kaito.apiserver.wire import Json


def strategic_patch(resource: Resource) -> Callable[[Json, Json], Json]:
    """Return the function that applies a strategic merge patch to objects of a type."""
    return merge_patch
