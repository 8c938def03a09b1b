"""The distributions of the repository: one version, one owner for each module, and no undeclared dependency."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
VERSION = (ROOT / "VERSION").read_text().strip()

IMPORT_NAMES = {
    "azure-core": ("azure.core",),
    "azure-identity": ("azure.identity",),
    "azure-mgmt-compute": ("azure.mgmt.compute",),
    "azure-mgmt-containerservice": ("azure.mgmt.containerservice",),
    "aiohttp": ("aiohttp", "multidict", "yarl"),
    "cel-python": ("celpy",),
    "grpcio": ("grpc",),
    "opentelemetry-api": ("opentelemetry",),
    "opentelemetry-exporter-otlp-proto-http": ("opentelemetry.exporter.otlp.proto.http",),
    "opentelemetry-sdk": ("opentelemetry.sdk",),
    "protobuf": ("google.protobuf",),
    "kaito": (
        "kaito.api",
        "kaito.chat",
        "kaito.cli",
        "kaito.cloud",
        "kaito.diagnosis",
        "kaito.models",
        "kaito.planning",
        "kaito.prices",
        "kaito.provisioner",
        "kaito.workspace",
    ),
    "kaito-apiserver": ("kaito.apiserver",),
    "kaito-azure-simulator": ("kaito.cloud.azure.simulator",),
    "kaito-console": ("kaito.console",),
    "kaito-local": ("kaito.local",),
    "kaito-runtime": ("kaito.runtime",),
    "kaito-simulation": ("kaito.simulation",),
    "pydantic": ("pydantic", "pydantic_core"),
    "pyyaml": ("yaml",),
}
"""What a dependency lets a module import, where it is not its own name."""

OPTIONAL_IMPORTS = {
    "kaito": {"kaito.console", "kaito.local", "kaito.simulation"},  # the commands name the extra when it is missing
    "kaito-runtime": {"pytest"},  # only in the plugin, which pytest loads
}
"""Imports that need no declared dependency."""


@dataclass(frozen=True)
class Distribution:
    """One pyproject.toml and the modules that its wheel contains."""

    folder: Path

    @cached_property
    def settings(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text())

    @property
    def project(self) -> dict[str, Any]:
        found: dict[str, Any] = self.settings["project"]
        return found

    @property
    def name(self) -> str:
        return str(self.project["name"])

    @property
    def requirements(self) -> list[Requirement]:
        extras: dict[str, list[str]] = self.project.get("optional-dependencies", {})
        return [Requirement(line) for lines in (self.project["dependencies"], *extras.values()) for line in lines]

    def modules(self) -> Iterator[Path]:
        others = [other.folder for other in DISTRIBUTIONS if other.folder != self.folder]
        wheel = self.settings["tool"]["hatch"]["build"]["targets"]["wheel"]
        for top in wheel.get("only-include", wheel.get("packages", ["."])):
            for path in (self.folder / top).rglob("*.py"):
                owners = [folder for folder in others if folder.is_relative_to(self.folder)]
                if not any(path.is_relative_to(folder) for folder in owners):
                    yield path


WORKSPACE = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
DISTRIBUTIONS = [Distribution(ROOT), *(Distribution(ROOT / member) for member in WORKSPACE)]
IN_KAITO = [each for each in DISTRIBUTIONS if "presets" not in each.folder.relative_to(ROOT).parts]

each_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda each: each.name)
each_in_kaito = pytest.mark.parametrize("distribution", IN_KAITO, ids=lambda each: each.name)


def test_the_workspace_contains_every_pyproject() -> None:
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for top in ("kaito", "presets")
        for path in (ROOT / top).rglob("pyproject.toml")
        if ".venv" not in path.parts
    }
    assert found == set(WORKSPACE)
    assert {each.name for each in DISTRIBUTIONS} == {
        "kaito",
        "kaito-apiserver",
        "kaito-azure-simulator",
        "kaito-config",
        "kaito-console",
        "kaito-local",
        "kaito-oci",
        "kaito-presets",
        "kaito-runtime",
        "kaito-simulation",
    }


def test_kaito_is_a_namespace_package() -> None:
    assert not (ROOT / "kaito" / "__init__.py").exists(), "it would hide the packages of the other wheels"
    assert [path.name for path in (ROOT / "kaito").iterdir() if path.is_file()] == []


def test_each_module_belongs_to_one_distribution() -> None:
    owned = [path for distribution in IN_KAITO for path in distribution.modules()]
    assert sorted(owned) == sorted((ROOT / "kaito").rglob("*.py"))


@each_distribution
def test_the_version_is_that_of_the_version_file(distribution: Distribution) -> None:
    assert distribution.project["dynamic"] == ["version"]
    assert "version" not in distribution.project
    source = distribution.settings["tool"]["hatch"]["version"]
    assert (distribution.folder / source["path"]).resolve() == ROOT / "VERSION"
    found = re.search(source["pattern"], (ROOT / "VERSION").read_text())
    assert found is not None
    assert found["version"] == VERSION


@each_distribution
def test_the_ranges_between_distributions_contain_the_version(distribution: Distribution) -> None:
    names = {each.name for each in DISTRIBUTIONS}
    for requirement in distribution.requirements:
        if requirement.name in names and requirement.name != distribution.name:
            assert requirement.specifier.contains(VERSION, prereleases=True), requirement
            assert requirement.name in distribution.settings["tool"]["uv"]["sources"]


def test_the_manifests_deploy_the_images_of_this_version() -> None:
    manager = ROOT / "config" / "manager"
    images = yaml.safe_load((manager / "kustomization.yaml").read_text())["images"]
    assert {image["newTag"] for image in images} == {VERSION}
    tags = {
        match for path in manager.glob("*.yaml") for match in re.findall(r"image: kaito/[\w-]+:(\S+)", path.read_text())
    }
    assert tags == {VERSION}


@each_distribution
def test_a_distribution_has_its_license_and_readme(distribution: Distribution) -> None:
    assert distribution.project["license-files"] == ["LICENSE"]
    assert (distribution.folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (distribution.folder / distribution.project["readme"]).read_text().startswith("# ")


@each_in_kaito
def test_a_distribution_is_typed(distribution: Distribution) -> None:
    for path in distribution.modules():
        package = [
            folder for folder in path.parents if folder.is_relative_to(ROOT / "kaito") and folder != ROOT / "kaito"
        ]
        assert (package[-1] / "py.typed").is_file(), f"type checkers ignore the annotations of {path}"


@cache
def imported(path: Path) -> set[str]:
    """The names of the modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def provider_of(module: str) -> str:
    """The most specific distribution that a module comes from."""
    offers = [
        (len(package), name)
        for name, packages in IMPORT_NAMES.items()
        for package in packages
        if is_in(module, (package,))
    ]
    return max(offers)[1] if offers else canonicalize_name(module.partition(".")[0])


