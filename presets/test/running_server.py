"""A whole server on loopback, as the tests see it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession
from kaito_presets.inference.language_model import LanguageModel
from kaito_presets.inference.metrics import Metrics
from kaito_presets.inference.scheduler import Scheduler
from kaito_presets.inference.server import Lifecycle


@dataclass
class RunningServer:
    """A server on a loopback port, with everything a test wants to look at."""

    url: str
    session: ClientSession
    model: LanguageModel
    lifecycle: Lifecycle
    metrics: Metrics
    scheduler: Scheduler

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        async with self.session.post(self.url + path, json=body) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path) as response:
            return response.status, await response.json()

    async def queued(self, count: int) -> None:
        """Waits until that many rows stand in the queue."""
        value = self.metrics.registry.get_sample_value
        await self.until(lambda: value("kaito_generation_queue_length") == count)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for what the scheduler's thread is about to do."""
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - the state belongs to a thread
                await asyncio.sleep(0.001)


Serve = Callable[..., Awaitable[RunningServer]]
