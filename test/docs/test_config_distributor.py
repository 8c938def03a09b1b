"""The example of several clusters: its own tests, its imports, its manifests, and the numbers of its page."""

import ast
import asyncio
import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import tokenize
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_distributor.api import ConfigDistribution, ConfigDistributionSpec

from hack.envtest import ControlPlane
from kaito.runtime import ApiError, Client, LabelSelector, ObjectMeta
from kaito.runtime.client.connect import connect, find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.kinds import ConfigMap, Secret
from test.support.control_plane import real_control_plane

DEADLINE_SECONDS = 90.0
"""Longest wait; a machine under load is slow."""


@pytest.fixture
def distributor(root: Path) -> Path:
    return root / "examples" / "config-distributor"


@pytest.mark.timeout(300)
def test_its_own_tests_pass_in_its_own_folder(distributor: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=distributor,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_its_definition_is_that_of_its_code(distributor: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "config_distributor.api"], cwd=distributor, capture_output=True, text=True, check=True
    ).stdout
    assert (distributor / "deploy" / "crd.yaml").read_text() == printed


def test_it_needs_nothing_but_public_names_of_the_framework(distributor: Path) -> None:
    allowed = {"config_distributor", "pytest", *sys.stdlib_module_names}
    for source in distributor.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] in allowed:
                continue
            module = import_module(node.module or "")
            assert (node.module or "").startswith("kaito.runtime")
            assert len((node.module or "").split(".")) <= 3
            assert all(hasattr(module, alias.name) and not alias.name.startswith("_") for alias in node.names)


def code_lines(source: Path) -> int:
    """Lines with code: without blanks, comments and docstrings."""
    text = source.read_text()
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_the_numbers_of_its_page_are_current(distributor: Path, root: Path) -> None:
    page = (root / "docs" / "framework" / "clusters.md").read_text()
    package, tests = distributor / "config_distributor", distributor / "tests"
    controller = code_lines(package / "controller.py") + code_lines(package / "__main__.py")
    counted = code_lines(package / "api.py"), controller, sum(code_lines(each) for each in tests.glob("*.py"))
    assert f"| config-distributor | {counted[0]} | {counted[1]} | {counted[2]} |" in page
    functions = re.findall(r"^async def test_", (tests / "test_config_distributor.py").read_text(), re.MULTILINE)
    assert f"{len(functions)} tests" in " ".join(page.split())


# -- on two real API servers ------------------------------------------------------------------------------------------


async def eventually(what: str, holds: Callable[[], Awaitable[bool]]) -> None:
    """Waits in real time until an async question is answered with yes."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await holds():  # noqa: ASYNC110 -- polls another process
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"not within {DEADLINE_SECONDS:g} s: {what}")


async def deploy(kubeconfig: Path, folder: Path, apply: Callable[..., Awaitable[None]], *names: str) -> None:
    transport = HttpTransport(await find_cluster_config(kubeconfig))
    try:
        for name in names:
            await apply(transport, yaml.safe_load_all((folder / name).read_text()))
    finally:
        await transport.close()


def as_operator(kubeconfig: Path, folder: Path) -> Path:
    """A kubeconfig of the account of `deploy/operator.yaml`."""
    document: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    document["users"][0]["user"]["as"] = "system:serviceaccount:config-distributor:config-distributor"
    document["contexts"][0]["context"]["namespace"] = "config-distributor"
    (folder / "kubeconfig").write_text(yaml.safe_dump(document))
    return folder / "kubeconfig"


async def secret_of(plane: ControlPlane, client: Client) -> Secret:
    """The Secret with the kubeconfig of a cluster: the account of `deploy/member.yaml`, with a token of the server."""
    path = "/api/v1/namespaces/config-distributor/serviceaccounts/config-distributor/token"
    token = (await client.raw("POST", path, body={"spec": {}}))["status"]["token"]
    authority = base64.b64encode(plane.ca_file.read_bytes()).decode()
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": plane.url, "certificate-authority-data": authority}}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    labels = {"sigs.k8s.io/multicluster-runtime-kubeconfig": "true", "region": "eu"}
    metadata = ObjectMeta(name="second", namespace="config-distributor-clusters", labels=labels)
    return Secret(metadata=metadata).with_values(kubeconfig=json.dumps(document).encode())


@pytest.mark.real
@pytest.mark.timeout(600)
async def test_its_whole_life_on_two_real_api_servers(
    distributor: Path, control_plane: ControlPlane, apply: Callable[..., Awaitable[None]], tmp_path: Path
) -> None:
    with real_control_plane() as second:
        await deploy(control_plane.kubeconfig, distributor / "deploy", apply, "crd.yaml", "operator.yaml")
        await deploy(second.kubeconfig, distributor / "deploy", apply, "member.yaml")
        environment = os.environ | {
            "DISTRIBUTOR_KUBECONFIG": str(as_operator(control_plane.kubeconfig, tmp_path)),
            "DISTRIBUTOR_METRICS_BIND_ADDRESS": "0",
            "DISTRIBUTOR_HEALTH_PROBE_BIND_ADDRESS": "0",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "config_distributor",
            cwd=distributor,
            env=environment,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with (
                connect(control_plane.kubeconfig, field_manager="test") as home,
                connect(second.kubeconfig, field_manager="test") as away,
            ):
                await live(home, away, second)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def live(home: Client, away: Client, second: ControlPlane) -> None:
    """Copy, lose the cluster, delete without it, and clean up when it returns."""

    async def is_served() -> bool:
        try:
            await home.list(ConfigDistribution)
        except ApiError:
            return False
        return True

    async def is_copied() -> bool:
        copy = await away.find(ConfigMap, "app", "default")
        return copy is not None and copy.data == {"level": "info"}

    async def is_ready() -> bool:
        found = await home.get(ConfigDistribution, "settings", "default")
        return any(each.type == "Ready" and each.status == "True" for each in found.status.conditions)

    metadata = ObjectMeta(name="app", namespace="default", labels={"distribute": "true"})
    await home.create(ConfigMap(metadata=metadata, data={"level": "info"}))
    spec = ConfigDistributionSpec(
        selector=LabelSelector(match_labels={"distribute": "true"}), cleanup_timeout_seconds=5
    )
    await eventually("the kind is served", is_served)
    named = ObjectMeta(name="settings", namespace="default")
    stored = await home.create(ConfigDistribution(metadata=named, spec=spec))
    await eventually("the status is reported without a cluster", is_ready)
    added = await home.create(await secret_of(second, away))
    await eventually("the second cluster has the copy", is_copied)
    await eventually("the status is reported", is_ready)

    assert second.api_server is not None
    second.api_server.kill()
    second.api_server.wait()
    await home.delete(stored)

    async def is_gone() -> bool:
        return await home.find(ConfigDistribution, "settings", "default") is None

    await eventually("the deletion does not wait without a limit", is_gone)
    await asyncio.to_thread(second.start_api_server)

    async def is_cleaned() -> bool:
        return await away.find(ConfigMap, "app", "default") is None

    await eventually("the copy is deleted when the cluster returns", is_cleaned)
    await home.delete(added)
    await home.delete(ConfigMap(metadata=metadata))
