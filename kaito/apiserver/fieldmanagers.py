"""Field ownership: `metadata.managedFields`."""

from __future__ import annotations

from kaito.apiserver.core import Context, Core
from kaito.apiserver.kinds import Resource
from kaito.apiserver.wire import Object


def record_write(
    core: Core, resource: Resource, data: Object, old: Object | None, context: Context, subresource: str
) -> None:
    """Note which fields a create, update or patch wrote."""


def record_apply(
    core: Core, resource: Resource, data: Object, old: Object | None, applied: Object, context: Context, *, force: bool
) -> None:
    """Note which fields an apply owns."""
