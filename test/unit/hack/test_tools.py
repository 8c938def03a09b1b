"""`hack.tools`: which installed tools are used, and how missing ones are built."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from hack import tools
from hack.tools import TOOLS, Unavailable, find, is_suitable, locate, parse_version


@pytest.fixture(autouse=True)
def no_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()


def install(folder: Path, name: str) -> Path:
    program = folder / "bin" / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


class Go:
    """Answers the commands that `hack.tools` runs; a build writes the program."""

    def __init__(self, *, version: str = "", fails: bool = False) -> None:
        self.version, self.fails = version, fails
        self.builds: list[list[str]] = []

    def __call__(self, command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        if command[0] != "go":
            return subprocess.CompletedProcess(command, 0, self.version, "")
        self.builds.append(command)
        if self.fails:
            return subprocess.CompletedProcess(command, 1, "", "no required module provides the package")
        Path(options["env"]["GOBIN"], "program").write_text("built")
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("v3.22.0+g1234", "v3.22.0"),
        ("promtool, version 3.16.0 (branch: , revision: unknown)", "v3.16.0"),
        ("Version:        1.3.6\nGo version:     go1.26.8", "v1.3.6"),
        ("unknown", None),
    ],
)
def test_the_version_is_read_from_the_output(output: str, version: str | None) -> None:
    assert parse_version(output) == version


@pytest.mark.parametrize(
    ("version", "suitable"),
    [("v3.17.0", True), ("v3.9.9", False), ("v3.30.1", True), ("v4.0.0", False), ("v2.17.0", False), (None, False)],
)
def test_a_tool_on_path_needs_the_major_version_and_the_minimum(version: str | None, suitable: bool) -> None:
    assert is_suitable(TOOLS["helm"], version) is suitable


def test_a_suitable_tool_on_path_is_used(tmp_path: Path) -> None:
    program, go = install(tmp_path, "helm"), Go(version="v3.18.4")
    assert locate("helm", go) == program
    assert go.builds == []


def test_a_missing_or_old_tool_is_built_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(tmp_path, "helm")
    install(tmp_path, "go")
    go = Go(version="v3.2.0")
    assert find(TOOLS["helm"], go) is None
    built = locate("helm", go)
    assert built == locate("helm", go) == find(TOOLS["helm"], go)
    assert built.read_text() == "built"
    assert (tools.cache_directory() / "bin" / "helm").resolve() == built.resolve()
    (command,) = go.builds
    assert command[-1] == "helm.sh/helm/v3/cmd/helm@v3.22.0"
    assert "-tags" not in command
    assert "building helm v3.22.0 with Go (once; about 5 min on one core)" in capsys.readouterr().err


def test_service_discovery_of_the_clouds_is_left_out_of_prometheus(tmp_path: Path) -> None:
    install(tmp_path, "go")
    go = Go()
    locate("prometheus", go)
    command = go.builds[0]
    assert command[command.index("-tags") + 1] == "remove_all_sd,enable_kubernetes_sd"


def test_without_go_the_message_names_the_remedy() -> None:
    with pytest.raises(
        Unavailable, match=r"helm v3\.22\.0 is not installed: install helm v3\.17\.0 or newer, or Go to build it"
    ):
        locate("helm", Go())


def test_a_failed_build_reports_the_error_of_go(tmp_path: Path) -> None:
    install(tmp_path, "go")
    with pytest.raises(Unavailable, match=r"building oras v1\.3\.6 with Go failed: no required module"):
        locate("oras", Go(fails=True))
    assert list(tools.cache_directory().glob("oras-*")) == []


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(Unavailable, match="unknown tool 'kubectl'; known: helm, promtool"):
        locate("kubectl")
