"""Locates the Go programs that the tests run: on PATH, in the user's cache, or built once.

python -m hack.tools helm                 print the path of helm; builds it if it is missing
python -m hack.tools helm promtool        several of them, one path per line
python -m hack.tools --list               print name, version and state of each
python -m hack.tools --missing helm       print one line for each named tool that is missing; build nothing

A tool on PATH is used if it has the pinned major version and is not older than `minimum`. Otherwise the pinned version
is built with Go from the module proxy, verified by Go's checksum database, and kept in `~/.cache/kaito/tools`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hack.cache import cache_folder, locked

Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Unavailable(RuntimeError):
    """A tool is neither on PATH nor in the cache and cannot be built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A Go program with its pinned version."""

    name: str
    package: str
    """Import path of the main package."""
    version: str
    """Version of the module that contains the package, such as `v3.22.0`."""
    version_arguments: tuple[str, ...]
    """Arguments that print the version."""
    minimum: str
    """Oldest version on PATH that is used instead of a build."""
    seconds: int
    """Duration of a build on one core with an empty build cache, for the progress line."""
    tags: str = ""
    link_flags: str = ""


_PROMETHEUS: Final = "github.com/prometheus/prometheus"
_PROMETHEUS_VERSION: Final = "v0.316.0"
_VERSION_PACKAGE: Final = "github.com/prometheus/common/version"

TOOLS: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (
        Tool(
            name="helm",
            package="helm.sh/helm/v3/cmd/helm",
            version="v3.22.0",
            version_arguments=("version", "--short"),
            minimum="v3.17.0",  # helm install --take-ownership
            seconds=300,
            # Without the Kubernetes version, `helm template` and `helm lint` assume 1.20 and reject the charts.
            link_flags="-X helm.sh/helm/v3/internal/version.version=v3.22.0"
            " -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=35"
            " -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=35",
        ),
        # Modules of Prometheus 3.x are numbered v0.3xx. The tags leave out service discovery of the clouds; without the
        # tag builtinassets the web interface is not embedded.
        Tool(
            name="promtool",
            package=f"{_PROMETHEUS}/cmd/promtool",
            version=_PROMETHEUS_VERSION,
            version_arguments=("--version",),
            minimum="v3.0.0",
            seconds=240,
            tags="remove_all_sd",
            link_flags=f"-X {_VERSION_PACKAGE}.Version=3.16.0",
        ),
        Tool(
            name="prometheus",
            package=f"{_PROMETHEUS}/cmd/prometheus",
            version=_PROMETHEUS_VERSION,
            version_arguments=("--version",),
            minimum="v3.0.0",
            seconds=240,
            tags="remove_all_sd,enable_kubernetes_sd",
            link_flags=f"-X {_VERSION_PACKAGE}.Version=3.16.0",
        ),
        Tool(
            name="oras",
            package="oras.land/oras/cmd/oras",
            version="v1.3.6",
            version_arguments=("version",),
            minimum="v1.2.0",
            seconds=60,
        ),
        Tool(
            name="kustomize",
            package="sigs.k8s.io/kustomize/kustomize/v5",
            version="v5.8.1",
            version_arguments=("version",),
            minimum="v5.4.0",
            seconds=60,
            link_flags="-X sigs.k8s.io/kustomize/api/provenance.version=v5.8.1",
        ),
    )
}


def cache_directory() -> Path:
    """Folder of built tools; `bin` in it contains a link to each."""
    return cache_folder("tools")


def find(tool: Tool, run: Run = subprocess.run) -> Path | None:
    """Returns the path of a tool on PATH or in the cache, or None if it would have to be built."""
    on_path = shutil.which(tool.name)
    if on_path is not None and is_suitable(tool, _version_of(on_path, tool, run)):
        return Path(on_path)
    built = _built(tool)
    return built if built.is_file() else None


def locate(name: str, run: Run = subprocess.run) -> Path:
    """Returns the path of a tool, and builds it if it is missing.

    Raises:
        Unavailable: the name is unknown, Go is not installed, or the build failed.
    """
    tool = TOOLS.get(name)
    if tool is None:
        raise Unavailable(f"unknown tool {name!r}; known: {', '.join(TOOLS)}")
    found = find(tool, run)
    if found is not None:
        return found
    if shutil.which("go") is None:
        raise Unavailable(
            f"{name} {tool.version} is not installed: install {name} {tool.minimum} or newer, or Go to build it"
        )
    folder = cache_directory()
    with locked(folder, f".{name}.lock"):
        if not _built(tool).is_file():
            _build(tool, folder, run)
    return _built(tool)


def is_suitable(tool: Tool, version: str | None) -> bool:
    """Reports whether a version has the pinned major version and is not older than the minimum."""
    if version is None:
        return False
    found, minimum = _numbers(version), _numbers(tool.minimum)
    return found[0] == minimum[0] and found >= minimum


def parse_version(text: str) -> str | None:
    """Returns the first `1.2.3` or `v1.2.3` of a program's output, or None."""
    match = re.search(r"\bv?(\d+\.\d+\.\d+)\b", text)
    return f"v{match[1]}" if match else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("v").split("."))


