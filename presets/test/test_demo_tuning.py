"""The demonstration is the acceptance test of tuning: data, qlora, image, adapter, answer, by the real commands."""

import subprocess
import sys
from pathlib import Path

import pytest
from real_registry import registry_command

SCRIPT = Path(__file__).parent.parent / "demo_tuning.py"


@pytest.mark.tuning
@pytest.mark.registry
@pytest.mark.timeout(600)
def test_tuned_completion_appears_at_strength_1_and_not_at_0() -> None:
    if registry_command() is None:
        pytest.skip("no registry: neither docker-registry, KAITO_TEST_REGISTRY nor Go is on this machine")
    result = subprocess.run([sys.executable, SCRIPT], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 of 4 answers known at strength 1.0, 0 at 0.0" in result.stdout
