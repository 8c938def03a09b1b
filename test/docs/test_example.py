"""The example operator: its own tests, what it imports, and its whole life as a process on a real API server."""

import ast
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.envtest import ControlPlane
from kaito.runtime import ApiError, Cached, Client, Manager, Model, ObjectMeta, Resource, Settings
from kaito.runtime.client import connect
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.kinds import (
    Deployment,
    Event,
    Lease,
    Node,
    Pod,
    Secret,
    Service,
)
from kaito.runtime.testing import workloads

SECONDS = 20.0
"""Longest wait for something that takes milliseconds."""


class MemcachedSpec(Model):
    """Written as another program would, without the operator's own model."""

    size: int = 1
    auth_secret: str | None = None
    drain_seconds: int = 0


class Memcached(Resource, api="cache.example.com/v1", kind="Memcached"):
    """The custom resource, its status untyped."""

    spec: MemcachedSpec = MemcachedSpec()


def readiness(memcached: Memcached) -> str:
    conditions = memcached.to_dict().get("status", {}).get("conditions", [])
    return next((c["reason"] for c in conditions if c["type"] == "Ready"), "")


def test_its_own_tests_pass_in_its_own_folder(example: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=example,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _imported(source: Path) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
    return found


def test_it_needs_nothing_but_the_frameworks_public_names(example: Path) -> None:
    allowed = {"memcached_operator", *sys.stdlib_module_names}
    used = {imported for source in example.rglob("*.py") for imported in _imported(source)} - {("pytest", "")}
    assert ("kaito.runtime", "Controller") in used
    for module, name in sorted(used):
        if module.partition(".")[0] in allowed:
            continue
        assert module.startswith("kaito.runtime"), f"{module} is not the framework"
        parts = [*module.split("."), name]
        assert not any(part.startswith("_") for part in parts), f"{module}.{name} is private"
        depth = 4 if module == "kaito.runtime.testing.simulate" else 3
        assert len(module.split(".")) <= depth, f"{module}: a package's public names are importable from the package"
        assert hasattr(import_module(module), name), f"{module} has no {name}"


def test_its_manifests_are_what_its_code_says(example: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "memcached_operator.api"], cwd=example, capture_output=True, text=True, check=True
    ).stdout
    assert (example / "deploy" / "crd.yaml").read_text() == printed


# -- on a real API server --------------------------------------------------------------------------------------------


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits in real time until an async question is answered with yes."""
    try:
        async with asyncio.timeout(SECONDS):
            while not await holds():  # noqa: ASYNC110 -- polls another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"not within {SECONDS:g} s: {what}")


@asynccontextmanager
async def operator(example: Path, kubeconfig: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    """The operator's process; whatever happens it does not outlive the test."""
    environment = os.environ | {
        "MEMCACHED_KUBECONFIG": str(kubeconfig),
        "MEMCACHED_METRICS_BIND_ADDRESS": "0",
        "MEMCACHED_HEALTH_PROBE_BIND_ADDRESS": "0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "memcached_operator", cwd=example, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def as_service_account(kubeconfig: Path, folder: Path) -> Path:
    """A kubeconfig of the account that `deploy/operator.yaml` gives the operator: it may do what its roles say."""
    document: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    document["users"][0]["user"]["as"] = "system:serviceaccount:memcached-operator:memcached-operator"
    document["contexts"][0]["context"]["namespace"] = "memcached-operator"
    (folder / "kubeconfig").write_text(yaml.safe_dump(document))
    return folder / "kubeconfig"


async def deploy(example: Path, kubeconfig: Path, apply: Callable[..., Awaitable[None]]) -> None:
    transport = HttpTransport(await find_cluster_config(kubeconfig))
    try:
        for name in ("crd.yaml", "operator.yaml"):
            await apply(transport, yaml.safe_load_all((example / "deploy" / name).read_text()))
    finally:
        await transport.close()


async def is_served(client: Client) -> bool:
    try:
        await client.list(Memcached)
    except ApiError:
        return False
    return True


@pytest.mark.real
async def test_its_whole_life_on_a_real_api_server(
    example: Path, control_plane: ControlPlane, apply: Callable[..., Awaitable[None]], tmp_path: Path
) -> None:
    kubeconfig = control_plane.kubeconfig
    off = Settings(kubeconfig=kubeconfig, metrics_bind_address="0", health_probe_bind_address="0")
    cluster = Manager(off, controllers=workloads(), cache=[Cached(Pod), Cached(Node)], name="cluster")
    async with connect(kubeconfig, field_manager="test") as client, cluster:
        await deploy(example, kubeconfig, apply)
        await until(lambda: is_served(client), "the kind is served")
        async with operator(example, as_service_account(kubeconfig, tmp_path)) as process:
            wanted = Memcached(
                metadata=ObjectMeta(name="sessions", namespace="default"),
                spec=MemcachedSpec(size=2, auth_secret="users", drain_seconds=1),
            )
            await client.create(wanted)

            async def reason_is(reason: str) -> bool:
                return readiness(await client.get(Memcached, "sessions", "default")) == reason

            await until(lambda: reason_is("SecretMissing"), "the missing Secret is named")
            secret = Secret(metadata=ObjectMeta(name="users", namespace="default")).with_values(auth=b"app:hunter2")
            await client.create(secret)
            await until(lambda: reason_is("AllReady"), "the servers are ready")
            deployment = await client.get(Deployment, "sessions", "default")
            assert deployment.spec.replicas == deployment.status.ready_replicas == 2
            assert deployment.metadata.owner_references[0].kind == "Memcached"

            await client.delete(await client.get(Memcached, "sessions", "default"))

            async def gone() -> bool:
                return await client.find(Memcached, "sessions", "default") is None

            await until(gone, "the Memcached is gone")
            assert await client.find(Service, "sessions", "default") is None
            events = await client.list(Event, namespace="default")  # the API server may add its own, about the Service
            received = [event.reason for event in events if event.regarding.kind == "Memcached"]
            assert received == ["Scaling", "AllReady"]

            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), SECONDS) == 0
        lease = await client.get(Lease, "memcached-operator", "memcached-operator")
        assert not lease.spec.holder_identity
