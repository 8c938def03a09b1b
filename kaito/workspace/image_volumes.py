"""Determines whether a cluster and its nodes support image volumes, which mount an OCI image into a pod.

The feature gate `ImageVolume` of API server and kubelet exists since Kubernetes 1.31, is beta since 1.33, and is on by
default since 1.35 (KEP-4639). containerd supports image volumes since 2.1, CRI-O since 1.31.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from kaito.runtime.kinds import Node

Release = tuple[int, int]

_RELEASE: Final = re.compile(r"v?(\d+)\.(\d+)")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """Lowest releases that support image volumes."""

    kubernetes: Release
    """Release of the API server and of kubelets."""
    runtimes: Mapping[str, Release]
    """Release by container runtime; others do not support image volumes."""


BY_DEFAULT: Final = Requirement(kubernetes=(1, 35), runtimes={"containerd": (2, 1), "cri-o": (1, 33)})
"""Image volumes work without configuration."""

IF_ENABLED: Final = Requirement(kubernetes=(1, 31), runtimes={"containerd": (2, 1), "cri-o": (1, 31)})
"""Image volumes work if the feature gate is on, which no API reports."""


def server_problem(version: Mapping[str, Any], requirement: Requirement) -> str:
    """Returns why the API server does not support image volumes, from `GET /version`; empty if it does."""
    text = str(version.get("gitVersion", ""))
    found = _release(text)
    if found is not None and found >= requirement.kubernetes:
        return ""
    least = _text(requirement.kubernetes)
    return f"the API server is Kubernetes {text or 'of unknown version'}, at least {least} is needed"


def node_problem(nodes: Iterable[Node], requirement: Requirement) -> str:
    """Returns why one of the nodes does not support image volumes; empty if all do."""
    for node in sorted(nodes, key=lambda node: node.name):
        info = node.status.node_info
        kubelet = _release(info.kubelet_version)
        if kubelet is None or kubelet < requirement.kubernetes:
            return (
                f"node {node.name} has kubelet {info.kubelet_version or 'of unknown version'}, at least "
                f"{_text(requirement.kubernetes)} is needed"
            )
        runtime, _, version = info.container_runtime_version.partition("://")
        least, found = requirement.runtimes.get(runtime), _release(version)
        if least is None or found is None or found < least:
            needed = " or ".join(f"{name} {_text(release)}" for name, release in requirement.runtimes.items())
            return (
                f"node {node.name} has {info.container_runtime_version or 'an unknown container runtime'}, at least "
                f"{needed} is needed"
            )
    return ""


def _release(text: str) -> Release | None:
    found = _RELEASE.match(text)
    return (int(found[1]), int(found[2])) if found else None


def _text(release: Release) -> str:
    return f"{release[0]}.{release[1]}"
