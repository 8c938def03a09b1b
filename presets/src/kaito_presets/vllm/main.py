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
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from kaito_presets.environment import check_temporary_directory
from kaito_presets.errors import ConfigurationError, PresetError
from kaito_presets.serving.adapter_sync import sync_from_environment
from kaito_presets.serving.adapters import find_adapters
from kaito_presets.serving.config import read_strengths
from kaito_presets.serving.progress import StartProgress
from kaito_presets.serving.tracing import Phases, start_tracing
from kaito_presets.vllm.adapters import RUNTIME_VARIABLE, EngineAdapters
from kaito_presets.vllm.arguments import RESERVED_RANK, smaller_context
from kaito_presets.vllm.engine import Engine
from kaito_presets.vllm.group import GroupEnded, Leader, Membership, engine_group_flags, read_membership
from kaito_presets.vllm.launch import Launch, plan_launch
from kaito_presets.vllm.options import read_options
from kaito_presets.vllm.proxy import Proxy
from kaito_presets.vllm.worker import completes, serve_worker

log = logging.getLogger("kaito_presets.vllm")

HEALTH_POLL_SECONDS: Final = 0.5
DRAIN_POLL_SECONDS: Final = 0.05

PROTOCOL_VARIABLE: Final = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
"""Environment variable of OpenTelemetry from which vLLM selects its exporter."""


