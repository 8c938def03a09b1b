"""Runs Karpenter with the kwok provider as a process against a kubeconfig."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Final, Self

from hack.envtest.control_plane import free_port
from hack.karpenter.binaries import BINARY, HERE, locate

INSTANCE_TYPES: Final = HERE / "instance_types.json"

STOP_SECONDS: Final = 15.0


class Karpenter:
    """A Karpenter process; its log goes to a file. Used as a context manager.

    Args:
        kubeconfig: the cluster.
        folder: receives `karpenter.log`.
        instance_types: file of the sizes that can be launched.

    Raises:
        Unavailable: the binary is missing and cannot be built (raised on entering).
    """

    def __init__(self, kubeconfig: Path, folder: Path, *, instance_types: Path = INSTANCE_TYPES) -> None:
        self.log = folder / "karpenter.log"
        self._kubeconfig, self._instance_types = kubeconfig, instance_types
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def crds() -> list[Path]:
        """Returns the files of Karpenter's CRDs, which must be applied before the process starts."""
        return sorted((locate() / "crds").glob("*.yaml"))

    def __enter__(self) -> Self:
        command = [
            str(locate() / BINARY),
            f"-instance-types-file-path={self._instance_types}",
            f"-metrics-port={free_port()}",
            f"-health-probe-port={free_port()}",
            "-disable-leader-election",
            "-feature-gates=StaticCapacity=true",
        ]
        environment = {**os.environ, "KUBECONFIG": str(self._kubeconfig), "SYSTEM_NAMESPACE": "kube-system"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
