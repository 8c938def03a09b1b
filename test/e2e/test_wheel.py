"""The wheels and the controllers' images, each in an empty environment: what is there, what is not, and what runs."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import zipfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from kaito.apiserver import ApiServer, serve
from kaito.runtime import Resource
from kaito.runtime.client import connect
from kaito.runtime.kinds import CustomResourceDefinition, Deployment
from test.support.dockerfiles import context_files, parse

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "memcached-operator"
UV = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")

FOLDERS = {
    "kaito": ROOT,
    "kaito-apiserver": ROOT / "kaito" / "apiserver",
    "kaito-azure-simulator": ROOT / "kaito" / "cloud" / "azure" / "simulator",
    "kaito-config": ROOT / "presets" / "config",
    "kaito-console": ROOT / "kaito" / "console",
    "kaito-local": ROOT / "kaito" / "local",
    "kaito-simulation": ROOT / "kaito" / "simulation",
    "kaito-oci": ROOT / "presets" / "oci",
    "kaito-presets": ROOT / "presets",
    "kaito-runtime": ROOT / "kaito" / "runtime",
    "memcached-operator": EXAMPLE,
}

pytestmark = pytest.mark.timeout(240)


class Memcached(Resource, api="cache.example.com/v1", kind="Memcached"):
    """The kind of the example, untyped."""


def attempt(*command: str | Path, cwd: Path = Path("/"), **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs outside of the checkout, so that nothing is imported from it by accident."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHONPATH", "PYTEST", "KUBE", "VIRTUAL_ENV"))
    }
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def run(*command: str | Path, cwd: Path = Path("/"), **variables: str) -> str:
    """Runs what must succeed; its output."""
    result = attempt(*command, cwd=cwd, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@dataclass(frozen=True)
class Environment:
    """A virtual environment that only this test installs into."""

    folder: Path

    def install(self, *requirements: str | Path) -> None:
        if not self.folder.exists():
            run(UV, "venv", "--quiet", self.folder)
        run(UV, "pip", "install", "--quiet", "--python", self.folder, *requirements)

    def command(self, name: str) -> Path:
        return self.folder / "bin" / name

    def python(self, program: str) -> str:
        return run(self.command("python"), "-c", program)

    def has(self, module: str) -> bool:
        program = f"""
from importlib.util import find_spec
try:
    print(find_spec({module!r}) is not None)
except ModuleNotFoundError:
    print(False)
"""
        return self.python(program).strip() == "True"

    def distributions(self) -> set[str]:
        listed = json.loads(run(UV, "pip", "list", "--format", "json", "--python", self.folder))
        return {each["name"] for each in listed}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One wheel of each distribution, built from its source distribution as an index would get it."""
    built: dict[str, Path] = {}
    for name, folder in FOLDERS.items():
        out = tmp_path_factory.mktemp(name)
        run(UV, "build", "--quiet", "--out-dir", out, folder)
        (built[name],) = out.glob("*.whl")
    return built


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "env")


def with_extras(wheel: Path, name: str, *extras: str) -> str:
    return f"{name}[{','.join(extras)}] @ {wheel.as_uri()}"


def test_no_two_wheels_contain_the_same_file(wheels: dict[str, Path]) -> None:
    owners: dict[str, str] = {}
    for name, wheel in wheels.items():
        with zipfile.ZipFile(wheel) as archive:
            for path in archive.namelist():
                assert path not in owners, f"{path} is in the wheels of {name} and {owners[path]}"
                owners[path] = name
    assert "kaito/__init__.py" not in owners
    assert owners["kaito/runtime/__init__.py"] == owners["kaito/runtime/py.typed"] == "kaito-runtime"
    assert owners["kaito/apiserver/data/builtin-schemas.json"] == "kaito-apiserver"
    assert owners["kaito/cloud/azure/simulator/__init__.py"] == "kaito-azure-simulator"
    version = (ROOT / "VERSION").read_text().strip()
    assert {wheel.name.split("-")[1] for wheel in wheels.values()} == {version}


def test_kaito_gets_three_commands_without_torch(wheels: dict[str, Path], environment: Environment) -> None:
    environment.install(wheels["kaito"], wheels["kaito-config"], wheels["kaito-oci"], wheels["kaito-runtime"])
    for command in ("kaito", "workspace-controller", "gpu-provisioner"):
        assert run(environment.command(command), "--version").startswith(f"{command} ")
    catalog = "from kaito.models import catalog; print(catalog.get('phi-3-mini-4k-instruct').name)"
    assert "phi-3-mini-4k-instruct" in environment.python(catalog)
    installed = environment.distributions()
    own = {"kaito", "kaito-config", "kaito-oci", "kaito-runtime"}
    assert {name for name in installed if name.startswith("kaito")} == own
    assert [name for name in installed if "torch" in name or "azure" in name] == []
    assert "kubernetes-asyncio" not in installed
    which = ("--azure-subscription-id=s", "--azure-resource-group=g", "--azure-cluster=c")
    for extra, name, *arguments in (
        ("azure", "gpu-provisioner", *which),
        ("local", "kaito", "up", "--folder", str(environment.folder / "kaito")),
    ):
        refused = attempt(environment.command(name), *arguments)
        assert refused.returncode == 1
        assert f"pip install 'kaito[{extra}]'" in refused.stderr


