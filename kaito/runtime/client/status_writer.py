"""Writes the status that a reconcile collected, with retries on conflicts; used by `Api.status`."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, final

from kaito.runtime.client.patch import Patch
from kaito.runtime.client.status import StatusScope
from kaito.runtime.client.write_context import current_write_context
from kaito.runtime.errors import Conflict, KaitoRuntimeError, NotFound
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import Resource

R = TypeVar("R", bound=Resource)

STATUS_ATTEMPTS: Final = 4
"""Attempts of one status write on conflicts (the steps of client-go's `retry.DefaultBackoff`)."""

STATUS_FLUSH_SECONDS: Final = 5.0
"""Time limit of the status write of a cancelled reconcile: shutdown and deadlines wait for it."""

_log = get_logger(__name__)


@final
class StatusWriter:
    """Writes a `StatusScope`.

    Args:
        patch: as `Api.patch`.
        find: as `Client.find`.
        rng: random source of the jitter between attempts.
    """

    def __init__(
        self, patch: Callable[..., Awaitable[Any]], find: Callable[..., Awaitable[Any]], rng: random.Random
    ) -> None:
        self._patch = patch
        self._find = find
        self._rng = rng

    async def write(self, scope: StatusScope[R], obj: R) -> None:
        """Writes the changes of the scope in one request, if there are any. Raises as `Api.status`."""
        run = current_write_context()
        present = obj if run is None else run.latest(obj)  # the version before an own write would be a conflict
        for attempt in range(1, STATUS_ATTEMPTS + 1):
            patch: Patch = scope.patch_for(present)
            try:
                await self._patch(present, patch, subresource="status")
                return
            except NotFound as error:
                if not error.is_object:  # the kind, or its status subresource, is not served
                    raise
                return  # the object was deleted
            except Conflict:
                if attempt == STATUS_ATTEMPTS:
                    raise
            # client-go's DefaultBackoff: 10 ms, factor 5, jitter 0.1
            await asyncio.sleep(0.01 * 5.0 ** (attempt - 1) * (1.0 + 0.1 * self._rng.random()))
            newer: R | None = await self._find(type(obj), obj.name, obj.namespace)
            if newer is None or newer.uid != obj.uid:
                return
            present = newer

    async def write_after(self, error: BaseException, scope: StatusScope[R], obj: R) -> None:
        """Writes the status of a failed reconcile; a failure of the write is added as a note to the reconcile's
        error."""
        try:
            async with asyncio.timeout(STATUS_FLUSH_SECONDS):
                await self.write(scope, obj)
        except (KaitoRuntimeError, TimeoutError) as failure:
            error.add_note(f"the status of {obj.kind} {obj.key} was not written: {failure}")
            _log.warning("status not written", kind=obj.kind, key=str(obj.key), error=str(failure))
