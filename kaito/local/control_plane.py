"""Starts the control plane of the local cluster: the in-memory API server, or a real kube-apiserver with etcd.

Both provide a kubeconfig file and a range of cluster IPs on loopback, so that `curl http://$CLUSTERIP/` reaches a
Service from this machine.
"""

import asyncio
import base64
import contextlib
import os
import re
import secrets
import shutil
import ssl
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal

import yaml

from kaito.apiserver import ApiServer, serve
from kaito.local.certificate import certificate_of, write_certificate
from kaito.local.processes import ChildEnded, child
from kaito.local.time_limit import time_limit

ControlPlaneKind = Literal["memory", "real"]

REAL_START_SECONDS = 600.0
"""A real control plane may have to be built first (about five minutes, once)."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A running control plane."""

    kubeconfig: Path
    server: ApiServer | None
    """The in-memory server, when it is one."""


@contextlib.asynccontextmanager
async def control_plane(kind: ControlPlaneKind, folder: Path, services: IPv4Network) -> AsyncGenerator[ControlPlane]:
    """Runs a control plane for the length of the body; `services` is the range of cluster IPs.

    Raises:
        ChildEnded: the real one could not be started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = _in_memory(folder, services) if kind == "memory" else _real(folder, services)
    async with opened as running:
        yield running


@contextlib.asynccontextmanager
async def _in_memory(folder: Path, services: IPv4Network) -> AsyncGenerator[ControlPlane]:
    server = ApiServer(service_cidr=str(services))
    certificate = write_certificate(folder / "apiserver.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    authority = base64.b64encode(certificate_of(certificate).encode()).decode()
    async with serve(server, tls=tls, token=secrets.token_urlsafe(18)) as served:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(served.kubeconfig(ca=authority)))
        kubeconfig.chmod(0o600)
        yield ControlPlane(kubeconfig, server)


@contextlib.asynccontextmanager
async def _real(folder: Path, services: IPv4Network) -> AsyncGenerator[ControlPlane]:
    log = folder / "envtest.log"
    log.unlink(missing_ok=True)
    shutil.rmtree(folder / "real", ignore_errors=True)  # every run starts with an empty cluster
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "hack.envtest",
        "--folder",
        folder / "real",
        "--service-cidr",
        str(services),
    ]
    async with child(command, log, env=dict(os.environ)) as process:
        async with time_limit(REAL_START_SECONDS, f"the control plane to start; its log is {log}"):
            while not (found := re.search(r"KUBECONFIG=(\S+)", log.read_text())):
                if process.returncode is not None:
                    raise ChildEnded("control plane", process.returncode, log)
                await asyncio.sleep(0.2)
        yield ControlPlane(Path(found.group(1)), None)
