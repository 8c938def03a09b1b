from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from fake_model import FakeModel
from kaito_presets.inference.language_model import LanguageModel
from kaito_presets.inference.metrics import Metrics
from kaito_presets.inference.scheduler import Scheduler
from kaito_presets.inference.server import Lifecycle, application
from kaito_presets.inference.service import GenerationService
from running_server import RunningServer, Serve


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server around a model; everything is taken down at the end of the test."""
    started: list[tuple[RunningServer, web.AppRunner]] = []

    async def start(
        model: LanguageModel | None = None,
        *,
        queue: int = 100,
        batch: int = 8,
        ready: bool = True,
        conversational: bool = False,
        max_request_bytes: int = 100_000,
    ) -> RunningServer:
        model = model or FakeModel()
        metrics = Metrics()
        lifecycle = Lifecycle(model.info.name)
        scheduler = Scheduler(model, queue_limit=queue, batch_limit=batch, observer=metrics)
        scheduler.start()
        app = application(lifecycle, metrics, conversational=conversational, max_request_bytes=max_request_bytes)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        server = RunningServer(f"http://127.0.0.1:{port}", ClientSession(), model, lifecycle, metrics, scheduler)
        if ready:
            lifecycle.set_ready(GenerationService(model, scheduler, metrics))
        started.append((server, runner))
        return server

    yield start
    for server, runner in started:
        await server.session.close()
        if isinstance(server.model, FakeModel):
            server.model.release()
        await server.lifecycle.drain(0)
        server.scheduler.stop()
        await runner.cleanup()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Phi-3 directory."""
    from kaito_presets.tiny_model import TinyModelOptions, write_tiny_model

    directory = tmp_path_factory.mktemp("tiny-phi-3")
    write_tiny_model(TinyModelOptions(directory=directory))
    return directory
