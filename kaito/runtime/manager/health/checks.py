"""The checks every manager has: is the loop alive, are workers alive, is the cache true, is the lease renewed.

Readiness means: this replica's caches show the cluster. A standby with warm caches is ready. Liveness means: only a
restart can help.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from kaito.runtime.cache import Cache
from kaito.runtime.controller import Engine
from kaito.runtime.health import Checks
from kaito.runtime.manager.health.loop_watchdog import Pulse
from kaito.runtime.manager.leadership import Leadership

LOOP_LAG_SECONDS = 10.0
"""A loop this late is not going to recover."""


def add_default_checks(
    healthz: Checks,
    readyz: Checks,
    *,
    caches: Callable[[], Mapping[str, Cache]],
    engines: Callable[[], Sequence[Engine[Any]]],
    resting: Callable[[], Collection[str]],
    pulse: Pulse,
    leadership: Callable[[], Leadership | None],
    silence: float,
) -> None:
    """Add the default checks; the callables give what exists by the time of the probe.

    `caches` go by cluster, the manager's own under the empty name; `resting` controllers wait for kinds that nobody has
    installed, and are not waited for. A kind that was not heard of for longer than `silence` seconds is named.
    """

    def loop() -> str | None:
        return f"the event loop is {pulse.lag:.1f} s late" if pulse.lag > LOOP_LAG_SECONDS else None

    def workers() -> str | None:
        return "; ".join(stuck for engine in engines() for stuck in engine.stuck()) or None

    def lease() -> str | None:
        current = leadership()
        return current.late() if current is not None else None

    def followed() -> str | None:
        current = caches()
        troubles = [trouble for name, cache in current.items() for trouble in _cache_troubles(cache, name, silence)]
        return "; ".join(troubles) or (None if current else "not started")

    def controllers() -> str | None:
        away = resting()
        waiting = [engine.name for engine in engines() if not engine.ready and engine.name not in away]
        return f"initial events not processed: {', '.join(waiting)}" if waiting else None

    healthz.add("loop", loop)
    healthz.add("workers", workers)
    healthz.add("lease", lease)
    readyz.add("caches", followed)
    readyz.add("controllers", controllers)


def _cache_troubles(cache: Cache, cluster: str, silence: float) -> list[str]:
    troubles: list[str] = []
    for row in cache.health():
        name = f"{row.kind} in {row.namespace}" if row.namespace else row.kind
        name = f"{name} of cluster {cluster}" if cluster else name
        if not row.synced:
            troubles.append(f"{name}: {row.error or 'the first list has not arrived'}")
        elif row.silent_seconds > max(silence, row.quiet_seconds):
            why = row.error or ("the watch is open and delivers nothing" if row.watching else "no answer")
            troubles.append(f"{name}: nothing heard for {row.silent_seconds:.0f} s: {why}")
    return troubles
