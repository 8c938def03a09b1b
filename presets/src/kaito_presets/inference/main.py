"""`kaito-inference`: the program in the container of the transformers runtime.

Runs as a console script or through `/workspace/tfs/inference_api.py`. Start-up order: options and adapters are checked
without torch, the port is opened, and a thread imports torch and loads the model while health is 503.
"""

import asyncio
import gc
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from kaito_presets.environment import check_temporary_directory
from kaito_presets.errors import PresetError
from kaito_presets.inference.adapter_host import SchedulerAdapters
from kaito_presets.inference.language_model import AdaptableModel, ModelInfo
from kaito_presets.inference.metrics import Metrics
from kaito_presets.inference.options import InferenceOptions, read_options
from kaito_presets.inference.scheduler import Scheduler
from kaito_presets.inference.server import Lifecycle, application
from kaito_presets.inference.service import GenerationService
from kaito_presets.serving.adapter_sync import sync_from_environment
from kaito_presets.serving.adapters import Adapter, find_adapters
from kaito_presets.serving.config import read_strengths
from kaito_presets.serving.progress import StartFigures, StartProgress, download_cache
from kaito_presets.serving.tracing import Phases, Tracing, start_tracing

log = logging.getLogger("kaito_presets.inference")

T = TypeVar("T")


def main() -> int:
    """Runs the server until SIGTERM; returns the exit code."""
    try:
        options = read_options(sys.argv[1:])
        adapters = find_adapters(options.adapters_dir, read_strengths())
        if options.dry_run:
            print(json.dumps(resolved_plan(options, adapters), indent=2))  # noqa: T201 - the output of --dry_run
            return 0
        check_temporary_directory()
        logging.basicConfig(
            level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
        )
        return asyncio.run(serve(options, adapters))
    except PresetError as error:
        print(f"kaito-inference: {error}", file=sys.stderr)  # noqa: T201 - the last line of the log is the reason
        return error.exit_code


def resolved_plan(options: InferenceOptions, adapters: Sequence[Adapter]) -> dict[str, object]:
    """Builds the document that `--dry_run` prints."""
    source = Path(options.pretrained_model_name_or_path)
    return {
        "options": options.model_dump(mode="json"),
        "source": "directory" if source.is_dir() else "hugging face",
        "adapters": [
            {"name": adapter.name, "path": str(adapter.path), "strength": adapter.strength, "rank": adapter.rank}
            for adapter in adapters
        ],
    }


async def serve(options: InferenceOptions, adapters: Sequence[Adapter]) -> int:
    """Listens, loads the model, serves until SIGTERM, and drains; returns the exit code."""
    metrics, tracing = Metrics(), start_tracing("kaito-inference")
    source = options.pretrained_model_name_or_path
    lifecycle = Lifecycle(
        options.name, StartProgress(download_cache(source, options.cache_dir)), sync_from_environment()
    )
    app = application(
        lifecycle,
        metrics,
        conversational=options.pipeline == "conversational",
        max_request_bytes=options.max_request_bytes,
        tracing=tracing,
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    # handler_cancellation: a client that disconnects cancels its handler, which cancels its generation.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port)
        await site.start()
        for address in runner.addresses:
            log.info("listening on %s", address)
        async with asyncio.TaskGroup() as group:
            loading = group.create_task(_load(options, adapters, lifecycle, metrics, tracing), name="load")
            await _first_of(stopping, loading)
            if loading.done() and not stopping.is_set():
                await stopping.wait()
            log.info("draining: running requests have %.0f s", options.drain_seconds)
            loading.cancel()
            await lifecycle.drain(options.drain_seconds)
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from None
    finally:
        await runner.cleanup()
        await asyncio.to_thread(tracing.close)
    return 0


async def _first_of(event: asyncio.Event, task: "asyncio.Task[None]") -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(event.wait())
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()


async def _load(
    options: InferenceOptions, adapters: Sequence[Adapter], lifecycle: Lifecycle, metrics: Metrics, tracing: Tracing
) -> None:
    """Loads the model, and follows the list of adapters until it is canceled, if there is one."""

    phases = Phases("load model")

    def set_warming() -> None:
        phases.begin("warm up")
        lifecycle.progress.set_warming()

    def load() -> tuple[AdaptableModel, int]:
        # The import takes seconds. On this thread, it does not delay the health responses.
        from kaito_presets.inference.backend.memory import peak_gpu_bytes
        from kaito_presets.inference.backend.model import open_model

        return open_model(options, adapters, on_loaded=set_warming), peak_gpu_bytes()

    started = asyncio.get_running_loop().time()
    model, peak_bytes = await _on_daemon_thread(load)
    scheduler = Scheduler(
        model, queue_limit=options.max_queue_size, batch_limit=options.max_batch_size, observer=metrics
    )
    scheduler.start()
    for adapter in adapters:
        metrics.adapter_loaded.labels(adapter.name).set(adapter.strength)
    for option in model.info.unbatched_reasons:
        metrics.model_unbatched.labels(option).set(1)
    metrics.model_loaded.set(1)
    # The libraries' objects live as long as the process. Frozen, they are not visited by full collections, which pause
    # the event loop for tens of milliseconds each.
    gc.collect()
    gc.freeze()
    async with asyncio.TaskGroup() as group:
        if lifecycle.adapters is not None:
            phases.begin("load adapters")
            host = SchedulerAdapters(model, scheduler, metrics)
            group.create_task(lifecycle.adapters.run(host), name="adapters")
            await lifecycle.adapters.wait_until_loaded()
        seconds = asyncio.get_running_loop().time() - started
        lifecycle.progress.figures = StartFigures(
            load_seconds=seconds,
            weights_bytes=model.info.weights_bytes,
            cache_tokens=model.info.cache_tokens,
            context_tokens=model.info.context_tokens,
            peak_bytes=peak_bytes,
        )
        lifecycle.set_ready(GenerationService(model, scheduler, metrics))
        tracing.record_phases("start server", phases.moments)
        _log_start(model.info, options, seconds)


def _log_start(info: ModelInfo, options: InferenceOptions, seconds: float) -> None:
    log.info(
        "ready after %.1f s: %s on %s (%s), context %d tokens, adapters: %s",
        seconds, info.name, info.device, info.dtype, info.context_tokens, ", ".join(info.adapters) or "none",
    )  # fmt: skip
    if info.unbatched_reasons:
        log.warning(
            "requests are not batched and have no log probabilities because of %s",
            ", ".join(info.unbatched_reasons),
        )
    else:
        log.info("requests are batched: up to %d sequences", options.max_batch_size)


async def _on_daemon_thread(work: Callable[[], T]) -> T:
    """Runs `work` on a daemon thread.

    A thread of the default executor would keep the process alive until the model is loaded, even after SIGTERM.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        elif result is not None:
            future.set_result(result)

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised by the waiting task
            outcome = partial(finish, None, error)
        else:
            outcome = partial(finish, result, None)
        if not loop.is_closed():
            loop.call_soon_threadsafe(outcome)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await future


if __name__ == "__main__":
    sys.exit(main())
