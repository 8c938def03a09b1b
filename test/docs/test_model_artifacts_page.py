"""`docs/guides/model-artifacts.md`: every shell line of the page runs, with a registry and a hub on this machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hack.tools import Unavailable, locate
from test.support.codeblocks import code_blocks
from test.support.model_hub import Repository, serving_hub
from test.support.model_registry import LOADED, model_directory, model_registry

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guides" / "model-artifacts.md"

pytestmark = pytest.mark.timeout(300)


def test_every_command_of_the_page_runs(tmp_path: Path) -> None:
    lines = [line for block in code_blocks(PAGE) if block.language == "sh" for line in block.code.splitlines()]
    assert len(lines) >= 11
    model_directory(tmp_path / "my-model")
    hub = Repository(model_directory(tmp_path / "hub"), name="HuggingFaceTB/SmolLM2-135M-Instruct")
    with model_registry() as registry, serving_hub(hub):
        environment = os.environ | {
            "HF_ENDPOINT": hub.address,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "XDG_DATA_HOME": str(tmp_path / "data"),
            "HOME": str(tmp_path),
        }
        printed: dict[str, str] = {}
        for line in lines:
            if line.startswith("pip install "):  # test/e2e/test_wheel.py installs the extra
                continue
            command = line.replace("registry.example.com", registry.address)
            command = re.sub(r"^kaito ", f"{Path(sys.executable).with_name('kaito')} ", command)
            if command.startswith("oras "):
                try:
                    command = f"{locate('oras')} {command.removeprefix('oras ')} --plain-http"
                except Unavailable:
                    break  # the last two lines; test/e2e/test_model_artifacts.py needs it too
            result = subprocess.run(
                command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
            printed[line] = result.stdout
        else:
            assert sorted(path.name for path in (tmp_path / "archives").iterdir()) == LOADED
        assert {path for path in registry.manifests if ":" not in path} == {"1", "latest"}
    for name in LOADED:
        assert (tmp_path / "pulled" / name).read_bytes() == (tmp_path / "my-model" / name).read_bytes()
    (image,) = (output for line, output in printed.items() if line.startswith("kaito model image"))
    assert f"{registry.address}/models/phi-4-mini-instruct:" in image
