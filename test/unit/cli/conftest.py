"""Fixtures of the tests of `kaito plan`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.api import crds
from kaito.cli.plan import command
from kaito.planning.comparison import CONTROLLER
from kaito.runtime.client import Client
from kaito.runtime.testing import World


@pytest.fixture
def live(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The cluster that `kaito plan --cluster` reads, with the CRDs of Kaito."""
    for definition in crds.manifests():
        world.install(definition)

    @asynccontextmanager
    async def connected(_: Any, __: str) -> AsyncGenerator[Client]:
        yield Client(world.transport(), field_manager=CONTROLLER)

    monkeypatch.setattr(command, "connected", connected)
    return world


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(*documents: dict[str, Any], name: str = "given.yaml") -> str:
        path = tmp_path / name
        path.write_text(yaml.safe_dump_all(documents))
        return str(path)

    return write
