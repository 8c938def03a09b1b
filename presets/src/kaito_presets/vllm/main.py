"""`kaito-vllm`: the program in the container of the vLLM runtime.

Runs as a console script or through `/workspace/vllm/inference_api.py`. Builds the command of the engine, listens on the
port of the pod, starts the engine on loopback, searches a context length that fits if none is set, and exits when the
engine exits.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from aiohttp import web

from kaito_presets.environment import check_temporary_directory
from kaito_presets.errors import ConfigurationError, PresetError
from kaito_presets.json_values import is_list
from kaito_presets.machine import read_memory_limit
from kaito_presets.serving.adapters import Adapter, find_adapters
from kaito_presets.serving.config import read_strengths
from kaito_presets.serving.progress import StartProgress, download_cache
from kaito_presets.vllm.arguments import (
    ModelProperties,
    command_line,
    engine_flags,
    read_model,
    scaled_adapters,
    smaller_context,
)
from kaito_presets.vllm.engine import Engine
from kaito_presets.vllm.hardware import read_gpus
from kaito_presets.vllm.offload import offload_flags
from kaito_presets.vllm.options import WrapperPlan, read_options
from kaito_presets.vllm.proxy import Proxy

log = logging.getLogger("kaito_presets.vllm")

DEFAULT_MODEL: Final = "/workspace/vllm/weights"
DEFAULT_PORT: Final = 5000
DEFAULT_MAX_SEQUENCES: Final = 256
"""vLLM's default of --max-num-seqs on most GPUs. The wrapper admits twice as many requests."""
HEALTH_POLL_SECONDS: Final = 0.5
DRAIN_POLL_SECONDS: Final = 0.05


def main() -> int:
    """Runs until the engine exits or SIGTERM arrives; returns the exit code."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        plan = read_options(sys.argv[1:])
        adapters = find_adapters(plan.options.kaito_adapters_dir, read_strengths())
        check_temporary_directory()
        with tempfile.TemporaryDirectory(prefix="kaito-adapters-") as scratch:
            launch = plan_launch(plan, adapters, Path(scratch))
            if plan.options.kaito_dry_run:
                document = {"command": launch.command(launch.flags), "port": launch.port}
                print(json.dumps(document, indent=2))  # noqa: T201 - the output of --kaito-dry-run
                return 0
            return asyncio.run(serve(launch))
    except PresetError as error:
        print(f"kaito-vllm: {error}", file=sys.stderr)  # noqa: T201 - the last line of the log is the reason
        return error.exit_code


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that is decided before the engine starts."""

    plan: WrapperPlan
    model: str
    """Directory or Hugging Face id."""
    model_properties: ModelProperties
    flags: Mapping[str, Any]
    """Flags of the first start."""
    adapters: Sequence[str]
    host: str
    port: int

    def command(self, flags: Mapping[str, Any], *address: str) -> list[str]:
        """Builds the command line of the engine."""
        return [self.plan.options.kaito_engine, "serve", self.model, *address, *command_line(flags)]

    @property
    def served_name(self) -> str:
        """Name of the model in the OpenAI routes."""
        name = self.flags.get("served-model-name", self.model)
        return str(name[0] if is_list(name) else name)

    @property
    def in_flight_limit(self) -> int | None:
        """Most requests under way; None for no limit."""
        if self.plan.options.kaito_disable_rate_limit:
            return None
        return 2 * int(self.flags.get("max-num-seqs", DEFAULT_MAX_SEQUENCES))

    @property
    def probe_steps(self) -> int:
        """Further starts allowed in the search for a context length; 0 if the user set the length."""
        if "max-model-len" in self.plan.engine:
            return 0
        steps = self.plan.options.kaito_max_probe_steps
        return self.plan.config.max_probe_steps if steps is None else steps


def plan_launch(plan: WrapperPlan, adapters: Sequence[Adapter], scratch: Path) -> Launch:
    """Resolves flags, hardware and adapters; copies of rescaled adapters go below `scratch`.

    Raises:
        PresetError: a flag, the model directory or an adapter cannot be used.
    """
    given = dict(plan.engine)
    model = str(given.pop("model", DEFAULT_MODEL))
    host = str(given.pop("host", "0.0.0.0"))  # noqa: S104 - a server in a pod
    port = _parse_port(given.pop("port", DEFAULT_PORT + int(os.environ.get("LOCAL_RANK", "0"))))
    facts = read_model(model)
    flags = engine_flags(
        given,
        model=facts,
        gpus=read_gpus(),
        nodes=plan.options.kaito_nodes,
        adapters=adapters,
        adapter_paths=scaled_adapters(adapters, scratch),
    )
    flags |= offload_flags(plan, flags, read_memory_limit())
    names = [adapter.name for adapter in adapters]
    return Launch(plan=plan, model=model, model_properties=facts, flags=flags, adapters=names, host=host, port=port)


