"""`hack.check.wheels`: a package without a wheel on one architecture is reported."""

from pathlib import Path

import pytest

from hack.check.wheels import PLATFORMS, main, missing


@pytest.fixture
def uv(tmp_path: Path) -> Path:
    """A resolver that lacks a wheel of vLLM on ARM64, and logs how it is called."""
    program = tmp_path / "uv"
    script = f"""#!/bin/sh
echo "$*" >> {tmp_path}/calls
case "$*" in *aarch64*vllm.txt*) echo "error: llguidance has no usable wheels" >&2; exit 1;; esac
"""
    program.write_text(script)
    program.chmod(0o755)
    return program


def test_a_missing_wheel_is_reported_with_file_and_platform(
    uv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert missing("requirements/vllm.txt", PLATFORMS[0], uv) == []
    expected = f"requirements/vllm.txt on {PLATFORMS[1]}: error: llguidance has no usable wheels"
    assert missing("requirements/vllm.txt", PLATFORMS[1], uv) == [expected]
    assert main(uv) == 1
    assert capsys.readouterr().out == f"{expected}\n"
    calls = (tmp_path / "calls").read_text()
    for name in ("workspace", "provisioner", "presets-tuning", "vllm", "build"):
        for platform in PLATFORMS:
            assert f"{platform} --target" in calls
            assert f"-r requirements/{name}.txt" in calls
    assert {"--require-hashes", "--only-binary"} <= set(calls.split())
