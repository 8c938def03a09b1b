"""Model artifacts with a real registry and the real ORAS: what one side writes, the other reads."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hack.tools import Unavailable, locate
from test.support.model_registry import LOADED, model_directory

ROOT = Path(__file__).resolve().parents[2]
RAW = "application/vnd.cncf.model.weight.v1.raw"

pytestmark = pytest.mark.timeout(600)  # the registry and ORAS are built once


def real_registry() -> ModuleType:
    """The helper of the presets' tests that builds the registry of the distribution project."""
    spec = importlib.util.spec_from_file_location("real_registry", ROOT / "presets" / "test" / "real_registry.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks the module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    helper = real_registry()
    program = helper.registry_command()
    if program is None:
        pytest.skip("no registry: neither docker-registry, KAITO_TEST_REGISTRY nor Go is on this machine")
    with helper.running(program, tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def oras() -> str:
    try:
        return str(locate("oras"))
    except Unavailable as reason:
        pytest.skip(str(reason))


def run(*command: str | Path, cwd: Path | None = None) -> str:
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def kaito(*arguments: str | Path) -> str:
    return run(Path(sys.executable).with_name("kaito"), "model", *arguments)


def test_a_packed_model_returns_unchanged_and_oras_reads_it(registry: str, oras: str, tmp_path: Path) -> None:
    model = model_directory(tmp_path / "model", bytes_of_weights=20_000_000)
    name, store = f"{registry}/models/tiny:1", tmp_path / "store"
    kaito("pack", model, name, "--store", store)
    kaito("push", name, "--store", store)
    direct = kaito("pack", model, f"{registry}/models/direct:1", "--push")
    assert direct.rpartition("@")[2].strip() in kaito("push", name, "--store", store)
    kaito("pull", name, tmp_path / "out")
    run(oras, "pull", "--plain-http", name, "--output", tmp_path / "oras")
    run(oras, "pull", "--oci-layout-path", store, name, "--output", tmp_path / "stored")
    for folder in (tmp_path / "oras", tmp_path / "stored"):
        assert sorted(path.name for path in folder.iterdir()) == [f"{each}.tar" for each in LOADED]
        for each in LOADED:
            run("tar", "-xf", f"{each}.tar", cwd=folder)
    for read in ("out", "oras", "stored"):
        for each in LOADED:
            assert (tmp_path / read / each).read_bytes() == (model / each).read_bytes(), f"{read}/{each}"
    manifest = json.loads(run(oras, "manifest", "fetch", "--plain-http", "--platform", "linux/arm64", name))
    assert manifest["annotations"]["sh.kaito.model.dtype"] == "bfloat16"


def test_an_artifact_that_oras_pushed_is_pulled(registry: str, oras: str, tmp_path: Path) -> None:
    model = model_directory(tmp_path / "model")
    name = f"{registry}/models/modelpack:1"
    artifact = "--artifact-type=application/vnd.cncf.model.manifest.v1+json"
    files = [f"{each}:{RAW}" for each in ("config.json", "model.safetensors")]
    run(oras, "push", "--plain-http", artifact, name, *files, cwd=model)
    kaito("pull", name, tmp_path / "out")
    for each in ("config.json", "model.safetensors"):
        assert (tmp_path / "out" / each).read_bytes() == (model / each).read_bytes()
    described = json.loads(kaito("inspect", name, "--json"))
    assert [file["name"] for file in described["files"]] == ["config.json", "model.safetensors"]
