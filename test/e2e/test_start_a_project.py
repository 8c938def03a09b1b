"""A project of `kaito-runtime init`, made from wheels: its checks, its image, and its life on a real API server."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.envtest import ControlPlane
from hack.tools import Unavailable as ToolUnavailable, locate
from kaito.runtime import ApiError, Client, Condition, Model, NotFound, ObjectMeta, Resource
from kaito.runtime.client import connect, find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.kinds import (
    ClusterRole,
    ClusterRoleBinding,
    ConfigMap,
    CustomResourceDefinition,
    Namespace,
    RoleRef,
    Subject,
    untyped_kind,
)
from kaito.runtime.testing.envtest import free_port
from test.support.control_plane import real_control_plane
from test.support.dockerfiles import parse

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
NAME = "site-operator"
SECONDS = 30.0
"""Longest wait for something that takes milliseconds."""

pytestmark = pytest.mark.timeout(240)


class SiteStatus(Model):
    """The status, as another program would read it."""

    conditions: list[Condition] = []


class Site(Resource, api="example.com/v1", kind="Site"):
    """The kind of the project."""

    status: SiteStatus = SiteStatus()


def run(*command: str | Path, cwd: Path) -> str:
    """Runs what must succeed, outside of the checkout and its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "VIRTUAL"))}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=kept, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@dataclass(frozen=True)
class Made:
    """The project, and the environment that its README describes."""

    folder: Path
    environment: Path

    def command(self, name: str) -> Path:
        return self.environment / "bin" / name


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Follows docs/framework/start-a-project.md with wheels of this checkout."""
    base = tmp_path_factory.mktemp("start")
    wheels = base / "wheels"
    for folder in ("runtime", "apiserver"):
        run(UV, "build", "--quiet", "--wheel", "--out-dir", wheels, ROOT / "kaito" / folder, cwd=base)
    tool = base / "tool"
    run(UV, "venv", "--quiet", tool, cwd=base)
    run(UV, "pip", "install", "--quiet", "--python", tool, *wheels.glob("kaito_runtime*"), cwd=base)
    run(tool / "bin" / "kaito-runtime", "init", NAME, "--kind", "example.com/v1/Site", cwd=base)
    made = Made(base / NAME, base / NAME / ".venv")
    shutil.copytree(wheels, made.folder / "wheels")
    run(UV, "venv", "--quiet", made.environment, cwd=made.folder)
    install = ("pip", "install", "--quiet", "--python", made.environment, "--find-links", "wheels")
    run(UV, *install, "-e", ".[dev]", cwd=made.folder)
    return made


def test_its_tests_and_checks_pass(project: Made) -> None:
    assert " passed" in run(project.command("pytest"), "-q", cwd=project.folder)
    run(project.command("ruff"), "check", ".", cwd=project.folder)
    run(project.command("ruff"), "format", "--check", ".", cwd=project.folder)
    assert "Success" in run(project.command("mypy"), cwd=project.folder)


def test_its_image_installs_the_operator_alone_and_does_not_run_as_root(project: Made, tmp_path: Path) -> None:
    build, image = parse((project.folder / "Dockerfile").read_text()).stages
    (install,) = build.all("RUN")
    assert "/venv/bin/pip install --no-cache-dir --find-links /src/wheels /src" in install.rest
    assert [each.rest for each in image.all("USER")] == ["65532:65532"]
    (entry,) = image.all("ENTRYPOINT")

    environment = tmp_path / "venv"
    run(UV, "venv", "--quiet", environment, cwd=tmp_path)
    pip = ("pip", "install", "--quiet", "--python", environment, "--find-links", "wheels", ".")
    run(UV, *pip, cwd=project.folder)
    listed = json.loads(run(UV, "pip", "list", "--format", "json", "--python", environment, cwd=tmp_path))
    installed = {each["name"] for each in listed}
    assert {name for name in installed if name.startswith("kaito")} == {"kaito-runtime"}
    assert installed & {"pytest", "mypy", "kubernetes-asyncio"} == set()
    (program,) = json.loads(entry.rest)
    assert (environment / program.removeprefix("/venv/")).is_file()


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with real_control_plane() as plane:
        yield plane


def as_service_account(kubeconfig: Path, folder: Path) -> Path:
    """A kubeconfig of the operator's account, which may do what the role of the chart allows."""
    document = yaml.safe_load(kubeconfig.read_text())
    document["users"][0]["user"]["as"] = f"system:serviceaccount:{NAME}:{NAME}"
    document["contexts"][0]["context"]["namespace"] = NAME
    (folder / "kubeconfig").write_text(yaml.safe_dump(document))
    return folder / "kubeconfig"


