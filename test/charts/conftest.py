"""The tests of the charts need helm and kubectl; helm is built on first use (`hack.tools`)."""

import os
import shutil

import pytest

from hack.tools import Unavailable, locate


@pytest.fixture(scope="session", autouse=True)
def _needs_helm_and_kubectl() -> None:
    try:
        locate("helm")
    except Unavailable as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
