"""Rules of built-in types at creation and update: what is allocated, and what may not change."""

from __future__ import annotations

from kaito.apiserver.core import Core
from kaito.apiserver.kinds import Resource
from kaito.apiserver.wire import Object


def create_rules(core: Core, resource: Resource, data: Object) -> None:
    """Complete and check a new object of a built-in type."""


def update_rules(resource: Resource, data: Object, old: Object, subresource: str) -> None:
    """Refuse a change of what is immutable."""
