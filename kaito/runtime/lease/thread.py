"""`ThreadLeadership`: leader election in a separate thread with its own event loop and connections.

Nothing in the main loop can delay a renewal. Conversely, the thread stops renewing when the main loop is blocked for
longer than the renew deadline: a process that does no work must not keep others from doing it. The fence in the main
loop reads numbers that the thread writes. Each is a single attribute, which Python reads and writes atomically, so no
lock is needed.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import final

from kaito.runtime.client import Client, Transport
from kaito.runtime.clock import Clock, suspend_proof_clock
from kaito.runtime.lease.base import RELEASE_SECONDS, BaseLeadership
from kaito.runtime.lease.elector import Elector, LeaseTerms
from kaito.runtime.logging import get_logger
from kaito.runtime.workqueue.backoff import Jitter

_log = get_logger(__name__)


@final
class ThreadLeadership(BaseLeadership):
    """Runs an elector in a separate thread.

    Args:
        terms: the lease and its times.
        connect: opens the thread's transport; called in its loop.
        user_agent: of its requests.
        field_manager: of its writes.
        may_renew: called before every renewal, in the thread; False skips it.
        on_slow_path: called in the thread when a renewal had to read the lease first.
        jitter: spreads the retries.
        clock: wall time, only written into the record. It is read in the thread.
    """

    def __init__(
        self,
        terms: LeaseTerms,
        connect: Callable[[], Awaitable[Transport]],
        *,
        clock: Clock,
        user_agent: str,
        field_manager: str,
        may_renew: Callable[[], bool],
        on_slow_path: Callable[[], None],
        jitter: Jitter,
    ) -> None:
        super().__init__(terms)
        self._connect = connect
        self._user_agent = user_agent
        self._field_manager = field_manager
        self._may_renew = may_renew
        self._on_slow_path = on_slow_path
        self._jitter = jitter
        self._clock = clock
        self._thread_elector: Elector | None = None
        self._ended = asyncio.Event()
        self._main_loop: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._release = False
        self._stopping = False

    @property
    def _elector(self) -> Elector | None:
        return self._thread_elector

    async def start(self) -> None:
        """Starts the thread, which campaigns."""
        self._main_loop = asyncio.get_running_loop()
        self._lost = self._main_loop.create_future()
        threading.Thread(target=self._run, name=f"lease-{self._terms.name}", daemon=True).start()

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._campaign())
        except asyncio.CancelledError:
            pass  # by `stop`
        except BaseException as error:  # noqa: BLE001 - raised in the main loop, where it stops the manager
            _log.error("lease thread failed", error=str(error), exc_info=error)
            self._call_in_main_loop(self._fail, error)
        finally:
            self._call_in_main_loop(self._ended.set)

    async def _campaign(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if self._stopping:  # `stop` ran before there was a task to cancel
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
            clock=self._clock,
            jitter=self._jitter,
            may_renew=self._may_renew,
            on_slow_path=self._on_slow_path,
        )
        try:
            await elector.acquire()
            self._thread_elector = elector
            self._call_in_main_loop(self._elected.set)
            self._call_in_main_loop(self._set_lost, await elector.renew())
        except asyncio.CancelledError:
            if self._release and self._thread_elector is not None:
                with suppress(TimeoutError):  # the lease then expires
                    async with asyncio.timeout(RELEASE_SECONDS):
                        await elector.release()
            raise
        finally:
            await transport.close()

    def _call_in_main_loop(self, callback: Callable[..., None], *args: object) -> None:
        """Schedules a call in the main loop, unless it is closed."""
        if self._main_loop is not None and not self._main_loop.is_closed():
            self._main_loop.call_soon_threadsafe(callback, *args)

    # -- in the main loop --------------------------------------------------------------------------------------------

    async def stop(self, *, release: bool) -> None:
        """Stops campaigning, and releases the lease if that is safe. Returns at once before `start`."""
        self._release = release
        self._stopping = True
        if self._main_loop is None:
            return
        loop, task = self._loop, self._task
        if loop is not None and task is not None and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)
        try:
            async with asyncio.timeout(2 * RELEASE_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            _log.warning("lease thread did not stop in time", lease=self._terms.name)
