"""Every example in a module's docstring is executed, in virtual time, with the names of its module.

An example is an indented block that is Python. It may use what `kaito.runtime` exports, the kinds of the example
operator, and what `GIVEN` has for its module. A test function in an example runs with a `World` or a `RealCluster`.
Tables and trees are the only blocks that are not executed.
"""

import ast
import asyncio
import inspect
import re
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from memcached_operator import api
from memcached_operator.controller import clean_up, controller, reconcile

import kaito.runtime
from hack.envtest import ControlPlane
from kaito.runtime import Manager, ObjectKey, ObjectMeta, Resource, Settings
from kaito.runtime.errors import NotLeader
from kaito.runtime.kinds import ConfigMap, Deployment, Secret, Service
from kaito.runtime.predicate import changed
from kaito.runtime.source import PollRequest
from kaito.runtime.testing import RealCluster, World, workloads

ROOT = Path(__file__).resolve().parents[2]
TABLE = re.compile(r"\S.*?(  |: )\s*\S|[│├└ ]+[─ ]*\S")
"""A line of a table (two columns), or of a tree."""


class Placement(Resource, api="example.com/v1", kind="Placement"):
    """A kind that is placed on another cluster."""


class Site(Resource, api="example.com/v1", kind="Site"):
    """A kind with dependents."""


class Record(Resource, api="example.com/v1", kind="Record"):
    """A kind with a state outside of the cluster."""


async def read_record(poll: PollRequest[Record]) -> str:
    """A poll."""
    return poll.object.name


class OldMemcached(Resource, api="cache.example.com/v1beta1", kind="Memcached"):
    """The older version of the kind."""


async def do_nothing(request: Any) -> None:
    """A reconcile function."""


def keys_of(*_: Any) -> list[ObjectKey]:
    """A function from an object to the keys of others."""
    return []


def unchanged(obj: Any) -> Any:
    """A conversion, or a default."""
    return obj


async def is_scaled(cluster: RealCluster) -> bool:
    return await cluster.client.find(Deployment, "cache", cluster.namespace) is not None


def not_leader() -> None:
    raise NotLeader("the lease may have expired")


COMMON: dict[str, Any] = {
    **{name: getattr(kaito.runtime, name) for name in kaito.runtime.__all__},
    "Memcached": api.Memcached,
    "MemcachedSpec": api.MemcachedSpec,
    "MemcachedStatus": api.MemcachedStatus,
    "ConfigMap": ConfigMap,
    "Deployment": Deployment,
    "Secret": Secret,
    "ObjectMeta": ObjectMeta,
    "Path": Path,
    "changed": changed,
    "controller": controller,
    "reconcile": reconcile,
    "clean_up": clean_up,
    "settings": Settings(),
}

GIVEN: dict[str, dict[str, Any]] = {
    "kaito.runtime": {"controller": controller, "reconcile": reconcile},
    "kaito.runtime.client.fencing": {"aiohttp": aiohttp, "request": SimpleNamespace(fence=not_leader)},
    "kaito.runtime.controller.declaration": {"referencing": keys_of},
    "kaito.runtime.clusters": {"Placement": Placement, "placements_of": keys_of, "reconcile": do_nothing},
    "kaito.runtime.dependents": {"Site": Site, "Service": Service},
    "kaito.runtime.source.inbound": {"Record": Record, "reconcile": do_nothing},
    "kaito.runtime.source.polling": {"Record": Record, "reconcile": do_nothing, "read_record": read_record},
    "kaito.runtime.manager.cluster": {
        "Placement": Placement,
        "placements_of": keys_of,
        "reconcile": do_nothing,
    },
    "kaito.runtime.testing.envtest": {"is_scaled": is_scaled},
    "kaito.runtime.webhook.conversion": {
        "v1": SimpleNamespace(Memcached=api.Memcached),
        "v1beta1": SimpleNamespace(Memcached=OldMemcached),
        "up": unchanged,
        "down": unchanged,
    },
    "kaito.runtime.testing.world": {"workloads": workloads},
    "kaito.runtime.webhook.declaration": {"fill_in": unchanged},
}


RAISES = {"kaito.runtime.client.fencing": NotLeader}
"""Examples that end with an error, as their comments state."""


@dataclass(frozen=True)
class Block:
    """An indented block of a docstring."""

    path: Path
    number: int
    code: str

    @property
    def module(self) -> str:
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def is_python(self) -> bool:
        try:
            ast.parse(self.code)
        except SyntaxError:
            return False
        return True

    def __str__(self) -> str:
        return f"{self.module}-{self.number}"


def blocks(path: Path) -> list[Block]:
    """The indented blocks of a module's docstring; blank lines do not end one."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    found = re.findall(r"^(?: {4}.*\n|\n(?= {4}))+", f"{docstring}\n", re.MULTILINE)
    return [Block(path, number, inspect.cleandoc(text)) for number, text in enumerate(found)]


BLOCKS = [block for path in sorted((ROOT / "kaito").rglob("*.py")) for block in blocks(path)]
EXAMPLES = [block for block in BLOCKS if block.is_python]


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.is_python], ids=str)
def test_a_block_that_is_not_python_is_a_table_or_a_tree(block: Block) -> None:
    assert [line for line in block.code.splitlines() if line and not TABLE.match(line)] in ([], [block.code.split()[0]])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Manager]:
    """Managers that an example runs until a signal, which does not come here."""
    managers: list[Manager] = []

    def run(manager: Manager) -> None:
        managers.append(manager)

    monkeypatch.setattr(Manager, "run", run)
    return managers


async def execute(block: Block, **arguments: Any) -> dict[str, Any]:
    """Runs an example, then the test functions in it with those of the arguments that they take."""
    names = COMMON | vars(import_module(block.module)) | GIVEN.get(block.module, {}) | arguments
    code = compile(block.code, str(block.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    pending = eval(code, names)
    if inspect.isawaitable(pending):
        await pending
    for name, function in list(names.items()):
        if name.startswith("test_"):
            await function(*(arguments[parameter] for parameter in inspect.signature(function).parameters))
    return names


def takes_real_cluster(block: Block) -> bool:
    return "real_cluster" in block.code


@pytest.mark.virtual_time
@pytest.mark.parametrize("block", [block for block in EXAMPLES if not takes_real_cluster(block)], ids=str)
async def test_examples_run(block: Block, world: World, started: list[Manager]) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    error = RAISES.get(block.module)
    async with server:
        with pytest.raises(error) if error else nullcontext():
            await execute(block, world=world, url=url)
    assert bool(started) == (".run()" in block.code)


@pytest.fixture
async def real_cluster(control_plane: ControlPlane) -> AsyncIterator[RealCluster]:
    async with RealCluster(control_plane.kubeconfig) as cluster:
        yield cluster


@pytest.mark.real
@pytest.mark.parametrize("block", [block for block in EXAMPLES if takes_real_cluster(block)], ids=str)
async def test_examples_on_a_real_server_run(block: Block, real_cluster: RealCluster) -> None:
    metadata = ObjectMeta(name="cache", namespace=real_cluster.namespace)
    await execute(block, real_cluster=real_cluster, memcached=api.Memcached(metadata=metadata))


def test_there_are_examples_of_both_kinds() -> None:
    assert len([block for block in EXAMPLES if not takes_real_cluster(block)]) > 10
    assert any(takes_real_cluster(block) for block in EXAMPLES)
