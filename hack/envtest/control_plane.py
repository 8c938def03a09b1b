"""Extends the control plane of `kaito.runtime.testing.envtest`: builds missing binaries with Go."""

from pathlib import Path

from hack.envtest.binaries import locate
from kaito.runtime.testing.envtest import control_plane
from kaito.runtime.testing.envtest.binaries import ESSENTIAL
from kaito.runtime.testing.envtest.control_plane import free_port

__all__ = ["ControlPlane", "free_port"]


class ControlPlane(control_plane.ControlPlane):
    """Runs etcd and kube-apiserver; the arguments are those of the base class.

    Raises:
        Unavailable: binaries are missing and cannot be built (raised on entering).
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int = 0,
        service_cidr: str = "10.0.0.0/16",
        extra_arguments: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            folder, port=port, service_cidr=service_cidr, extra_arguments=extra_arguments, binaries=_binaries
        )


def _binaries() -> dict[str, Path]:
    folder = locate()
    return {name: folder / name for name in ESSENTIAL}