async def deploy(client: Client, files: Path) -> None:
    """Creates the definition and the role of the chart; the lease has a role of its own there."""
    await client.create(Namespace(metadata=ObjectMeta(name=NAME)))
    definition = yaml.safe_load((files / "crds" / "sites.example.com.yaml").read_text())
    await client.create(CustomResourceDefinition.model_validate(definition))
    role = ClusterRole.model_validate(yaml.safe_load((files / "cluster-role.yaml").read_text()))
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}
    for each in (role, ClusterRole.model_validate({"metadata": {"name": "leases"}, "rules": [leases]})):
        await client.create(each)
        await client.create(
            ClusterRoleBinding(
                metadata=ObjectMeta(name=each.name),
                role_ref=RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=each.name),
                subjects=[Subject(kind="ServiceAccount", name=NAME, namespace=NAME)],
            )
        )


async def ready_reason(client: Client, sample: dict[str, object]) -> str:
    """Creates the sample as soon as its kind is served, and waits for its condition."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await client.apply(Site.model_validate(sample).with_metadata(namespace="default"))
                site = await client.get(Site, "sample", "default")
            except NotFound:
                site = None
            for condition in site.status.conditions if site else []:
                if condition.type == "Ready":
                    return condition.reason
            await asyncio.sleep(0.1)


@pytest.mark.real
async def test_the_sample_becomes_ready_on_a_real_api_server(
    project: Made, control_plane: ControlPlane, tmp_path: Path
) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "SITE_OPERATOR_KUBECONFIG": str(as_service_account(control_plane.kubeconfig, tmp_path)),
        "SITE_OPERATOR_METRICS_BIND_ADDRESS": "0",
        "SITE_OPERATOR_HEALTH_PROBE_BIND_ADDRESS": "0",
    }
    async with connect(control_plane.kubeconfig, field_manager="test") as client:
        await deploy(client, project.folder / "chart" / "files")
        process = await asyncio.create_subprocess_exec(
            project.command(NAME), cwd=tmp_path, env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            sample = yaml.safe_load((project.folder / "samples" / "site.yaml").read_text())
            assert await ready_reason(client, sample) == "Applied"
            assert (await client.get(ConfigMap, "sample-site", "default")).data == {"text": "hello"}
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), SECONDS) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


# -- extended, and installed by its chart ----------------------------------------------------------------------------


class SiteSpec(Model):
    text: str = ""


class OldSite(Resource, api="example.com/v1beta1", kind="Site"):
    """The version that `add conversion` adds."""

    spec: SiteSpec = SiteSpec()


def rendered(chart: Path, namespace: str) -> list[dict[str, Any]]:
    """The objects of `helm template`, in Helm's order."""
    try:
        helm = locate("helm")
    except ToolUnavailable as reason:
        pytest.skip(str(reason))
    run(helm, "lint", chart, cwd=chart)
    text = run(helm, "template", NAME, chart, "--namespace", namespace, cwd=chart)
    return [document for document in yaml.safe_load_all(text) if document]


def by_url(document: dict[str, Any], port: int) -> dict[str, Any]:
    """Replaces Services of webhooks by the address of the process, which runs outside of the cluster."""
    spec = document.get("spec", {})
    entries = [*document.get("webhooks", []), spec.get("conversion", {}).get("webhook", {})]
    for entry in entries:
        config = entry.get("clientConfig", {})
        if service := config.pop("service", None):
            config["url"] = f"https://127.0.0.1:{port}{service['path']}"
    return document


