"""Pytest plugin: virtual time, and the fixtures `world` and `real_cluster`.

    # conftest.py, at the root of your tests
    pytest_plugins = ["kaito.runtime.testing.pytest"]

A test with the `world` fixture or `@pytest.mark.virtual_time` runs on `VirtualTimeLoop`.
`@pytest.mark.seeds(20)` runs it once per interleaving; the seed is part of the test's ID, so that pytest prints it for
a failed test and the ID repeats the interleaving. `--world-seeds=500` runs such tests in more interleavings,
`--world-seed=13` runs every test in virtual time in that interleaving. `--write-role=role.yaml` writes the ClusterRole
with the permissions that the tests have used. Needs pytest-asyncio >= 1.4 in auto or strict mode.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kaito.runtime.testing.envtest import RealCluster
    from kaito.runtime.testing.role import UsedPermissions
    from kaito.runtime.testing.world import World

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

_USED: "pytest.StashKey[UsedPermissions]" = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options for interleavings."""
    group = parser.getgroup("kaito.runtime.testing")
    group.addoption("--world-seeds", type=int, metavar="N", help="interleavings of each test marked with seeds()")
    group.addoption(
        "--world-seed", type=int, metavar="SEED", help="run tests in virtual time in this interleaving only"
    )
    group.addoption(
        "--write-role", type=Path, metavar="FILE", help="write the ClusterRole with the permissions that the tests use"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers, for `--strict-markers`."""
    config.addinivalue_line("markers", "virtual_time: the test runs in simulated time")
    config.addinivalue_line("markers", "seeds(count): the test runs in that many seeded interleavings")
    if config.getoption("--write-role") is not None:
        from kaito.runtime.testing.role import UsedPermissions

        if getattr(config.option, "numprocesses", None):
            raise pytest.UsageError("--write-role collects permissions in one process: run without -n")
        config.stash[_USED] = UsedPermissions()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Notes that a selection of the tests runs, whose permissions are not all."""
    used = items[0].config.stash.get(_USED, None) if items else None
    if used is not None:
        used.is_partial = True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Writes the role of `--write-role`, or reports why it is not written."""
    used = config.stash.get(_USED, None)
    path: Path | None = config.getoption("--write-role")
    if used is None or path is None:
        return
    if exitstatus != pytest.ExitCode.OK:
        terminalreporter.write_line(f"{path} was not written: not all tests have passed")
    elif used.is_partial:
        terminalreporter.write_line(f"{path} was not written: a selection of the tests has run")
    else:
        used.write(path)
        terminalreporter.write_line(f"wrote {path}")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Reports the seed of `--world-seed`, which the test IDs may not contain."""
    seed: int | None = config.getoption("--world-seed")
    return None if seed is None else f"world seed: {seed}"


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Selects the virtual-time loop for tests that request it, asyncio's loop for others."""
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
async def world(request: pytest.FixtureRequest) -> AsyncIterator["World"]:
    """Provides an empty in-memory cluster in virtual time; controllers started in it are stopped at the end."""
    from kaito.runtime.testing import World

    async with World() as world:
        yield world
    used = request.config.stash.get(_USED, None)
    if used is not None:
        used.add(world)


@pytest.fixture(scope="session")
def real_kubeconfig() -> Iterator[Path]:
    """Provides a real API server for the session: a new one, or with `USE_EXISTING_CLUSTER=true` that of `$KUBECONFIG`.

    Tests are skipped with a reason if the binaries are missing. Override the fixture to use another server.
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
    """Provides a namespace of a real API server, with a client and managers, in real time."""
    from kaito.runtime.testing.envtest import RealCluster

    async with RealCluster(real_kubeconfig) as cluster:
        yield cluster
