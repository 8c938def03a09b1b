"""Fixtures of the tests that execute the documentation."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.envtest import ControlPlane, Unavailable


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def example(root: Path) -> Path:
    """The example operator's own project."""
    return root / "examples" / "memcached-operator"


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """One real control plane for the whole run."""
    plane = ControlPlane()
    try:
        plane.start()
    except Unavailable as error:
        pytest.skip(f"no real kube-apiserver: {error}")
    try:
        yield plane
    finally:
        plane.stop()