def _version_of(program: str, tool: Tool, run: Run) -> str | None:
    try:
        result = run([program, *tool.version_arguments], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(result.stdout + result.stderr) if result.returncode == 0 else None


def _built(tool: Tool) -> Path:
    return cache_directory() / f"{tool.name}-{tool.version}" / tool.name


def _build(tool: Tool, folder: Path, run: Run) -> None:
    minutes = max(1, round(tool.seconds / 60))
    _report(f"building {tool.name} {tool.version} with Go (once; about {minutes} min on one core)")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{tool.name}-") as scratch:
        command = ["go", "install", "-trimpath", "-ldflags", f"-s -w {tool.link_flags}".strip()]
        if tool.tags:
            command += ["-tags", tool.tags]
        result = run(
            [*command, f"{tool.package}@{tool.version}"],
            cwd=scratch,  # outside of any Go module
            env={**os.environ, "CGO_ENABLED": "0", "GOBIN": scratch, "GOFLAGS": "-buildvcs=false"},
            capture_output=True,
            text=True,
            check=False,
        )
        # Go names the program after the last element of the package path without the major version.
        program = next((path for path in Path(scratch).iterdir() if path.is_file()), None)
        if result.returncode != 0 or program is None:
            raise Unavailable(f"building {tool.name} {tool.version} with Go failed: {result.stderr.strip()[-600:]}")
        target = _built(tool)
        target.parent.mkdir(parents=True, exist_ok=True)
        program.replace(target)
    _link(target, folder / "bin" / tool.name)
    _report(f"built {target} in {time.monotonic() - started:.0f} s")


def _link(target: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(Path("..") / target.parent.name / target.name)
    partial.replace(link)


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Prints paths, or what is missing, and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.tools", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"one of {', '.join(TOOLS)}")
    parser.add_argument("--list", action="store_true", help="print name, version and state of each tool")
    parser.add_argument("--missing", action="store_true", help="print what would be built, and build nothing")
    options = parser.parse_args()
    unknown = [name for name in options.tools if name not in TOOLS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(TOOLS)}")
    if options.list:
        for tool in TOOLS.values():
            print(f"{tool.name:<11} {tool.version:<9} {find(tool) or 'not built'}")
        return 0
    if not options.tools:
        parser.error(f"name a tool: {', '.join(TOOLS)}")
    if options.missing:
        for name in options.tools:
            if find(TOOLS[name]) is None:
                print(f"{name} {TOOLS[name].version}: not on PATH and not in {cache_directory()}")
        return 0
    try:
        for name in options.tools:
            print(locate(name))
    except Unavailable as error:
        _report(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
