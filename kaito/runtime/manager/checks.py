"""The checks every manager has: is the loop alive, are workers alive, is the cache true, is the lease renewed.

Readiness means: this replica's caches show the cluster. A standby with warm caches is ready. Liveness means: only a
restart can help.
"""

from collections.abc import Callable, Sequence
from typing import Any

from kaito.runtime.cache import Cache
from kaito.runtime.controller import Engine
from kaito.runtime.health import Checks
from kaito.runtime.manager.leadership import Leadership
from kaito.runtime.manager.pulse import Pulse

LOOP_LAG_SECONDS = 10.0
"""A loop this late is not going to recover."""

SILENCE_SECONDS = 180.0
"""A watch silent for longer than this has missed two bookmarks: what the cache shows may be old."""


def add_default_checks(
    healthz: Checks,
    readyz: Checks,
    *,
    cache: Callable[[], Cache | None],
    engines: Callable[[], Sequence[Engine[Any]]],
    pulse: Pulse,
    leadership: Callable[[], Leadership | None],
) -> None:
    """Add the default checks; the callables give what exists by the time of the probe."""

    def loop() -> str | None:
        return f"the event loop is {pulse.lag:.1f} s late" if pulse.lag > LOOP_LAG_SECONDS else None

    def workers() -> str | None:
        return "; ".join(stuck for engine in engines() for stuck in engine.stuck()) or None

    def lease() -> str | None:
        current = leadership()
        return current.late() if current is not None else None

    def caches() -> str | None:
        current = cache()
        return _cache_trouble(current) if current is not None else "not started"

    def controllers() -> str | None:
        waiting = [engine.name for engine in engines() if not engine.ready]
        return f"initial events not processed: {', '.join(waiting)}" if waiting else None

    healthz.add("loop", loop)
    healthz.add("workers", workers)
    healthz.add("lease", lease)
    readyz.add("caches", caches)
    readyz.add("controllers", controllers)


def _cache_trouble(cache: Cache) -> str | None:
    troubles: list[str] = []
    for row in cache.health():
        name = f"{row.kind} in {row.namespace}" if row.namespace else row.kind
        if not row.synced:
            troubles.append(f"{name}: {row.error or 'the first list has not arrived'}")
        elif not row.watching and row.silent_seconds > SILENCE_SECONDS:
            troubles.append(f"{name}: no watch for {row.silent_seconds:.0f} s: {row.error or 'no answer'}")
    return "; ".join(troubles) or None
