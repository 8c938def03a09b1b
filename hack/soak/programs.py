"""The processes of a soak test: each can be killed, paused and started again."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final, final

from hack.arm import ARM_ENVIRONMENT
from hack.cluster import binaries
from hack.envtest import ControlPlane
from hack.envtest.control_plane import free_port

BINARIES: Final = Path(sys.executable).parent
ROOT: Final = Path(__file__).resolve().parents[2]
REPLICAS: Final = 2

MISTAKES: Final = re.compile(
    r"\b(?:TypeError|AttributeError|KeyError|IndexError|NameError|UnboundLocalError|AssertionError|RuntimeError|"
    r"RecursionError|InvalidStateError|ValidationError)\b"
)
"""Errors that no failure of the environment explains."""


@final
class Program:
    """A process that is started again after it was killed.

    Args:
        name: name in reports and of the log.
        command: the command line.
        folder: where the log is written.
    """

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path) -> None:
        self.name = name
        self.log: Path = folder / f"{name}.log"
        self.starts: int = 0
        self._command = [str(part) for part in command]
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0

    @property
    def is_running(self) -> bool:
        """Whether the process exists."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process unless it runs."""
        if self.is_running:
            return
        self.starts += 1
        with self.log.open("ab") as log:
            environment = {**os.environ, **ARM_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=environment, cwd=self.log.parent
            )

    def kill(self) -> None:
        """Kills the process with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stops the process with SIGTERM, and with SIGKILL after 15 s."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Suspends the process."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continues the process after `pause`."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGCONT)

    def mistakes(self) -> list[str]:
        """Returns the lines of the log since the last call that report a mistake of the code."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
            self._read = log.tell()
        lines = text.decode("utf-8", "replace").splitlines()
        return [line for line in lines if MISTAKES.search(line) and not line.startswith("  ")]

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@final
class Programs:
    """Everything that runs beside the soak test.

    Args:
        plane: etcd and kube-apiserver.
        arm_url: address of the simulated cloud.
        node_api: `machine` or `nodeclaim`.
    """

    def __init__(self, plane: ControlPlane, arm_url: str, node_api: str) -> None:
        self.plane = plane
        folder = plane.folder
        self.kubernetes = [self._kubernetes(name) for name in ("kube-controller-manager", "kube-scheduler")]
        common = [f"--kubeconfig={plane.kubeconfig}", "--metrics-bind-address=0", "--health-probe-bind-address=0"]
        common += [f"--node-api={node_api}", "--leader-election-namespace=default"]
        arguments = {
            "workspace-controller": ["--webhook=false", "--installation-guard=false"],
            "gpu-provisioner": ["--azure-credential=fake", f"--arm-endpoint={arm_url}"],
        }
        self.controllers = {
            f"{name}-{number}": Program(f"{name}-{number}", [BINARIES / name, *common, *added], folder)
            for name, added in arguments.items()
            for number in range(REPLICAS)
        }

    def _kubernetes(self, name: str) -> Program:
        plane = self.plane
        command: list[str | Path] = [
            binaries.path(name),
            f"--kubeconfig={plane.kubeconfig}",
            f"--authentication-kubeconfig={plane.kubeconfig}",
            f"--authorization-kubeconfig={plane.kubeconfig}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
        ]
        if name == "kube-controller-manager":
            command.append(f"--service-account-private-key-file={plane.folder / 'service-account.key'}")
            command.append(f"--cert-dir={plane.folder / 'kube-controller-manager'}")
        return Program(name, command, plane.folder)

    @property
    def all(self) -> list[Program]:
        """All processes except etcd and kube-apiserver."""
        return [*self.kubernetes, *self.controllers.values()]

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Starts the processes, and stops them at the end."""
        try:
            for program in self.all:
                program.start()
            yield
        finally:
            for program in reversed(self.all):
                program.stop()

    def kill_api_server(self) -> None:
        """Kills kube-apiserver with SIGKILL."""
        if self.plane.api_server is not None:
            self.plane.api_server.kill()
        self.plane.stop_api_server()

    def start_etcd(self) -> None:
        """Starts etcd and kube-apiserver with the same data and certificates."""
        self.plane.start_etcd()
        self.plane.start_api_server()

    def kill_etcd(self) -> None:
        """Kills etcd and kube-apiserver with SIGKILL."""
        self.kill_api_server()
        if self.plane.etcd is not None:
            self.plane.etcd.kill()
        self.plane.stop_etcd()
