"""Builds the programs of a cluster with Go, once, into a cache outside of the working tree.

Kubernetes, containerd and CoreDNS come from Go modules of this repository that pin them; the registry is installed by
version. etcd and kube-apiserver are those of `hack.envtest`. A cold build of everything takes 15 to 25 minutes on two
cores.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Container, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hack.cache import locked
from hack.cluster.layout import binaries_folder
from hack.envtest.binaries import HERE as ENVTEST, KUBERNETES_VERSION, locate
from kaito.runtime.testing.envtest.binaries import ESSENTIAL, Unavailable

_HERE = Path(__file__).parent
_REGISTRY = "github.com/distribution/distribution/v3/cmd/registry@v3.0.0"
_CONTAINERD = "github.com/containerd/containerd/v2"
_CONTAINERD_VERSION = "v2.3.7"
_PROGRESS_SECONDS = 20.0


@dataclass(frozen=True)
class Program:
    """A program and how it is built.

    Args:
        name: File name of the program.
        module: Folder of the Go module that pins its version; None to install `package`, which then ends in a version.
        package: Go package of the program.
        definitions: Variables that the linker sets, such as versions.
        tags: Build tags, comma-separated.
    """

    name: str
    module: Path | None
    package: str
    definitions: tuple[str, ...] = ()
    tags: str = ""

    @property
    def path(self) -> Path:
        """Where the built program lies."""
        return binaries_folder() / self.name


def _kubernetes(name: str) -> Program:
    # Unstamped, a component reports version v0.0.0 and refuses to enable its features.
    _, minor, _ = KUBERNETES_VERSION.split(".")
    stamp = "k8s.io/component-base/version"
    definitions = (f"{stamp}.gitVersion={KUBERNETES_VERSION}", f"{stamp}.gitMajor=1", f"{stamp}.gitMinor={minor}")
    return Program(name, ENVTEST / "control-plane", f"k8s.io/kubernetes/cmd/{name}", definitions)


def _containerd(name: str) -> Program:
    definitions = (f"{_CONTAINERD}/version.Version={_CONTAINERD_VERSION}",)
    tags = "no_btrfs,no_devmapper,no_zfs,no_tracing"
    return Program(name, _HERE / "containerd", f"{_CONTAINERD}/cmd/{name}", definitions, tags)


PROGRAMS = (
    Program("pause", _HERE / "pause", "."),
    Program("registry", None, _REGISTRY),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    Program("coredns", _HERE / "coredns", "."),
    _kubernetes("kube-proxy"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-controller-manager"),
)


def path(name: str) -> Path:
    """Returns the path of a program, of this cache or of `hack.envtest`; does not build it."""
    return locate((name,)) / name if name in ESSENTIAL else binaries_folder() / name


def missing() -> list[Program]:
    """Returns the programs that are not built."""
    return [program for program in PROGRAMS if not program.path.is_file()]


def build(report: Callable[[str], None], names: Container[str] | None = None) -> None:
    """Builds every program that is missing, with a line of progress at least every 20 s.

    Args:
        report: prints a line.
        names: the programs that are needed beside etcd and kube-apiserver; all by default.

    Raises:
        Unavailable: a build failed, or Go is not installed.
    """
    with locked(binaries_folder()):
        _build_control_plane(report)
        programs = [program for program in missing() if names is None or program.name in names]
        for number, program in enumerate(programs, start=1):
            _build(program, f"[{number}/{len(programs)}] {program.name}", report)


def _build_control_plane(report: Callable[[str], None]) -> None:
    if not os.environ.get("KUBEBUILDER_ASSETS"):
        report("kube-apiserver and etcd: built by hack.envtest, if they are missing")
    locate()


def _build(program: Program, label: str, report: Callable[[str], None]) -> None:
    if shutil.which("go") is None:
        raise Unavailable(f"{program.name} is not built, and building it needs Go")
    begun = time.monotonic()
    with _scratch(program) as scratch:
        process = subprocess.Popen(
            _command(program, scratch),
            cwd=program.module or _HERE,
            env={
                **os.environ,
                "CGO_ENABLED": "0",
                "GOBIN": str(scratch),
                "GOFLAGS": f"-mod={'readonly' if program.module else 'mod'} -buildvcs=false",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        report(f"{label}: building")
        while True:
            try:
                output, _ = process.communicate(timeout=_PROGRESS_SECONDS)
                break
            except subprocess.TimeoutExpired:
                report(f"{label}: building for {time.monotonic() - begun:.0f} s")
        if process.returncode != 0:
            raise Unavailable(f"building {program.name} with Go failed: {output.strip()[-600:]}")
        (scratch / program.name).rename(program.path)
    report(f"{label}: built in {time.monotonic() - begun:.0f} s")


def _command(program: Program, scratch: Path) -> list[str]:
    linker = "-s -w " + " ".join(f"-X {definition}" for definition in program.definitions)
    flags = ["-trimpath", "-tags", program.tags, "-ldflags", linker.strip()]
    if program.module is None:
        return ["nice", "go", "install", *flags, program.package]
    return ["nice", "go", "build", *flags, "-o", str(scratch / program.name), program.package]


@contextmanager
def _scratch(program: Program) -> Generator[Path]:
    folder = binaries_folder() / f".{program.name}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
