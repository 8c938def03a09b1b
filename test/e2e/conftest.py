"""The process tests' ground: they need real binaries of the control plane, and say in one line when there are none."""

import shutil

import pytest

from hack.envtest import Unavailable, locate


@pytest.fixture(scope="session", autouse=True)
def _needs_a_real_control_plane() -> None:
    try:
        locate()
    except Unavailable as reason:
        pytest.skip(str(reason))
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, and these tests speak through it")
