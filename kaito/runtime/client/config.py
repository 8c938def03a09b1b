"""How to reach one API server: address, TLS files and credentials (client-go's `rest.Config`), and those of a pod.

`connect.find_cluster_config` finds it, once for each event loop that talks to the server (the lease has a loop of its
own). Nothing here opens a connection, except that credential plugins run when their first token is needed.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, final

from kaito.runtime.client.proxy import find_proxy
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.logging import get_logger

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a pod's token, CA and namespace (Kubernetes documentation, "Accessing the API from a Pod")."""

TOKEN_FILE_SECONDS = 60.0
"""A token file is read again after this time, or at once when the server refuses the token (client-go: 1 minute)."""

_log = get_logger(__name__)


class Credentials(Protocol):
    """What proves who we are, beyond a client certificate."""

    async def header(self) -> str:
        """The `Authorization` header; empty sends none. May be refreshed behind the scenes.

        Raises:
            TransportError: there are no credentials to be had.
        """
        ...

    async def renew(self, header: str) -> bool:
        """The server answered 401 to that header: get another. False when there is no other."""
        ...


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Files of the TLS connection; read anew when their content changes."""

    ca_file: str = ""
    """Trust only these CAs; empty trusts the system's."""
    certificate_file: str = ""
    key_file: str = ""
    verify: bool = True
    server_name: str = ""
    """The name to expect in the certificate, when it is not the host's."""
    strict_x509: bool = False
    """Demand what RFC 5280 demands of CA certificates. Off: cluster CAs commonly lack key identifiers, and Python 3.13
    would refuse them. Signature, validity and host name are checked either way."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Everything a transport needs to reach one API server."""

    server: str
    """`https://host:port`, perhaps with a path."""
    credentials: Credentials
    tls: TlsConfig = TlsConfig()
    proxy: str = ""
    """URL of the HTTP proxy to the server; empty: none. See `proxy.find_proxy`."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Sent with every request."""
    impersonation: tuple[tuple[str, str], ...] = ()
    """Headers that name whom to act as (`Impersonate-User` and its like); groups and extras come more than once."""
    namespace: str = ""
    """The namespace this process lives in, or the context names; empty when unknown."""


@final
class NoCredentials:
    """A client certificate, or nothing, is proof enough."""

    async def header(self) -> str:
        """None."""
        return ""

    async def renew(self, header: str) -> bool:  # noqa: ARG002 -- the protocol's
        """There is nothing else to try."""
        return False


@final
class TokenFile:
    """A bearer token in a file that somebody else replaces before it expires."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._read_at: float | None = None
        self._complained = False

    async def header(self) -> str:
        """The token as of at most a minute ago; the last readable one when the file cannot be read."""
        if self._read_at is None or monotonic() - self._read_at >= TOKEN_FILE_SECONDS:
            await self._read()
        return f"Bearer {self._token}" if self._token else ""

    async def renew(self, header: str) -> bool:
        """Read the file again: the token may have been replaced early."""
        await self._read()
        return bool(self._token) and header != f"Bearer {self._token}"

    async def _read(self) -> None:
        self._read_at = monotonic()
        try:
            token = (await asyncio.to_thread(self._path.read_text)).strip()
        except OSError as error:
            if not self._complained:
                _log.warning("token file unreadable, keeping the last token", path=str(self._path), error=str(error))
            self._complained = True
            return
        self._complained = False
        self._token = token or self._token


def in_cluster_config(
    environment: Mapping[str, str] = os.environ, *, directory: Path = SERVICE_ACCOUNT, strict_x509: bool = False
) -> ClusterConfig | None:
    """The access every pod has, or None outside a pod.

    Raises:
        ConfigurationError: inside a pod without a service account token.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        return None
    for name in ("token", "ca.crt"):
        if not (directory / name).is_file():
            message = f"inside a pod, but {directory / name} is missing: is automountServiceAccountToken off?"
            raise ConfigurationError(message)
    namespace = directory / "namespace"
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return ClusterConfig(
        server=server,
        proxy=find_proxy(server, "", environment),
        credentials=TokenFile(directory / "token"),
        tls=TlsConfig(ca_file=str(directory / "ca.crt"), strict_x509=strict_x509),
        namespace=namespace.read_text().strip() if namespace.is_file() else "",
    )
