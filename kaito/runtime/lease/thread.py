"""A campaign in a thread of its own: own event loop, own connections, so that nothing else can delay a renewal.

And the other way round: when the main loop is blocked for longer than the renew deadline, the thread stops renewing,
because a process that does no work must not keep others from doing it. The fence reads numbers that the thread writes;
each is a single attribute, so no lock is needed.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import final

from kaito.runtime.client import Client, Transport
from kaito.runtime.clock import SystemClock
from kaito.runtime.errors import InvariantError, NotLeader
from kaito.runtime.lease.elector import Elector, LeaseTerms
from kaito.runtime.lease.local import RELEASE_SECONDS, renewals_late
from kaito.runtime.logging import get_logger
from kaito.runtime.workqueue.backoff import Jitter

_log = get_logger(__name__)


def suspend_proof_clock() -> float:
    """Seconds since boot, time asleep included where the system can tell: a lease expires while a laptop sleeps."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


@final
class ThreadLeadership:
    """See `kaito.runtime.manager.leadership.Leadership`.

    Args:
        terms: what is contended for.
        connect: makes the thread's own transport; called inside its loop.
        user_agent: of its requests.
        field_manager: of its writes.
        may_renew: asked before every renewal, in the thread.
        on_slow_path: told when a renewal had to read the lease first, in the thread.
        jitter: randomness of the waits.
    """

    def __init__(
        self,
        terms: LeaseTerms,
        connect: Callable[[], Awaitable[Transport]],
        *,
        user_agent: str,
        field_manager: str,
        may_renew: Callable[[], bool],
        on_slow_path: Callable[[], None],
        jitter: Jitter,
    ) -> None:
        self._terms = terms
        self._connect = connect
        self._user_agent = user_agent
        self._field_manager = field_manager
        self._may_renew = may_renew
        self._on_slow_path = on_slow_path
        self._jitter = jitter
        self._elector: Elector | None = None
        self._elected = asyncio.Event()
        self._lost: asyncio.Future[str] | None = None
        self._ended = asyncio.Event()
        self._main: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._release = False
        self._stopping = False

    async def start(self) -> None:
        """Begin to campaign."""
        self._main = asyncio.get_running_loop()
        self._lost = self._main.create_future()
        threading.Thread(target=self._run, name=f"lease-{self._terms.name}", daemon=True).start()

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._campaign())
        except asyncio.CancelledError:
            pass  # told to stop
        except BaseException as error:  # noqa: BLE001 - handed to the main loop, whose manager fails with it
            self._tell_failure(error)
        finally:
            self._tell(self._ended.set)

    async def _campaign(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if self._stopping:  # told to stop before there was a task to cancel
            return
        transport = await self._connect()
        client = Client(
            transport,
            field_manager=self._field_manager,
            user_agent=self._user_agent,
            timeout=self._terms.request_timeout,
        )
        elector = Elector(
            client,
            self._terms,
            now=suspend_proof_clock,
            clock=SystemClock(),
            jitter=self._jitter,
            may_renew=self._may_renew,
            on_slow_path=self._on_slow_path,
        )
        try:
            await elector.acquire()
            self._elector = elector
            self._tell(self._elected.set)
            self._tell(self._set_lost, await elector.renew())
        except asyncio.CancelledError:
            if self._release and self._elector is not None:
                with suppress(TimeoutError):  # others wait for the end of the lease instead
                    async with asyncio.timeout(RELEASE_SECONDS):
                        await elector.release()
            raise
        finally:
            await transport.close()

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        """Call something in the main loop; a loop that is closed already needs to know nothing."""
        if self._main is not None and not self._main.is_closed():
            self._main.call_soon_threadsafe(callback, *args)

    def _tell_failure(self, error: BaseException) -> None:
        _log.error("the lease thread failed", error=str(error), exc_info=error)
        self._tell(self._fail, error)

    # -- in the main loop --------------------------------------------------------------------------------------------

    def _set_lost(self, reason: str) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    def _fail(self, error: BaseException) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_exception(error)
        self._elected.set()

    async def elected(self) -> None:
        """Wait until this process leads."""
        await self._elected.wait()

    async def lost(self) -> str:
        """Wait until it no longer does; the reason."""
        if self._lost is None:
            message = "lost() before start()"
            raise InvariantError(message)
        return await asyncio.shield(self._lost)

    def check(self) -> None:
        """The fence; see `Elector.check`."""
        self._require().check()

    @property
    def remaining(self) -> float:
        """Seconds for which writes pass the fence."""
        return max(0.0, self._elector.remaining) if self._elector is not None else 0.0

    def late(self) -> str | None:
        """What is wrong with the renewals; None when all is well or another leads."""
        return renewals_late(self._elector, leads=True) if self._elector is not None else None

    def _require(self) -> Elector:
        if self._elector is None:
            message = f"lease {self._terms.namespace}/{self._terms.name} is not held: the write was not sent"
            raise NotLeader(message)
        return self._elector

    async def stop(self, *, release: bool) -> None:
        """Campaign no more, and hand the lease over if that is safe. Before `start` there is nothing to wait for."""
        self._release = release
        self._stopping = True
        if self._main is None:
            return
        loop, task = self._loop, self._task
        if loop is not None and task is not None and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)
        try:
            async with asyncio.timeout(2 * RELEASE_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            _log.warning("the lease thread does not end, it is left behind", lease=self._terms.name)
