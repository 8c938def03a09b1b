"""The pytest plugin: virtual time and a `world` for your tests.

    # conftest.py, at the root of your tests
    pytest_plugins = ["kaito.runtime.testing.pytest"]

A test that takes the `world` fixture, or carries `@pytest.mark.virtual_time`, runs on `VirtualTimeLoop`.
`@pytest.mark.seeds(20)` runs it once per interleaving; the seed is part of the test's id, so a failing one is printed
by pytest and replayed by naming that id. Needs pytest-asyncio >= 1.4 in auto or strict mode.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kaito.runtime.testing.world import World

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, so that strict configurations accept them."""
    config.addinivalue_line("markers", "virtual_time: the test runs in simulated time")
    config.addinivalue_line("markers", "seeds(count): the test runs in that many seeded interleavings")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:  # noqa: ARG001
    """Virtual time for those who asked for it, asyncio's own loop for the rest."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    seeds = item.get_closest_marker("seeds")
    if seeds is None and "world" not in fixtures and item.get_closest_marker("virtual_time") is None:
        return {"asyncio": asyncio.new_event_loop}
    from kaito.runtime.testing.virtual import VirtualTimeLoop

    if seeds is None:
        return {"virtual": VirtualTimeLoop}
    return {f"seed-{seed}": partial(VirtualTimeLoop, seed=seed) for seed in range(int(seeds.args[0]))}


@pytest.fixture
async def world() -> AsyncIterator["World"]:
    """An empty in-memory cluster in virtual time; what the test started in it is stopped at the end."""
    from kaito.runtime.testing.world import World

    async with World() as world:
        yield world
