"""The wheel, installed into an empty environment: three commands, the catalogue's data, and no PyTorch."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")


def attempt(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run outside of the checkout, so that nothing is imported from it by accident."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command], cwd="/", env=environment, capture_output=True, text=True, check=False
    )


def run(*command: str | Path) -> str:
    """Run what must succeed; what it printed."""
    result = attempt(*command)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.timeout(240)
def test_an_empty_environment_gets_three_commands_without_torch(tmp_path: Path) -> None:
    for package in (ROOT, ROOT / "presets" / "config"):
        run(UV, "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", package)
    (wheel,) = (tmp_path / "dist").glob("kaito-*.whl")
    (schemas,) = (tmp_path / "dist").glob("kaito_config-*.whl")
    run(UV, "venv", "--quiet", tmp_path / "env")
    run(UV, "pip", "install", "--quiet", "--python", tmp_path / "env", schemas, wheel)
    binaries = tmp_path / "env" / "bin"
    for command in ("kaito", "workspace-controller", "gpu-provisioner"):
        assert run(binaries / command, "--version").startswith(f"{command} ")
    catalogue = "from kaito.models import catalogue; print(catalogue.get('phi-3-mini-4k-instruct').name)"
    assert "phi-3-mini-4k-instruct" in run(binaries / "python", "-c", catalogue)
    installed = run(UV, "pip", "list", "--python", tmp_path / "env")
    assert "torch" not in installed
    assert "azure" not in installed  # who embeds the framework needs none of it
    assert "kubernetes-asyncio" in installed
    which = ("--azure-subscription-id=s", "--azure-resource-group=g", "--azure-cluster=c")
    for name, *arguments in (("gpu-provisioner", *which), ("kaito", "up", "--folder", str(tmp_path / "kaito"))):
        refused = attempt(binaries / name, *arguments)
        assert refused.returncode == 1
        assert "pip install 'kaito[azure]'" in refused.stderr
