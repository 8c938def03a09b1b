"""The process tests' ground: they need real binaries of the control plane, and say in one line when there are none.

Two workers run the files side by side. The tests of one file run in one worker, in their order, because they may share
a control plane. So do all files that run `kaito up`: two local clusters would give the same addresses of 127.0.0.0/8 to
their Services.
"""

import shutil
from collections.abc import Sequence
from typing import Final

import pytest

from hack.envtest import Unavailable, locate

LOCAL_CLUSTERS: Final = frozenset({"test_any_model", "test_console_local", "test_local"})


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Assigns each test to the group of its worker."""
    for item in items:
        name = item.path.stem
        item.add_marker(pytest.mark.xdist_group("local" if name in LOCAL_CLUSTERS else name))


@pytest.fixture(scope="session", autouse=True)
def _needs_a_real_control_plane() -> None:
    try:
        locate()
    except Unavailable as reason:
        pytest.skip(str(reason))
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, and these tests speak through it")
