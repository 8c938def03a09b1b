"""The process tests' ground: they need real binaries of the control plane, and say in one line when there are none.

Two workers run the files side by side. The tests of one file run in one worker, in their order, because they may share
a control plane. So do all files that run `kaito up`: two local clusters would give the same addresses of 127.0.0.0/8 to
their Services.
"""

import shutil
from pathlib import PurePosixPath
from typing import Any, Final

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

from hack.envtest import Unavailable, locate

LOCAL_CLUSTERS: Final = frozenset({"test_any_model", "test_console_local", "test_local", "test_traces"})


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]  # its base has no types
    """Gives whole files to a worker, and all files with local clusters to one."""

    def _split_scope(self, nodeid: str) -> str:
        name = PurePosixPath(nodeid.split("::", 1)[0]).stem
        return "local" if name in LOCAL_CLUSTERS else name


@pytest.hookimpl(optionalhook=True)  # pyright: ignore[reportUntypedFunctionDecorator]  # without xdist: nothing
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    """Replaces the scheduler of `--dist loadscope`.

    `--dist loadgroup` has no effect: pytest 9.2 reads the ids of the tests before xdist 3.8 adds the groups to them.
    """
    return FileScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _needs_a_real_control_plane() -> None:
    try:
        locate()
    except Unavailable as reason:
        pytest.skip(str(reason))
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, and these tests speak through it")
