"""Forms the group of pods that serve one copy of a model together, and ends it together.

Each node of the copy runs one wrapper. The wrapper with rank 0 is the leader; the others connect to it. The engines
exchange data through vLLM's own multi-node mode; this channel only guarantees that all engines of a group start at the
same time, and that none of them outlives another:

* An engine starts after all members have joined that have no engine yet, so that it never joins an engine of an
  earlier start.
* A member that ends reports why. A member that is killed, restarted, or silent for
  `--kaito-group-timeout` seconds ends the group.
* When a group ends, every wrapper exits with `GroupEnded`. Kubernetes restarts the containers, which form a new group.

Used by `main` (the leader) and `worker`.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import aiohttp
from aiohttp import web

from kaito_presets.errors import ConfigurationError, PresetError
from kaito_presets.json_values import is_object
from kaito_presets.vllm.options import MASTER_PORT, SILENCE_SECONDS, WrapperOptions

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 5.0
REJOIN_SECONDS: Final = 10.0
"""Time in which a member may connect again after its connection broke."""
CONNECT_INTERVAL_SECONDS: Final = 1.0


class GroupEnded(PresetError):
    """Another member of the group ended. The pods of a group start again together."""

    exit_code = 7

    def __init__(self, reason: str) -> None:
        super().__init__(f"the group ended: {reason}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The place of this process in its group."""

    size: int
    """Number of members."""
    rank: int
    """0 for the leader."""
    leader: str
    """Host name or address of the leader."""
    port: int
    """Port of the channel on the leader."""
    address: str
    """Address of this process that other members can connect to."""

    @property
    def is_leader(self) -> bool:
        """Whether this process is the leader."""
        return self.rank == 0


def read_membership(options: WrapperOptions, environment: Mapping[str, str] = os.environ) -> Membership | None:
    """Determines the place of this process; None if one node serves the whole model.

    In a pod, the ordinals of two StatefulSets determine it: `LEADERS-g` leads group g, and the pods of the other
    StatefulSet are the workers of the groups in their order.

    Raises:
        ConfigurationError: neither the flags nor the environment contain the place.
    """
    size = options.kaito_nodes
    if size == 1:
        return None
    address = environment.get("VLLM_HOST_IP", "") or options.kaito_leader
    if options.kaito_node_rank is not None and options.kaito_leader:
        rank, leader = options.kaito_node_rank, options.kaito_leader
    else:
        rank, leader = _place_of_pod(size, environment)
    if rank >= size:
        raise ConfigurationError(f"--kaito-node-rank: {rank} is not below the number of nodes, {size}")
    return Membership(size=size, rank=rank, leader=leader, port=options.kaito_group_port, address=address or leader)


def _place_of_pod(size: int, environment: Mapping[str, str]) -> tuple[int, str]:
    """Returns rank and host name of the leader, from the name of the pod."""
    pod, leaders = environment.get("KAITO_POD_NAME", ""), environment.get("KAITO_LEADERS", "")
    service = environment.get("KAITO_GROUP_SERVICE", "")
    found = re.fullmatch(r"(.+)-(\d{1,9})", pod)
    if found is None or not leaders or not service:
        raise ConfigurationError(
            "--kaito-nodes needs --kaito-node-rank and --kaito-leader, or the environment variables KAITO_POD_NAME, "
            "KAITO_LEADERS and KAITO_GROUP_SERVICE"
        )
    number = int(found[2])
    if found[1] == leaders:
        return 0, f"{pod}.{service}"
    group, place = divmod(number, size - 1)
    return place + 1, f"{leaders}-{group}.{service}"


def engine_group_flags(member: Membership, master: tuple[str, int]) -> dict[str, Any]:
    """Returns vLLM's flags of the multi-node mode; `master` is the address of torch's store on the leader."""
    flags: dict[str, Any] = {
        "distributed-executor-backend": "mp",
        "nnodes": member.size,
        "node-rank": member.rank,
        "master-addr": master[0],
        "master-port": master[1],
    }
    return flags if member.is_leader else flags | {"headless": True}


