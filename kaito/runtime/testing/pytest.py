"""The pytest plugin: virtual time and a `world` for your tests.

    # conftest.py, at the root of your tests
    pytest_plugins = ["kaito.runtime.testing.pytest"]

A test that takes the `world` fixture, or carries `@pytest.mark.virtual_time`, runs on `VirtualTimeLoop`.
`@pytest.mark.seeds(20)` runs it once per interleaving; the seed is part of the test's id, so a failing one is printed
by pytest and replayed by naming that id. `--world-seeds=500` runs such tests in more interleavings, `--world-seed=13`
runs every test in virtual time, marked or not, in that one. Needs pytest-asyncio >= 1.4 in auto or strict mode.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kaito.runtime.testing.envtest import RealCluster
    from kaito.runtime.testing.world import World

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options that explore and replay interleavings."""
    group = parser.getgroup("kaito.runtime.testing")
    group.addoption("--world-seeds", type=int, metavar="N", help="interleavings of each test marked with seeds()")
    group.addoption(
        "--world-seed", type=int, metavar="SEED", help="run tests in virtual time in this interleaving only"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, so that strict configurations accept them."""
    config.addinivalue_line("markers", "virtual_time: the test runs in simulated time")
    config.addinivalue_line("markers", "seeds(count): the test runs in that many seeded interleavings")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Name the one interleaving of a replay; the ids of tests do not, where there is no other."""
    seed: int | None = config.getoption("--world-seed")
    return None if seed is None else f"world seed: {seed}"


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Virtual time for those who asked for it, asyncio's own loop for the rest."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    seeds = item.get_closest_marker("seeds")
    if seeds is None and "world" not in fixtures and item.get_closest_marker("virtual_time") is None:
        return {"asyncio": asyncio.new_event_loop}
    from kaito.runtime.testing.virtual import VirtualTimeLoop

    only: int | None = config.getoption("--world-seed")
    if only is not None:
        chosen = range(only, only + 1)
    elif seeds is None:
        return {"virtual": VirtualTimeLoop}
    else:
        chosen = range(config.getoption("--world-seeds") or int(seeds.args[0]))
    return {f"seed-{seed}": partial(VirtualTimeLoop, seed=seed) for seed in chosen}


@pytest.fixture
async def world() -> AsyncIterator["World"]:
    """An empty in-memory cluster in virtual time; what the test started in it is stopped at the end."""
    from kaito.runtime.testing import World

    async with World() as world:
        yield world


@pytest.fixture(scope="session")
def real_kubeconfig() -> Iterator[Path]:
    """A real API server for the whole run: one of its own, or with `USE_EXISTING_CLUSTER=true` that of `$KUBECONFIG`.

    Where neither can be had, tests that ask for it are skipped and say why. Override it to bring your own.
    """
    from kaito.runtime.testing.envtest import ControlPlane, Unavailable

    if os.environ.get("USE_EXISTING_CLUSTER", "").lower() == "true":
        yield Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        return
    plane = ControlPlane()
    try:
        plane.start()
    except Unavailable as error:
        pytest.skip(f"no real kube-apiserver: {error}")
    try:
        yield plane.kubeconfig
    finally:
        plane.stop()


@pytest.fixture
async def real_cluster(real_kubeconfig: Path) -> AsyncIterator["RealCluster"]:
    """A namespace of a real API server, with a client and managers; in real time."""
    from kaito.runtime.testing.envtest import RealCluster

    async with RealCluster(real_kubeconfig) as cluster:
        yield cluster