def test_the_local_extra_installs_the_local_cluster(wheels: dict[str, Path], environment: Environment) -> None:
    local = with_extras(wheels["kaito"], "kaito", "local")
    environment.install(
        local,
        *(wheel for name, wheel in wheels.items() if name not in {"kaito", "kaito-presets", "memcached-operator"}),
    )
    assert environment.distributions() >= {"azure-mgmt-compute", "kaito-local", "kubernetes-asyncio"}
    assert "--speed" in run(environment.command("python"), "-m", "kaito.cloud.azure.simulator", "--help")
    assert environment.python("from kaito.local.up import up; print(up.__name__)").strip() == "up"


@asynccontextmanager
async def api_server(tmp_path: Path) -> AsyncGenerator[tuple[str, Path]]:
    """An API server with the example's kind: its address, and a kubeconfig for it."""
    async with serve(ApiServer()) as listening:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(listening.kubeconfig()))
        document = yaml.safe_load((EXAMPLE / "deploy" / "crd.yaml").read_text())
        async with connect(kubeconfig, field_manager="test") as client:
            await client.create(CustomResourceDefinition.model_validate(document))
        yield listening.url, kubeconfig


async def reconciles_a_memcached(kubeconfig: Path, *command: str | Path, **variables: str) -> None:
    """Runs an operator and waits until it has created the Deployment of a Memcached."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd="/", env={"PATH": os.environ["PATH"]} | variables, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with connect(kubeconfig, field_manager="test") as client, asyncio.timeout(30):
            memcached = Memcached.model_validate({"metadata": {"name": "sessions", "namespace": "default"}})
            await client.create(memcached)
            while await client.find(Deployment, "sessions", "default") is None:
                assert process.returncode is None, (await process.communicate())[1].decode()
                await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, errors.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_framework_alone_runs_the_operator_of_the_tutorial(
    wheels: dict[str, Path], environment: Environment, tmp_path: Path
) -> None:
    environment.install(wheels["kaito-runtime"], wheels["memcached-operator"])
    installed = environment.distributions()
    assert {name for name in installed if name.startswith("kaito")} == {"kaito-runtime"}
    assert installed & {"cel-python", "kubernetes-asyncio", "pytest"} == set()
    definition = run(environment.command("python"), "-m", "memcached_operator.api")
    assert definition == (EXAMPLE / "deploy" / "crd.yaml").read_text()
    async with api_server(tmp_path) as (url, kubeconfig):
        await reconciles_a_memcached(
            kubeconfig, environment.command("python"), ROOT / "test" / "support" / "operator_by_url.py", url
        )
        refused = attempt(environment.command("memcached-operator"), KUBECONFIG=str(kubeconfig))
    assert refused.returncode == 1
    assert "pip install 'kaito-runtime[kubeconfig]'" in refused.stderr
    untested = attempt(environment.command("python"), "-c", "from kaito.runtime.testing import World")
    assert untested.stderr.endswith("pip install 'kaito-runtime[testing]'\n")


async def test_the_extras_run_the_tests_of_the_tutorial_and_read_a_kubeconfig(
    wheels: dict[str, Path], environment: Environment, tmp_path: Path
) -> None:
    example = with_extras(wheels["memcached-operator"], "memcached-operator", "test")
    environment.install(wheels["kaito-runtime"], wheels["kaito-apiserver"], example)
    names = {name for name in environment.distributions() if name.startswith("kaito")}
    assert names == {"kaito-apiserver", "kaito-runtime"}
    shutil.copytree(EXAMPLE / "tests", tmp_path / "example" / "tests")
    shutil.copytree(EXAMPLE / "deploy", tmp_path / "example" / "deploy")
    shutil.copy(EXAMPLE / "pyproject.toml", tmp_path / "example")
    tested = run(environment.command("pytest"), "-q", "-p", "no:cacheprovider", cwd=tmp_path / "example")
    assert re.search(r"^\d+ passed", tested, flags=re.MULTILINE)
    async with api_server(tmp_path) as (_, kubeconfig):
        await reconciles_a_memcached(
            kubeconfig,
            environment.command("memcached-operator"),
            KUBECONFIG=str(kubeconfig),
            MEMCACHED_METRICS_BIND_ADDRESS="0",
            MEMCACHED_HEALTH_PROBE_BIND_ADDRESS="0",
        )


# -- the controllers' images -----------------------------------------------------------------------------------------


def build_context(dockerfile: Path, folder: Path) -> Path:
    """Copies the files that a build of the image receives."""
    for name in context_files(dockerfile):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def build_image(dockerfile: Path, context: Path, environment: Environment) -> None:
    """Executes the COPY and `uv` instructions of the first stage, with another folder for /src and for /opt/kaito."""
    source = environment.folder.parent / "src"
    source.mkdir()
    for instruction in parse(dockerfile.read_text()).stages[0].instructions:
        if instruction.name == "COPY":
            *names, target = instruction.words
            for name in names:
                into = source / target / Path(name).name if target.endswith("/") else source / target
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(context / name, into) if (context / name).is_dir() else shutil.copy(
                    context / name, into
                )
        elif instruction.name == "RUN" and not instruction.rest.startswith("pip install"):  # that one installs uv
            script = instruction.rest.replace("/opt/kaito", str(environment.folder))
            run("bash", "-ec", f'uv() {{ {shlex.quote(UV)} "$@"; }}\n{script}', cwd=source)
    shutil.rmtree(source)


@pytest.mark.parametrize(
    ("image", "command"), [("workspace", "workspace-controller"), ("provisioner", "gpu-provisioner")]
)
def test_an_image_contains_its_controller_and_nothing_for_tests(
    image: str, command: str, environment: Environment, tmp_path: Path
) -> None:
    dockerfile = ROOT / f"Dockerfile.{image}"
    build_image(dockerfile, build_context(dockerfile, tmp_path / "context"), environment)
    installed = environment.distributions()
    packages = {name for name in installed if name.startswith("kaito")}
    reader = {"kaito-oci"} if image == "workspace" else set[str]()  # reads the facts of models from artifacts
    assert packages - {"kaito-config"} == {"kaito", "kaito-runtime"} | reader
    other = "provisioner" if image == "workspace" else "workspace"
    absent = (
        "kaito.apiserver",
        "kaito.cli",
        "kaito.cloud.azure.simulator",
        "kaito.console",
        "kaito.local",
        "kaito.planning",
        "kaito.simulation",
        "kaito.runtime.testing",
    )
    for module in (*absent, f"kaito.{other}"):
        assert not environment.has(module), f"{module} is in the image"
    programs = {path.name for path in environment.folder.joinpath("bin").iterdir()}
    assert programs & {"kaito", "workspace-controller", "gpu-provisioner"} == {command}
    assert installed & {"cel-python", "kubernetes-asyncio", "pytest", "torch"} == set()
    assert environment.has("azure.mgmt.compute") == (image == "provisioner")
    assert run(environment.command(command), "--version").startswith(f"{command} ")
    modules = f"""