async def serve(launch: Launch) -> int:
    """Listens, and runs the engine until it exits or SIGTERM arrives; returns the exit code."""
    engine_port = find_free_port()
    proxy = Proxy(
        f"http://127.0.0.1:{engine_port}",
        model=launch.served_name,
        adapters=launch.adapters,
        in_flight_limit=launch.in_flight_limit,
        progress=StartProgress(download_cache(launch.model, launch.flags.get("download-dir"))),
    )
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with _listening(proxy, launch.host, launch.port):
        return await _search_context(launch, proxy, engine_port, stopping)


@asynccontextmanager
async def _listening(proxy: Proxy, host: str, port: int) -> AsyncGenerator[None]:
    """Serves the proxy's routes inside the block."""
    # handler_cancellation: a client that disconnects cancels its handler, which aborts the request to the engine.
    runner = web.AppRunner(proxy.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        log.info("listening on %s:%d", host, port)
        yield
    finally:
        await runner.cleanup()


async def _search_context(launch: Launch, proxy: Proxy, engine_port: int, stopping: asyncio.Event) -> int:
    """Runs the engine, again with a shorter context while a start fails for lack of cache memory.

    A run that became healthy is the last one: if it fails later, Kubernetes restarts the container.
    """
    flags = launch.flags
    for remaining in range(launch.probe_steps, -1, -1):
        engine = Engine(
            launch.command(flags, "--host=127.0.0.1", f"--port={engine_port}"), on_loaded=proxy.progress.set_warming
        )
        proxy.progress.is_warming = False
        code = await _run_engine(engine, proxy, stopping, launch.plan.options.kaito_drain_seconds)
        if code is None:
            return 0
        tried = int(flags.get("max-model-len") or launch.model_properties.context_tokens)
        may_search = remaining and tried and proxy.state == "Loading"
        shorter = smaller_context(engine.output, tried, 0) if may_search else None
        if shorter is None:
            log.error("the engine exited with code %d", code)
            return code or 1
        log.warning("a context of %d tokens does not fit; trying %d", tried, shorter)
        flags = {**flags, "max-model-len": shorter}
    raise AssertionError("unreachable: the last start returns")


async def _run_engine(engine: Engine, proxy: Proxy, stopping: asyncio.Event, drain_seconds: float) -> int | None:
    """Runs the engine until it exits (returns its exit code) or `stopping` is set (drains, returns None)."""
    try:
        await engine.start()
    except OSError as error:
        raise ConfigurationError(f"the engine cannot be started: {error}; is vllm installed?") from error
    async with asyncio.TaskGroup() as group:
        exited = group.create_task(engine.wait(), name="engine")
        ready = group.create_task(_become_ready(proxy), name="readiness")
        stop = group.create_task(stopping.wait(), name="stop")
        await asyncio.wait({exited, stop}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not exited.done():
            await drain(proxy, exited, drain_seconds)
            await engine.stop()
            await exited
            return None
        stop.cancel()
        return exited.result()


async def drain(proxy: Proxy, exited: "asyncio.Future[int]", seconds: float) -> None:
    """Refuses new requests and waits for those under way."""
    proxy.state = "Draining"
    deadline = time.monotonic() + seconds
    # Once in the life of the process: polling is simpler than a second signal.
    while not proxy.idle and time.monotonic() < deadline and not exited.done():  # noqa: ASYNC110
        await asyncio.sleep(DRAIN_POLL_SECONDS)


async def _become_ready(proxy: Proxy) -> None:
    while not await proxy.engine_is_healthy():  # noqa: ASYNC110 - the engine sends no event when it is ready
        await asyncio.sleep(HEALTH_POLL_SECONDS)
    proxy.state = "Healthy"
    log.info("ready")


def _parse_port(value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise ConfigurationError(f"--port: {value!r} is not a port number") from error


def find_free_port() -> int:
    """Returns a port on loopback that no process listens on at the time of the call."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
