"""A real control plane for fixtures, or a skipped test with the reason."""

from collections.abc import Generator
from contextlib import contextmanager

import pytest

from hack.envtest import ControlPlane, Unavailable


@contextmanager
def real_control_plane() -> Generator[ControlPlane]:
    """Runs a control plane; skips the test if its programs are missing."""
    plane = ControlPlane()
    try:
        plane.start()
    except Unavailable as error:
        pytest.skip(f"no real kube-apiserver: {error}")
    try:
        yield plane
    finally:
        plane.stop()
