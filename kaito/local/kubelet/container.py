"""Runs one container of a pod: starts, probes and restarts it with backoff, and reports its state as the kubelet does.

`ContainerWorker` owns the process and its probes. The pod runner reads `status()` and is called back on each change;
exit codes, restart counts, waiting reasons (`CrashLoopBackOff`, `ErrImagePull`, …) and termination messages are those
of a real kubelet.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Literal, final

from kaito.local.kubelet.environment import MissingReference
from kaito.local.kubelet.images import Launch, NoLocalProgram
from kaito.local.kubelet.probes import Prober, watch_probe
from kaito.local.kubelet.process import Process, run_to_end
from kaito.runtime.clock import Clock
from kaito.runtime.kinds import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Probe,
)
from kaito.runtime.tasks import TaskScope

RESTART_BASE_SECONDS = 1.0
"""First wait before a restart. A real kubelet waits 10 s; the short wait makes the loop visible."""

RESTART_CAP_SECONDS = 30.0
"""Longest wait before a restart (300 s on a real kubelet)."""

LAST_WORDS_BYTES = 2048
"""How much of the log becomes the termination message (kubelet: FallbackToLogsOnError, 2048 bytes or 80 lines)."""

RestartPolicy = Literal["Always", "OnFailure", "Never"]


@final
class ContainerWorker:
    """Runs one container until it is done, or until it is stopped."""

    def __init__(
        self,
        container: Container,
        *,
        ip: str,
        log: Path,
        clock: Clock,
        launch: Callable[[list[str] | None], Awaitable[Launch]],
        changed: Callable[[], None],
    ) -> None:
        self.container = container
        self.log = log
        self._ip = ip
        self._clock = clock
        self._launch = launch
        self._changed = changed
        self._process: Process | None = None
        self._stopping = False
        self._state = ContainerState(waiting=ContainerStateWaiting(reason="PodInitializing"))
        self._last = ContainerState()
        self._restarts = 0
        self._ready = False
        self._started = False

    @property
    def exit_code(self) -> int | None:
        """The exit code of a finished container, None while it may still run."""
        return None if self._state.terminated is None else self._state.terminated.exit_code

    @property
    def is_ready(self) -> bool:
        """Running and passing its readiness probe."""
        return self._ready

    def status(self) -> ContainerStatus:
        """The status entry of this container."""
        return ContainerStatus(
            name=self.container.name,
            image=self.container.image or "",
            image_id="",
            ready=self._ready,
            started=self._started,
            restart_count=self._restarts,
            container_id=f"process://{self._process.pid}" if self._process else None,
            state=self._state,
            last_state=self._last,
        )

    async def run(self, policy: RestartPolicy) -> int:
        """Runs and restarts according to the restart policy; returns the exit code of the last run."""
        failures = 0
        while True:
            ended = await self._run_once()
            if ended is not None:
                done = policy == "Never" or (policy == "OnFailure" and ended.exit_code == 0)
                if done or self._stopping:
                    return ended.exit_code
                self._last = ContainerState(terminated=ended)
                self._restarts += 1
                lived = (ended.finished_at or self._now()) - (ended.started_at or self._now())
                failures = 0 if lived.total_seconds() > 10 * RESTART_CAP_SECONDS else failures
                delay = min(RESTART_BASE_SECONDS * 2**failures, RESTART_CAP_SECONDS)
                message = f"back-off {delay:.0f}s restarting failed container={self.container.name}"
                self._wait_state("CrashLoopBackOff", message)
            else:
                delay = min(RESTART_BASE_SECONDS * 2**failures, RESTART_CAP_SECONDS)
            failures += 1
            await asyncio.sleep(delay)

    async def stop(self, grace_seconds: float) -> None:
        """Ends the process: SIGTERM, then SIGKILL after the grace period."""
        self._stopping = True
        if self._process is not None:
            await self._process.stop(grace_seconds)

    def kill(self) -> bool:
        """Sends SIGKILL to the process, as the kernel does when memory runs out; False if none runs."""
        if self._process is None:
            return False
        self._process.kill()
        return True

    async def _run_once(self) -> ContainerStateTerminated | None:
        """Runs the process once; None when it could not be started (the state contains the reason)."""
        try:
            launch = await self._launch(None)
            process = await Process.start(launch, self.log)
        except NoLocalProgram as problem:
            self._wait_state("ErrImagePull", str(problem))
            return None
        except MissingReference as problem:
            self._wait_state("CreateContainerConfigError", str(problem))
            return None
        except OSError as problem:
            self._wait_state("RunContainerError", f"cannot start {self.container.command[:1]}: {problem}")
            return None
        started_at = self._now()
        self._process = process
        self._state = ContainerState(running=ContainerStateRunning(started_at=started_at))
        self._started = self.container.startup_probe is None
        self._ready = self._started and self.container.readiness_probe is None
        self._changed()
        try:
            async with TaskScope(f"probes.{self.container.name}") as scope:
                self._start_probes(scope)
                code = await process.wait()
        except asyncio.CancelledError:
            await process.stop(0)
            raise
        finally:
            self._process, self._ready, self._started = None, False, False
        ended = ContainerStateTerminated(
            exit_code=code,
            reason="Error" if code else "Completed",
            message=self._last_words() if code else "",
            started_at=started_at,
            finished_at=self._now(),
        )
        self._state = ContainerState(terminated=ended)
        self._changed()
        return ended

    def _start_probes(self, scope: TaskScope) -> None:
        async def exec_command(command: list[str]) -> int:
            return await run_to_end(await self._launch(command), self.log)

        prober = Prober(self.container, self._ip, exec_command)
        startup = self.container.startup_probe
        if startup is None:
            self._start_later_probes(scope, prober)
        else:
            scope.spawn(self._watch_startup(scope, prober, startup), name="startup")

    async def _watch_startup(self, scope: TaskScope, prober: Prober, probe: Probe) -> None:
        """Runs the startup probe, then starts the other probes; restarts the container if it fails."""

        def on_startup(passed: bool, detail: str) -> bool:
            if passed:
                self._started = True
                self._ready = self.container.readiness_probe is None
                self._changed()
            else:
                self._kill(f"startup probe failed: {detail}")
            return False

        await watch_probe(prober, probe, on_startup)
        if self._started:
            self._start_later_probes(scope, prober)

    def _start_later_probes(self, scope: TaskScope, prober: Prober) -> None:
        def on_readiness(passed: bool, _: str) -> bool:
            if self._ready != passed:
                self._ready = passed
                self._changed()
            return True

        def on_liveness(passed: bool, detail: str) -> bool:
            if not passed:
                self._kill(f"liveness probe failed: {detail}")
            return passed

        if self.container.readiness_probe is not None:
            scope.spawn(watch_probe(prober, self.container.readiness_probe, on_readiness), name="readiness")
        if self.container.liveness_probe is not None:
            scope.spawn(watch_probe(prober, self.container.liveness_probe, on_liveness), name="liveness")

    def _kill(self, why: str) -> None:
        with self.log.open("a") as log:
            log.write(f"kubelet: container {self.container.name} will be restarted: {why}\n")
        if self._process is not None:
            self._process.terminate()

    def _wait_state(self, reason: str, message: str) -> None:
        self._state = ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message))
        self._ready = False
        self._changed()

    def _last_words(self) -> str:
        try:
            with self.log.open("rb") as log:
                log.seek(0, 2)
                log.seek(max(0, log.tell() - LAST_WORDS_BYTES))
                return log.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def _now(self) -> datetime:
        return self._clock.now()
