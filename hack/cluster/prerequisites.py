"""Checks whether this machine can run a cluster, and states in one line what is missing."""

import os
import shutil
from pathlib import Path

from hack.cluster import binaries, network
from kaito.runtime.testing.envtest.binaries import Unavailable

_CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
_PACKAGES = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "mount": "mount",
}
"""Programs that are not built here, and the Debian packages that contain them."""
_TEST_PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "curl": "curl"}
"""Further programs that the tests on the cluster use: they build images and send requests."""


def cni_folder() -> Path | None:
    """Returns the folder of the CNI plugins; None if they are not installed."""
    for folder in _CNI_FOLDERS:
        if all((folder / plugin).is_file() for plugin in _CNI_PLUGINS):
            return folder
    return None


def obstacles(*, tests: bool = False) -> list[str]:
    """Returns what this machine lacks, each with its remedy; an empty list if a cluster can run.

    Args:
        tests: Include what the tests on the cluster need.
    """
    found: list[str] = []
    needed = _PACKAGES | (_TEST_PACKAGES if tests else {})
    packages = sorted(package for program, package in needed.items() if shutil.which(program) is None)
    if cni_folder() is None:
        packages.append("containernetworking-plugins")
    if packages:
        found.append(f"apt-get install --no-install-recommends {' '.join(packages)}")
    if shutil.which("kubectl") is None:
        found.append("kubectl on the PATH")
    unbuilt = binaries.missing()
    if unbuilt and shutil.which("go") is None:
        found.append(f"Go, to build {', '.join(program.name for program in unbuilt)}")
    if os.geteuid() != 0:
        found.append("root")
    elif not packages and not network.can_create():
        found.append("the right to create network namespaces and bridges")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        found.append("a kernel with overlayfs")
    return found


def check(*, tests: bool = False) -> None:
    """Does nothing on a machine that can run a cluster.

    Args:
        tests: Check what the tests on the cluster need, too.

    Raises:
        Unavailable: something is missing; the message is one line.
    """
    found = obstacles(tests=tests)
    if found:
        raise Unavailable(f"a cluster cannot run on this machine; it lacks: {'; '.join(found)}")
