"""Admission: webhooks and in-process callbacks that see every write before it is stored."""

from __future__ import annotations

from kaito.apiserver.core import Context, Core
from kaito.apiserver.routes import Target
from kaito.apiserver.wire import Object


class Admission:
    """The mutating and validating phases of one server."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def mutate(
        self, target: Target, operation: str, data: Object, old: Object | None, context: Context
    ) -> Object:
        """Return the object as the mutating phase leaves it."""
        return data

    async def validate(
        self, target: Target, operation: str, data: Object, old: Object | None, context: Context
    ) -> None:
        """Refuse the write when the validating phase says so."""