import kaito.{image}.main, pkgutil
import kaito.{image} as package
from importlib import import_module
for each in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    import_module(each.name)
"""
    environment.python(modules)
    flags = [f"--azure-{name}=x" for name in ("subscription-id", "resource-group", "cluster")]
    outside = attempt(environment.command(command), *(flags if image == "provisioner" else []), HOME=str(tmp_path))
    assert outside.returncode == 1
    assert "not in a pod" in outside.stderr


def test_the_image_of_the_console_contains_what_it_shows_and_no_controller(
    environment: Environment, tmp_path: Path
) -> None:
    dockerfile = ROOT / "kaito" / "console" / "Dockerfile"
    build_image(dockerfile, build_context(dockerfile, tmp_path / "context"), environment)
    installed = environment.distributions()
    assert {name for name in installed if name.startswith("kaito")} - {"kaito-config", "kaito-oci"} == {
        "kaito",
        "kaito-console",
        "kaito-runtime",
    }
    for module in ("kaito.apiserver", "kaito.local", "kaito.provisioner", "kaito.simulation", "kaito.runtime.testing"):
        assert not environment.has(module), f"{module} is in the image"
    programs = {path.name for path in environment.folder.joinpath("bin").iterdir()}
    assert programs & {"kaito", "workspace-controller", "gpu-provisioner", "kubectl-kaito"} == {"kaito"}
    modules = """
import kaito.console, pkgutil
from importlib import import_module
for each in pkgutil.walk_packages(kaito.console.__path__, "kaito.console."):
    import_module(each.name)
"""
    environment.python(modules)
    assert "--in-cluster" in run(environment.command("kaito"), "console", "--help")
    outside = attempt(environment.command("kaito"), "console", "--in-cluster", "--port=0", HOME=str(tmp_path))
    assert outside.returncode == 1
    assert "not in a pod" in outside.stderr
