"""Loads and unloads adapters of the running model, for `AdapterSync`.

The scheduler's thread changes the adapters between two steps, so that no step computes with a part of an adapter. A
request keeps the version that its `model` field named: a version that is not offered any more is deleted when no
waiting or running row uses it, and not before `GRACE_SECONDS`, because a request selects its version before it is
queued.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, final

from kaito_presets.inference.language_model import AdaptableModel
from kaito_presets.inference.metrics import Metrics
from kaito_presets.inference.scheduler import Scheduler
from kaito_presets.serving.adapters import WEIGHTS_FILE, Adapter

GRACE_SECONDS: Final = 10.0
"""Longest expected time between the arrival of a request and its place in the queue: its prompt is tokenized."""

CHUNK_BYTES: Final = 2**22


@final
class SchedulerAdapters:
    """Implements `serving.adapter_sync.AdapterHost`."""

    def __init__(
        self,
        model: AdaptableModel,
        scheduler: Scheduler,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._scheduler = scheduler
        self._metrics = metrics
        self._clock = clock
        self._changed_at: float | None = None
        """Time of the last change; None if no former version is left."""
        self._in_use: frozenset[str] = frozenset()

    async def load(self, adapter: Adapter) -> None:
        """See `AdapterHost.load`."""
        # Read once on another thread, so that the thread of the model reads from the page cache.
        await asyncio.to_thread(_read_through, adapter)
        await self._scheduler.run_between_steps(lambda: self._model.load_adapter(adapter))
        self._metrics.adapter_loaded.labels(adapter.name).set(adapter.strength)
        self._changed_at = self._clock()

    async def unload(self, name: str) -> None:
        """See `AdapterHost.unload`."""
        await self._scheduler.run_between_steps(lambda: self._model.retire_adapter(name))
        with contextlib.suppress(KeyError):
            self._metrics.adapter_loaded.remove(name)
        self._in_use |= {name}
        self._changed_at = self._clock()

    async def release(self) -> frozenset[str]:
        """See `AdapterHost.release`."""
        if self._changed_at is None or self._clock() < self._changed_at + GRACE_SECONDS:
            return self._in_use
        changed_at = self._changed_at
        left = await self._scheduler.run_between_steps(
            lambda: self._model.release_adapters(self._scheduler.adapters_in_use())
        )
        self._in_use = left - {""}
        if not left and self._changed_at == changed_at:
            self._changed_at = None
        return self._in_use


def _read_through(adapter: Adapter) -> None:
    with (adapter.path / WEIGHTS_FILE).open("rb") as file:
        while file.read(CHUNK_BYTES):
            pass