def main() -> int:
    """Runs until the engine exits or SIGTERM arrives; returns the exit code."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        plan = read_options(sys.argv[1:])
        adapters = find_adapters(plan.options.kaito_adapters_dir, read_strengths())
        check_temporary_directory()
        with tempfile.TemporaryDirectory(prefix="kaito-adapters-") as scratch:
            launch = plan_launch(plan, adapters, Path(scratch), sync_from_environment())
            if plan.options.kaito_dry_run:
                document = {"command": launch.command(launch.flags), "port": launch.port}
                print(json.dumps(document, indent=2))  # noqa: T201 - the output of --kaito-dry-run
                return 0
            return asyncio.run(serve(launch))
    except PresetError as error:
        print(f"kaito-vllm: {error}", file=sys.stderr)  # noqa: T201 - the last line of the log is the reason
        return error.exit_code


async def serve(launch: Launch) -> int:
    """Listens, and runs the engine until it exits or SIGTERM arrives; returns the exit code.

    Raises:
        GroupEnded: another member of the group of nodes ended.
    """
    member = read_membership(launch.options)
    if member is not None and not member.is_leader:
        return await serve_worker(launch, member)
    engine_port = find_free_port()
    proxy = Proxy(
        f"http://127.0.0.1:{engine_port}",
        model=launch.served_name,
        adapters=launch.adapters,
        in_flight_limit=launch.in_flight_limit,
        progress=StartProgress(launch.download_cache),
        sync=launch.sync,
        tracing=start_tracing("kaito-vllm"),
    )
    if proxy.tracing.is_on:
        os.environ.setdefault(PROTOCOL_VARIABLE, "http/protobuf")  # for the engine, whose default is gRPC
    if launch.sync is not None:
        os.environ[RUNTIME_VARIABLE] = "True"  # for the engine, which inherits it
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        async with _listening(proxy, launch.host, launch.port):
            if member is None:
                return await _search_context(launch, proxy, engine_port, stopping)
            return await _lead(launch, member, proxy, engine_port, stopping)
    finally:
        await asyncio.to_thread(proxy.tracing.close)


async def _lead(launch: Launch, member: Membership, proxy: Proxy, engine_port: int, stopping: asyncio.Event) -> int:
    """Waits for the workers of the group and runs the leader's engine with them; returns the exit code.

    Raises:
        GroupEnded: a worker ended.
    """
    port, silence = launch.options.kaito_master_port, launch.options.kaito_group_timeout
    leader = Leader(member, on_worker_stopping=stopping.set, master_port=port, silence_seconds=silence)
    async with leader.listening(launch.host):
        if not await completes(leader.wait_for_workers(), stopping):
            return 0
        flags = {**launch.flags, **engine_group_flags(member, leader.master)}
        code = await _search_context(replace(launch, flags=flags), proxy, engine_port, stopping, leader)
        if code:
            await leader.leave(f"the engine of the leader exited with code {code}")
        return code


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


async def _search_context(
    launch: Launch, proxy: Proxy, engine_port: int, stopping: asyncio.Event, leader: Leader | None = None
) -> int:
    """Runs the engine, again with a shorter context while a start fails for lack of cache memory.

    A run that became healthy is the last one: if it fails later, Kubernetes restarts the container.
    """
    flags = launch.flags
    for remaining in range(launch.probe_steps, -1, -1):
        phases = Phases("load model")
        command = launch.command(flags, "--host=127.0.0.1", f"--port={engine_port}")
        engine = Engine(command, on_loaded=partial(_set_warming, proxy, phases))
        proxy.progress.is_warming = False
        code = await _run_engine(engine, proxy, phases, stopping, launch, leader)
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


def _set_warming(proxy: Proxy, phases: Phases) -> None:
    phases.begin("warm up")
    proxy.progress.set_warming()


async def _run_engine(
    engine: Engine, proxy: Proxy, phases: Phases, stopping: asyncio.Event, launch: Launch, leader: Leader | None = None
) -> int | None:
    """Runs the engine until it exits (returns its exit code) or `stopping` is set (drains, returns None).

    Raises:
        GroupEnded: a worker of the leader's group ended.
    """
    try:
        await engine.start()
    except OSError as error:
        raise ConfigurationError(f"the engine cannot be started: {error}; is vllm installed?") from error
    group_end = asyncio.get_running_loop().create_future() if leader is None else leader.ended
    async with asyncio.TaskGroup() as group:
        exited = group.create_task(engine.wait(), name="engine")
        ready = group.create_task(_become_ready(engine, proxy, phases, launch), name="readiness")
        stop = group.create_task(stopping.wait(), name="stop")
        await asyncio.wait({exited, stop, group_end}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        stop.cancel()
        if not exited.done():
            if not group_end.done():
                await drain(proxy, exited, launch.options.kaito_drain_seconds)
            proxy.state = "Draining"
            await engine.stop()
            await exited
        elif not group_end.done():
            return exited.result()
    if group_end.done():
        raise GroupEnded(group_end.result())
    return None


async def drain(proxy: Proxy, exited: "asyncio.Future[int]", seconds: float) -> None:
    """Refuses new requests and waits for those under way."""
    proxy.state = "Draining"
    deadline = time.monotonic() + seconds
    # Once in the life of the process: polling is simpler than a second signal.
    while not proxy.idle and time.monotonic() < deadline and not exited.done():  # noqa: ASYNC110
        await asyncio.sleep(DRAIN_POLL_SECONDS)


async def _become_ready(engine: Engine, proxy: Proxy, phases: Phases, launch: Launch) -> None:
    """Waits for the engine and the adapters; follows the list of adapters until it is canceled, if there is one."""
    while not await proxy.engine_is_healthy():  # noqa: ASYNC110 - the engine sends no event when it is ready
        await asyncio.sleep(HEALTH_POLL_SECONDS)
    async with asyncio.TaskGroup() as group:
        if launch.sync is not None:
            phases.begin("load adapters")
            rank = int(launch.flags.get("max-lora-rank", RESERVED_RANK))
            host = EngineAdapters(proxy.names, proxy.send_to_engine, max_rank=rank, scratch=launch.scratch)
            group.create_task(launch.sync.run(host), name="adapters")
            await launch.sync.wait_until_loaded()
        proxy.progress.figures = engine.figures.complete()
        proxy.state = "Healthy"
        log.info("ready")
        proxy.tracing.record_phases("start server", phases.moments)


def find_free_port() -> int:
    """Returns a port on loopback that no process listens on at the time of the call."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
