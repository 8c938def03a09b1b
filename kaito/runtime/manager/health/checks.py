"""The health checks of every manager: event loop, workers, caches and lease.

A process is ready when its caches are synced and current; a standby with warm caches is ready. A process is alive
unless only a restart can help.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from kaito.runtime.cache import Cache
from kaito.runtime.controller import Engine
from kaito.runtime.health import Checks
from kaito.runtime.manager.health.loop_watchdog import LoopWatchdog
from kaito.runtime.manager.leadership import Leadership

LOOP_LAG_SECONDS = 10.0
"""A loop that is this late does not recover without a restart."""


def add_default_checks(
    healthz: Checks,
    readyz: Checks,
    *,
    caches: Callable[[], Mapping[str, Cache]],
    engines: Callable[[], Sequence[Engine[Any]]],
    waiting_for_kinds: Callable[[], Collection[str]],
    watchdog: LoopWatchdog,
    leadership: Callable[[], Leadership | None],
    silence_seconds: float,
) -> None:
    """Adds the default checks. The callables return what exists at the time of the probe.

    Args:
        healthz: gets the liveness checks.
        readyz: gets the readiness checks.
        caches: by name of their cluster.
        engines: of all controllers.
        waiting_for_kinds: controllers that are idle because their kinds are not served; readiness ignores them.
        watchdog: of the event loop.
        leadership: the leader election, if there is one.
        silence_seconds: a kind without any message from the server for longer fails the check.
    """

    def loop() -> str | None:
        return f"the event loop is {watchdog.lag:.1f} s late" if watchdog.lag > LOOP_LAG_SECONDS else None

    def workers() -> str | None:
        return "; ".join(stuck for engine in engines() for stuck in engine.stuck()) or None

    def lease() -> str | None:
        current = leadership()
        return current.late() if current is not None else None

    def informers() -> str | None:
        current = caches()
        problems = [text for name, cache in current.items() for text in _cache_problems(cache, name, silence_seconds)]
        return "; ".join(problems) or (None if current else "not started")

    def controllers() -> str | None:
        idle = waiting_for_kinds()
        unsynced = [engine.name for engine in engines() if not engine.ready and engine.name not in idle]
        return f"initial events not processed: {', '.join(unsynced)}" if unsynced else None

    healthz.add("loop", loop)
    healthz.add("workers", workers)
    healthz.add("lease", lease)
    readyz.add("caches", informers)
    readyz.add("controllers", controllers)


def _cache_problems(cache: Cache, cluster: str, silence_seconds: float) -> list[str]:
    problems: list[str] = []
    for row in cache.health():
        name = f"{row.kind} in {row.namespace}" if row.namespace else row.kind
        name = f"{name} of cluster {cluster}" if cluster else name
        if not row.synced:
            problems.append(f"{name}: {row.error or 'the first list has not arrived'}")
        elif row.silent_seconds > max(silence_seconds, row.quiet_seconds):
            why = row.error or ("the watch is open and delivers nothing" if row.watching else "no response")
            problems.append(f"{name}: no message for {row.silent_seconds:.0f} s: {why}")
    return problems