@each_in_kaito
def test_every_import_is_a_declared_dependency(distribution: Distribution) -> None:
    declared = {canonicalize_name(requirement.name) for requirement in distribution.requirements}
    optional = tuple(OPTIONAL_IMPORTS.get(distribution.name, set()))
    undeclared = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path in distribution.modules()
        for module in imported(path)
        if module.partition(".")[0] not in sys.stdlib_module_names
        and not is_in(module, optional)
        and provider_of(module) not in declared | {distribution.name}
    }
    assert undeclared == set()


@each_in_kaito
def test_every_dependency_is_imported(distribution: Distribution) -> None:
    used = {provider_of(module) for path in distribution.modules() for module in imported(path)}
    started = {
        "kaito": {"kaito-console", "kaito-local", "kaito-simulation"},  # the extras
        "kaito-azure-simulator": {"kaito"},  # the packages around it
        "kaito-local": {"kaito-azure-simulator"},  # as a program
        "kaito-runtime": {"kubernetes-asyncio"},  # by name, without its models
    }.get(distribution.name, set())
    declared = {canonicalize_name(requirement.name) for requirement in distribution.requirements}
    assert declared - used - started - {distribution.name} == set()


def locked(name: str) -> set[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", text, flags=re.MULTILINE))


def test_the_images_install_neither_test_server_nor_kubeconfig_reader() -> None:
    workspace, provisioner = locked("workspace"), locked("provisioner")
    keda = {"grpcio", "protobuf"}
    assert {"aiohttp", "pydantic", "structlog", *keda} <= workspace
    assert workspace - keda <= provisioner
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"} <= workspace & provisioner
    assert [name for name in workspace if name.startswith(("azure", "msal"))] == []
    assert [name for name in provisioner if name.startswith("azure-mgmt")] != []
    assert provisioner & {"cel-python", "kubernetes-asyncio", "pytest"} == set()
