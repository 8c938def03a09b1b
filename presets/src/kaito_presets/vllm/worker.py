"""Runs a worker of a group: the engine without a server, on the node that holds a part of the model.

Used by `main` on every node but the leader's. The worker listens on the port of the pod for probes only; requests go to
the leader.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable
from typing import Any, Final

from aiohttp import web

from kaito_presets.errors import ConfigurationError
from kaito_presets.serving.health import ServerState
from kaito_presets.serving.progress import StartProgress
from kaito_presets.vllm.engine import Engine
from kaito_presets.vllm.group import Follower, GroupEnded, Membership, engine_group_flags
from kaito_presets.vllm.launch import Launch

log = logging.getLogger(__name__)

OUTPUT_CHARACTERS: Final = 300
"""End of the engine's output that the leader reports."""


async def serve_worker(launch: Launch, member: Membership) -> int:
    """Joins the leader and runs the engine until the group ends or SIGTERM arrives; returns the exit code.

    Raises:
        GroupEnded: another member ended.
    """
    follower = Follower(member, silence_seconds=launch.options.kaito_group_timeout)
    progress = StartProgress(launch.download_cache)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    runner = web.AppRunner(_application(progress, follower), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    code: int | None = 0
    try:
        await web.TCPSite(runner, launch.host, launch.port).start()
        async with asyncio.TaskGroup() as group:
            connection = group.create_task(follower.run(), name="group")
            if await completes(asyncio.shield(follower.started), stopping):
                code = await _run(launch, member, follower, progress, stopping)
            connection.cancel()
    finally:
        await runner.cleanup()
    if code is None:
        raise GroupEnded(follower.ended.result())
    return code


async def completes(work: Awaitable[object], stopping: asyncio.Event) -> bool:
    """Waits for the work; returns False and cancels it if `stopping` is set before."""
    async with asyncio.TaskGroup() as group:
        done = group.create_task(_wait_for(work))
        stop = group.create_task(stopping.wait())
        await asyncio.wait({done, stop}, return_when=asyncio.FIRST_COMPLETED)
        is_complete = done.done()
        done.cancel()
        stop.cancel()
    return is_complete


async def _wait_for(work: Awaitable[object]) -> None:
    await work


async def _run(
    launch: Launch, member: Membership, follower: Follower, progress: StartProgress, stopping: asyncio.Event
) -> int | None:
    """Runs the engine; returns its exit code, 0 after SIGTERM, or None if the group ended."""
    flags = {**launch.flags, **engine_group_flags(member, follower.started.result())}
    engine = Engine(launch.command(flags), on_loaded=progress.set_warming)
    try:
        await engine.start()
    except OSError as error:
        await follower.leave(f"its engine cannot be started: {error}")
        log.error("the engine cannot be started: %s; is vllm installed?", error)  # noqa: TRY400 - without a traceback
        return ConfigurationError.exit_code
    async with asyncio.TaskGroup() as group:
        exited = group.create_task(engine.wait(), name="engine")
        stop = group.create_task(stopping.wait(), name="stop")
        ends: set[asyncio.Future[Any]] = {exited, stop, follower.ended}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if stop.done() and not exited.done() and not follower.ended.done():
            # The pods of a group are stopped together: the engine runs until the leader has served its last requests.
            await follower.announce_stop()
            drained = launch.options.kaito_drain_seconds
            await asyncio.wait(ends - {stop}, return_when=asyncio.FIRST_COMPLETED, timeout=drained)
        stop.cancel()
        if exited.done() and not follower.ended.done():
            code = exited.result()
            await follower.leave(f"its engine exited with code {code}: {engine.output.strip()[-OUTPUT_CHARACTERS:]}")
            log.error("the engine exited with code %d", code)
            return code or 1
        await engine.stop()
        await exited
    return 0 if stopping.is_set() else None


def _application(progress: StartProgress, follower: Follower) -> web.Application:
    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "Worker"})

    async def document(_: web.Request) -> web.Response:
        state: ServerState = "Draining" if follower.ended.done() else "Loading"
        return web.json_response(progress.document(state))

    app = web.Application()
    app.add_routes([web.get("/", health), web.get("/health", health), web.get("/healthz", health)])
    app.add_routes([web.get("/progress", document)])
    return app
