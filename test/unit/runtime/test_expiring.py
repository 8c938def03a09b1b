"""Results that expire, and the eviction of the oldest."""

import asyncio

from kaito.runtime.expiring import ExpiringCache
from kaito.runtime.testing import World


async def test_a_result_expires(world: World) -> None:
    results = ExpiringCache[bool](2)
    results.put("denied", result=False, seconds=10)
    assert results.get("denied") is False
    await asyncio.sleep(9)
    assert results.get("denied") is False
    await asyncio.sleep(1)
    assert results.get("denied") is None
    del world


async def test_the_result_that_was_put_first_is_evicted(world: World) -> None:
    results = ExpiringCache[int](2)
    for key in ("a", "b", "a", "c"):
        results.put(key, 1, 10)
    assert [results.get(key) for key in ("a", "b", "c")] == [1, None, 1]
    del world
