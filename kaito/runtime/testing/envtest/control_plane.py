"""Starts and stops etcd and kube-apiserver on loopback, as a context manager.

Used by the `real_cluster` fixture, and through `hack.envtest`, which can build the binaries, by the contract tests, the
benchmarks and `kaito up --control-plane real`. There is no controller manager: no garbage collection, no namespace
deletion and no workload controllers.
"""

import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import yaml

from kaito.runtime.testing.envtest.binaries import find_binaries
from kaito.runtime.testing.envtest.certificates import write_service_account_key, write_serving_certificate

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 20.0


def free_port() -> int:
    """Returns a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ControlPlane:
    """Control plane of etcd and kube-apiserver; `url`, `token`, `ca_file` and `kubeconfig` are those of an
    administrator.

    Args:
        folder: Directory of data, certificates and logs; by default a temporary one that is removed at the end.
        port: Port of the API server; by default a free one.
        service_cidr: Range of cluster IPs.
        extra_arguments: Additional flags of kube-apiserver.
        binaries: Returns the paths of `etcd` and `kube-apiserver`.

    Raises:
        Unavailable: Binaries are missing (on entering).
        RuntimeError: A process did not become ready; the message contains the end of its log.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int = 0,
        service_cidr: str = "10.0.0.0/16",
        extra_arguments: tuple[str, ...] = (),
        binaries: Callable[[], Mapping[str, Path]] = find_binaries,
    ) -> None:
        self._own_folder = folder is None
        self.folder: Path = folder or Path(tempfile.mkdtemp(prefix="kaito-envtest-"))
        self.port: int = port or free_port()
        self.url: str = f"https://127.0.0.1:{self.port}"
        self.token: str = secrets.token_urlsafe(24)
        self.ca_file: Path = self.folder / "ca.crt"
        self.kubeconfig: Path = self.folder / "kubeconfig"
        self.api_server: subprocess.Popen[bytes] | None = None
        self.etcd: subprocess.Popen[bytes] | None = None
        self._etcd_url = f"http://127.0.0.1:{free_port()}"
        self._service_cidr = service_cidr
        self._extra_arguments = extra_arguments
        self._find_binaries = binaries
        self._logs: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts both processes, and waits until `/readyz` returns 200 and the default namespace exists."""
        self._find_binaries()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_serving_certificate(self.folder)
        write_service_account_key(self.folder / "service-account.key")
        (self.folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        self._write_kubeconfig()
        try:
            self.start_etcd()
            self.start_api_server()
        except BaseException:
            self.stop()
            raise

    def start_etcd(self) -> None:
        """Starts etcd with its data; with `stop_etcd` a test restarts it."""
        self.etcd = self._spawn_etcd(self._find_binaries()["etcd"])
        self._wait("etcd", self.etcd, f"{self._etcd_url}/health")

    def start_api_server(self) -> None:
        """Starts kube-apiserver on its port; with `stop_api_server` a test restarts it."""
        self.api_server = self._spawn_api_server(self._find_binaries()["kube-apiserver"])
        self._wait("kube-apiserver", self.api_server, f"{self.url}/readyz")
        self._wait("kube-apiserver", self.api_server, f"{self.url}/api/v1/namespaces/default")

    def stop_api_server(self) -> None:
        """Stops kube-apiserver and keeps etcd."""
        self._terminate(self.api_server)
        self.api_server = None

    def stop_etcd(self) -> None:
        """Stops etcd and keeps its data for `start_etcd`. Stop the API server first."""
        self._terminate(self.etcd)
        self.etcd = None

    def stop(self) -> None:
        """Stops both processes, and removes a temporary directory."""
        self.stop_api_server()
        self.stop_etcd()
        for log in self._logs:
            log.close()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn_etcd(self, binary: Path) -> subprocess.Popen[bytes]:
        return self._spawn(
            "etcd",
            binary,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls=http://127.0.0.1:{free_port()}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _spawn_api_server(self, binary: Path) -> subprocess.Popen[bytes]:
        return self._spawn(
            "kube-apiserver",
            binary,
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder}",
            f"--tls-cert-file={self.folder / 'tls.crt'}",
            f"--tls-private-key-file={self.folder / 'tls.key'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--service-account-key-file={self.folder / 'service-account.key'}",
            f"--service-account-signing-key-file={self.folder / 'service-account.key'}",
            f"--service-account-issuer={self.url}/",
            "--authorization-mode=RBAC",
            f"--service-cluster-ip-range={self._service_cidr}",
            "--allow-privileged=true",
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            *self._extra_arguments,
        )

    def _spawn(self, name: str, *command: object) -> subprocess.Popen[bytes]:
        attached = os.environ.get("KUBEBUILDER_ATTACH_CONTROL_PLANE_OUTPUT") == "true"
        log = None if attached else (self.folder / f"{name}.log").open("ab")
        if log is not None:
            self._logs.append(log)
        return subprocess.Popen(  # noqa: S603 - the binaries of the test environment
            [str(part) for part in command], stdout=log, stderr=subprocess.STDOUT if log else None, cwd=self.folder
        )

    def _wait(self, name: str, process: subprocess.Popen[bytes], url: str) -> None:
        context = ssl.create_default_context(cafile=str(self.ca_file)) if url.startswith("https") else None
        request = urllib.request.Request(  # noqa: S310 - our own addresses
            url, headers={"Authorization": f"Bearer {self.token}"}
        )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310 - as above
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        tail = "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:])
        state = "still starting" if process.poll() is None else f"exit code {process.returncode}"
        raise RuntimeError(f"{name} did not become ready ({state}):\n{tail}")

    def _write_kubeconfig(self) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "envtest",
            "clusters": [
                {"name": "envtest", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}
            ],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "envtest", "context": {"cluster": "envtest", "user": "admin"}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))
        self.kubeconfig.chmod(0o600)

    @staticmethod
    def _terminate(process: subprocess.Popen[bytes] | None) -> None:
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
