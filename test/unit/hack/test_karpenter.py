"""Karpenter for tests: built once, found in the cache, and its sizes are those of the catalog."""

import json
import os
from pathlib import Path

import pytest

from hack.karpenter import KARPENTER_VERSION, locate
from hack.karpenter.controller import INSTANCE_TYPES
from kaito.models.instance_types import find
from kaito.runtime.testing.envtest.binaries import Unavailable

GO = """#!/bin/sh
echo "$1" >> "$CALLS"
case "$1" in
  build) while [ "$1" != -o ]; do shift; done; echo binary > "$2";;
  list) echo "$MODULE";;
esac
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `go` that writes the binary and knows where the module is; returns the file of its calls."""
    module = tmp_path / "module"
    for part, name in (("pkg/apis/crds", "karpenter.sh_nodeclaims.yaml"), ("kwok/apis/crds", "kwok.yaml")):
        (module / part).mkdir(parents=True)
        (module / part / name).write_text("kind: CustomResourceDefinition\n")
    program = tmp_path / "bin" / "go"
    program.parent.mkdir()
    program.write_text(GO)
    program.chmod(0o755)
    calls = tmp_path / "calls"
    for variable, value in (("CALLS", calls), ("MODULE", module), ("XDG_CACHE_HOME", tmp_path / "cache")):
        monkeypatch.setenv(variable, str(value))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return calls


def test_it_is_built_once(go: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = locate()
    assert locate() == folder
    assert folder.name == KARPENTER_VERSION
    assert go.read_text().split() == ["build", "list"]
    assert sorted(path.name for path in (folder / "crds").iterdir()) == ["karpenter.sh_nodeclaims.yaml", "kwok.yaml"]
    assert "building Karpenter" in capsys.readouterr().err


def test_a_failed_build_is_explained_and_tried_again(go: Path) -> None:
    program = Path(os.environ["PATH"].split(os.pathsep)[0]) / "go"
    program.write_text("#!/bin/sh\necho 'no route to the module proxy' >&2\nexit 1\n")
    with pytest.raises(Unavailable, match="no route to the module proxy"):
        locate()
    program.write_text(GO)
    assert (locate() / "karpenter-kwok").read_text() == "binary\n"
    assert go.exists()


def test_without_go_the_message_contains_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="install Go"):
        locate()


def test_the_sizes_have_the_gpus_of_the_catalog() -> None:
    for size in json.loads(INSTANCE_TYPES.read_text()):
        known = find(size["name"])
        assert int(size["resources"].get("nvidia.com/gpu", 0)) == (known.gpus if known is not None else 0)
