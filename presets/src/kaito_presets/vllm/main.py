"""`kaito-vllm`: the program in the container of the vLLM runtime.

Called as a console script or through `/workspace/vllm/inference_api.py`. Builds the engine's command, starts
it on loopback, answers on the pod's port from the first moment, and ends with the engine.
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
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from kaito_presets.environment import check_temporary_directory
from kaito_presets.errors import ConfigurationError, PresetError
from kaito_presets.inference.adapters import find_adapters
from kaito_presets.inference.options import read_strengths
from kaito_presets.json_shapes import is_list
from kaito_presets.vllm.arguments import command_line, engine_flags, read_model, scaled_adapters, smaller_context
from kaito_presets.vllm.engine import Engine
from kaito_presets.vllm.hardware import read_gpus
from kaito_presets.vllm.offload import memory_limit, offload_flags
from kaito_presets.vllm.options import WrapperPlan, read_options
from kaito_presets.vllm.proxy import Proxy

log = logging.getLogger("kaito_presets.vllm")

DEFAULT_MODEL: Final = "/workspace/vllm/weights"
DEFAULT_PORT: Final = 5000
DEFAULT_MAX_SEQUENCES: Final = 256
"""vLLM's own default of --max-num-seqs on most GPUs; twice that may be under way before we refuse."""
POLL_SECONDS: Final = 0.5


def main() -> int:
    """Run until the engine ends or SIGTERM; returns the exit code."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        plan = read_options(sys.argv[1:])
        adapters = find_adapters(plan.own.kaito_adapters_dir, read_strengths())
        check_temporary_directory()
        with tempfile.TemporaryDirectory(prefix="kaito-adapters-") as scratch:
            model = str(plan.engine.pop("model", DEFAULT_MODEL))
            host = str(plan.engine.pop("host", "0.0.0.0"))  # noqa: S104 - a server in a pod
            rank = int(os.environ.get("LOCAL_RANK", "0"))
            port = _port(plan.engine.pop("port", DEFAULT_PORT + rank))
            flags = engine_flags(
                plan.engine,
                model=read_model(model),
                gpus=read_gpus(),
                nodes=plan.own.kaito_nodes,
                adapters=adapters,
                adapter_paths=scaled_adapters(adapters, Path(scratch)),
            )
            flags |= offload_flags(plan, flags, memory_limit())
            if plan.own.kaito_dry_run:
                words = [plan.own.kaito_engine, "serve", model, *command_line(flags)]
                print(json.dumps({"command": words, "port": port}, indent=2))  # noqa: T201 - what the flag is for
                return 0
            names = [adapter.name for adapter in adapters]
            return asyncio.run(serve(plan, model, flags, names, host=host, port=port))
    except PresetError as error:
        print(f"kaito-vllm: {error}", file=sys.stderr)  # noqa: T201 - the last line of the log is the reason
        return error.exit_code


async def serve(
    plan: WrapperPlan, model: str, flags: dict[str, Any], adapters: list[str], *, host: str, port: int
) -> int:
    """Listen, start the engine, wait for either to end."""
    engine_port = _free_port()
    served = flags.get("served-model-name", model)
    name = str(served[0] if is_list(served) else served)
    limit = None if plan.own.kaito_disable_rate_limit else 2 * int(flags.get("max-num-seqs", DEFAULT_MAX_SEQUENCES))
    proxy = Proxy(f"http://127.0.0.1:{engine_port}", model=name, adapters=adapters, in_flight_limit=limit)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    runner = web.AppRunner(proxy.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        log.info("listening on %s:%d", host, port)
        steps = plan.own.kaito_max_probe_steps
        steps = plan.config.max_probe_steps if steps is None else steps
        chosen = "max-model-len" not in plan.engine
        for left in range(steps if chosen else 0, -1, -1):
            words = [plan.own.kaito_engine, "serve", model, "--host=127.0.0.1", f"--port={engine_port}"]
            engine = Engine([*words, *command_line(flags)])
            code = await _run_engine(engine, proxy, stopping, plan.own.kaito_drain_seconds)
            if code is None:
                return 0
            tried = int(flags.get("max-model-len") or read_model(model).context_tokens or 0)
            shorter = smaller_context(engine.output, tried, 0) if left and tried and proxy.state == "Loading" else None
            if shorter is None:
                log.error("the engine ended with %d", code)
                return code or 1
            log.warning("a context of %d tokens does not fit; trying %d", tried, shorter)
            flags = {**flags, "max-model-len": shorter}
        return 1
    finally:
        await runner.cleanup()


async def _run_engine(engine: Engine, proxy: Proxy, stopping: asyncio.Event, drain_seconds: float) -> int | None:
    """Run the engine until it ends (its exit code) or we are asked to stop (None)."""
    try:
        await engine.start()
    except OSError as error:
        raise ConfigurationError(f"the engine cannot be started: {error}; is vllm installed?") from error
    async with asyncio.TaskGroup() as group:
        ended = group.create_task(engine.wait(), name="engine")
        ready = group.create_task(_become_ready(proxy), name="readiness")
        stop = group.create_task(stopping.wait(), name="stop")
        await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not ended.done():
            proxy.state = "Draining"
            deadline = time.monotonic() + drain_seconds
            while not proxy.idle and time.monotonic() < deadline and not ended.done():  # noqa: ASYNC110 - once
                await asyncio.sleep(POLL_SECONDS / 10)
            await engine.stop()
            await ended
            return None
        stop.cancel()
        return ended.result()


async def _become_ready(proxy: Proxy) -> None:
    while not await proxy.engine_is_healthy():  # noqa: ASYNC110 - the engine can only be asked
        await asyncio.sleep(POLL_SECONDS)
    proxy.state = "Healthy"
    log.info("ready")


def _port(value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise ConfigurationError(f"--port: {value!r} is not a number") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