@final
class Leader:
    """The leader's side: accepts the workers, starts them together, and notices when one ends.

    Args:
        member: the place of this process.
        on_worker_stopping: called when the pod of a worker is stopped; the worker runs until the leader has drained.
        master_port: port of torch's store, which the workers receive.
        silence_seconds: time without a heartbeat after which a worker is lost.
    """

    def __init__(
        self,
        member: Membership,
        *,
        on_worker_stopping: Callable[[], None] = lambda: None,
        master_port: int = MASTER_PORT,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._member = member
        self._on_worker_stopping = on_worker_stopping
        self.master: Final = (member.address, master_port)
        self._silence = silence_seconds
        self._incarnation = uuid.uuid4().hex
        self._workers: dict[int, str] = {}
        self._sockets: dict[int, web.WebSocketResponse] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._has_started = False
        self._complete = asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why the group ended."""

    @asynccontextmanager
    async def listening(self, host: str) -> AsyncGenerator[None]:
        """Accepts workers inside the block."""
        app = web.Application()
        app.router.add_get("/group", self._accept)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, self._member.port).start()
            yield
        finally:
            await self.leave(self.ended.result() if self.ended.done() else "the leader stopped")
            for timer in self._timers.values():
                timer.cancel()
            await runner.cleanup()

    async def wait_for_workers(self) -> None:
        """Waits until all workers have joined, then starts them."""
        log.info("waiting for the %d workers of the group", self._member.size - 1)
        await self._complete.wait()
        self._has_started = True
        log.info("all workers have joined")
        for socket in list(self._sockets.values()):
            await self._send_start(socket)

    async def _send_start(self, socket: web.WebSocketResponse) -> None:
        await _send(socket, {"type": "start", "leader": self._incarnation, "master": list(self.master)})

    async def leave(self, reason: str) -> None:
        """Reports the end of the leader to the workers."""
        for socket in list(self._sockets.values()):
            await _send(socket, {"type": "leave", "reason": reason})
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(socket.close(), 1.0)

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(timeout=1.0)
        await socket.prepare(request)
        hello = await _receive(socket, self._silence) or {}
        rank, incarnation = hello.get("rank"), str(hello.get("incarnation", ""))
        if not isinstance(rank, int) or not 0 < rank < self._member.size or not incarnation:
            return socket
        if self._has_started and self._workers.get(rank) != incarnation:
            self._end(f"worker {rank} restarted")
            return socket
        if not self._has_started and hello.get("started"):
            # Its engine belongs to the start of an earlier leader: the worker ends, and its next process joins. If it
            # counted as a member, this leader would start an engine, and the worker's restart would end it again.
            await _send(socket, {"type": "welcome", "leader": self._incarnation})
            return socket
        self._workers[rank], self._sockets[rank] = incarnation, socket
        if timer := self._timers.pop(rank, None):
            timer.cancel()
        log.info("worker %d joined", rank)
        await _send(socket, {"type": "welcome", "leader": self._incarnation})
        if self._has_started:
            await self._send_start(socket)  # the connection may have broken before the first one arrived
        if len(self._sockets) == self._member.size - 1:
            self._complete.set()
        try:
            async with _beating(socket):
                await self._follow(socket, rank)
        finally:
            self._forget(rank, socket)
        return socket

    async def _follow(self, socket: web.WebSocketResponse, rank: int) -> None:
        """Reads from a worker until its connection ends."""
        while (message := await _receive(socket, self._silence)) is not None:
            kind = message.get("type")
            if kind == "stopping":
                log.info("the pod of worker %d is stopped", rank)
                self._on_worker_stopping()
            if kind == "leave":
                self._end(f"worker {rank}: {message.get('reason', 'it stopped')}")
            if kind == "silence":
                self._end(f"worker {rank} has not been heard of for {self._silence:.0f} s")
                return

    def _forget(self, rank: int, socket: web.WebSocketResponse) -> None:
        """Removes a connection that ended; a started group ends unless the worker connects again."""
        if self._sockets.get(rank) is not socket:
            return
        del self._sockets[rank]
        self._complete.clear()
        if self._has_started:
            reason = f"the connection to worker {rank} broke: its pod was killed or its node was lost"
            self._timers[rank] = asyncio.get_running_loop().call_later(REJOIN_SECONDS, self._end, reason)
        else:
            log.info("worker %d left before the start", rank)

    def _end(self, reason: str) -> None:
        if self._has_started and not self.ended.done():
            log.error("the group ends: %s", reason)
            self.ended.set_result(reason)


@final
class Follower:
    """A worker's side: joins the leader, and notices when it ends.

    Args:
        member: the place of this process.
        silence_seconds: time without a heartbeat after which the leader is lost.
    """

    def __init__(self, member: Membership, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._member = member
        self._silence = silence_seconds
        self._incarnation = uuid.uuid4().hex
        self._leader = ""
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[tuple[str, int]] = loop.create_future()
        """Address of torch's store, once the group starts."""
        self.ended: asyncio.Future[str] = loop.create_future()
        """Why the group ended."""

    async def run(self) -> None:
        """Stays connected to the leader until the group ends, which sets `ended`."""
        deadline: float | None = None
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession() as session:
            while not self.ended.done():
                try:
                    await self._stay_connected(session)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    log.debug("no connection to the leader %s: %s", self._member.leader, error)
                if not self.started.done():
                    self._leader = ""  # a leader that has not started may be replaced by another
                elif self._socket is not None or deadline is None:
                    deadline = loop.time() + REJOIN_SECONDS
                self._socket = None
                if deadline is not None and loop.time() >= deadline:
                    self._end("the connection to the leader broke: its pod was killed or its node was lost")
                await asyncio.sleep(CONNECT_INTERVAL_SECONDS)

    async def announce_stop(self) -> None:
        """Reports that this worker's pod is stopped, so that the leader finishes its requests."""
        if self._socket is not None:
            await _send(self._socket, {"type": "stopping"})

    async def leave(self, reason: str) -> None:
        """Reports the end of this worker to the leader."""
        if self._socket is not None:
            await _send(self._socket, {"type": "leave", "reason": reason})
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(self._socket.close(), 1.0)

    async def _stay_connected(self, session: aiohttp.ClientSession) -> None:
        address = f"http://{_host(self._member.leader)}:{self._member.port}/group"
        async with asyncio.timeout(REJOIN_SECONDS):
            # Pyright does not know the attributes of an attrs class.
            timeout = aiohttp.ClientWSTimeout(ws_close=1.0)  # pyright: ignore[reportCallIssue]
            socket = await session.ws_connect(address, timeout=timeout)
        try:
            async with _beating(socket):
                hello = {"type": "hello", "rank": self._member.rank, "incarnation": self._incarnation}
                await _send(socket, {**hello, "started": self.started.done()})
                while (message := await _receive(socket, self._silence)) is not None:
                    self._socket = socket
                    self._handle(message)
                    if message.get("type") == "silence":
                        break
        finally:
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(socket.close(), 1.0)

    def _handle(self, message: Mapping[str, Any]) -> None:
        kind, leader = message.get("type"), str(message.get("leader", ""))
        if kind == "silence" and self.started.done():
            self._end(f"the leader has not been heard of for {self._silence:.0f} s")
        if kind == "leave" and self.started.done():
            self._end(str(message.get("reason", "the leader stopped")))
        if kind == "welcome":
            if self._leader and self._leader != leader and self.started.done():
                self._end("the leader restarted")
            self._leader = leader
            log.info("joined the leader %s", self._member.leader)
        if kind == "start" and not self.started.done():
            host, port = message["master"]
            self.started.set_result((str(host), int(port)))

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            log.error("the group ends: %s", reason)
            self.ended.set_result(reason)


Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _send(socket: Socket, message: Mapping[str, Any]) -> None:
    """Sends a message; a broken connection is noticed by the reader."""
    with contextlib.suppress(ConnectionError, aiohttp.ClientError, RuntimeError):
        await socket.send_str(json.dumps(message))


async def _receive(socket: Socket, seconds: float) -> dict[str, Any] | None:
    """Returns the next message, heartbeats included, or one of type `silence` if none arrives in that time; None if
    the connection ended."""
    try:
        message = await socket.receive(timeout=seconds)
    except TimeoutError:
        return {"type": "silence"}
    if message.type is not aiohttp.WSMsgType.TEXT:
        return None
    try:
        document = json.loads(message.data)
    except ValueError:
        return {}
    return document if is_object(document) else {}


@asynccontextmanager
async def _beating(socket: Socket) -> AsyncGenerator[None]:
    """Sends heartbeats inside the block."""
    async with asyncio.TaskGroup() as group:
        beat = group.create_task(_beat(socket))
        try:
            yield
        finally:
            beat.cancel()


async def _beat(socket: Socket) -> None:
    while not socket.closed:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        await _send(socket, {"type": "beat"})


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name