async def install(client: Client, documents: list[dict[str, Any]], namespace: str) -> None:
    """`kubectl apply`; the Deployment is not needed, as the test runs the program."""
    await client.create(Namespace(metadata=ObjectMeta(name=namespace)))
    for document in documents:
        kind = untyped_kind(document["apiVersion"], document["kind"])
        if document["kind"] == "Deployment":
            assert document["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
        obj = kind.model_validate(document)
        is_namespaced = document["kind"] in {"Deployment", "Role", "RoleBinding", "Service", "ServiceAccount"}
        await client.apply(obj.with_metadata(namespace=namespace) if is_namespaced else obj)


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    """Waits until a function neither fails nor returns a false value."""
    last: Exception | None = None
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    if await holds():
                        return
                except ApiError as error:
                    last = error
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {SECONDS:g} s; last error: {last}") from last


@asynccontextmanager
async def discovering(kubeconfig: Path) -> AsyncGenerator[Client]:
    """A client that finds the plurals of kinds."""
    transport = HttpTransport(await find_cluster_config(kubeconfig))
    try:
        yield Client(transport, field_manager="test", discovery=ServerDiscovery(transport))
    finally:
        await transport.close()


@pytest.mark.real
async def test_an_extended_project_runs_with_the_roles_of_its_chart(project: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(project.folder, tmp_path / NAME, ignore=shutil.ignore_patterns(".venv"))
    tool = project.command("kaito-runtime")
    for words in (["kind", "example.com/v1/Page"], ["webhook", "Site"], ["conversion", "Site", "--version", "v1beta1"]):
        run(tool, "add", *words, cwd=folder)
    run(project.command("python"), "-m", "site_operator.chart", cwd=folder)
    role = "--write-role=chart/files/cluster-role.yaml"
    run(project.command("pytest"), "-q", "--ignore=tests/test_chart.py", role, cwd=folder)
    assert " passed" in run(project.command("pytest"), "-q", cwd=folder)
    assert "Success" in run(project.command("mypy"), cwd=folder)

    port = free_port()
    with ControlPlane() as plane:
        async with discovering(plane.kubeconfig) as client:
            documents = [by_url(document, port) for document in rendered(folder / "chart", NAME)]
            await install(client, documents, NAME)
            process = await asyncio.create_subprocess_exec(
                *(project.command("python"), "-m", "site_operator"),
                cwd=folder,
                env={
                    "PATH": os.environ["PATH"],
                    "SITE_OPERATOR_KUBECONFIG": str(as_service_account(plane.kubeconfig, tmp_path)),
                    "SITE_OPERATOR_METRICS_BIND_ADDRESS": "0",
                    "SITE_OPERATOR_HEALTH_PROBE_BIND_ADDRESS": "0",
                    "SITE_OPERATOR_WEBHOOK_BIND_ADDRESS": "127.0.0.1",
                    "SITE_OPERATOR_WEBHOOK_HOSTS": "127.0.0.1",
                    "SITE_OPERATOR_WEBHOOK_PORT": str(port),
                },
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                await serves(client)
                process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(process.wait(), SECONDS) == 0
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def serves(client: Client) -> None:
    """The conversion, the webhook and the controllers work."""
    old = OldSite(metadata=ObjectMeta(name="old", namespace="default"), spec=SiteSpec(text="from v1beta1"))
    await until(lambda: client.apply(old))

    async def is_ready() -> bool:
        site = await client.get(Site, "old", "default")
        return any(condition.is_true for condition in site.status.conditions)

    await until(is_ready)
    assert (await client.get(ConfigMap, "old-site", "default")).data == {"text": "from v1beta1"}
    with pytest.raises(ApiError, match="has 64 characters: choose at most 63"):
        await client.create(Site(metadata=ObjectMeta(name="a" * 64, namespace="default")))
