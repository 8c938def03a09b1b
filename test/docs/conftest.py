"""Fixtures of the tests that execute the documentation."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hack.envtest import ControlPlane
from kaito.runtime import Client
from kaito.runtime.client import Transport
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.kinds import untyped_kind
from test.support.control_plane import real_control_plane

Apply = Callable[[Transport, Iterable[Mapping[str, Any]]], Awaitable[None]]


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
    with real_control_plane() as plane:
        yield plane


async def _apply(transport: Transport, documents: Iterable[Mapping[str, Any]]) -> None:
    discovery = ServerDiscovery(transport)
    client = Client(transport, field_manager="kubectl", discovery=discovery, field_validation="Strict")
    for document in documents:
        kind = untyped_kind(document["apiVersion"], document["kind"])
        obj = kind.model_validate(document)
        if not obj.namespace and (await discovery.rest_mapping(kind.gvk())).namespaced:
            obj = obj.with_metadata(namespace="default")
        await client.apply(obj)


@pytest.fixture(scope="session")
def apply() -> Apply:
    """`kubectl apply` of documents, with unknown fields refused."""
    return _apply
