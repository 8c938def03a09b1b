"""Cluster configuration: address, TLS files and credentials of an API server (client-go's `rest.Config`).

`connect.find_cluster_config` creates it, once per event loop that sends requests (leader election has a separate loop).
It opens no connection; credential plugins run when the first token is needed.
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
"""Directory of a pod's token, CA and namespace (Kubernetes documentation, "Accessing the API from a Pod")."""

TOKEN_FILE_SECONDS = 60.0
"""Interval of reading a token file again; it is read earlier if the server rejects the token (client-go: 1 minute)."""

_log = get_logger(__name__)


class Credentials(Protocol):
    """Credentials of requests besides a client certificate."""

    async def header(self) -> str:
        """Returns the value of the `Authorization` header, or an empty string for none. May refresh the credentials.

        Raises:
            TransportError: Obtaining credentials failed.
        """
        ...

    async def renew(self, header: str) -> bool:
        """Renews the credentials after a 401 for `header`; returns False if there are no others."""
        ...


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Files and options of TLS connections; changed files are reloaded."""

    ca_file: str = ""
    """Bundle of the trusted CAs; empty means those of the system."""
    certificate_file: str = ""
    key_file: str = ""
    ca_data: str = field(default="", repr=False)
    """PEM text of the trusted CAs, instead of a file."""
    certificate_data: str = field(default="", repr=False)
    """PEM text of the client certificate, instead of a file; with `key_data`."""
    key_data: str = field(default="", repr=False)
    verify: bool = True
    server_name: str = ""
    """Expected name in the server's certificate, if it differs from the host."""
    strict_x509: bool = False
    """Enforce RFC 5280 for CA certificates. Off by default: CAs of clusters commonly lack key identifiers, and Python
    3.13 would reject them. Signature, validity and host name are always verified."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Connection settings of one API server."""

    server: str
    """`https://host:port`, optionally with a path."""
    credentials: Credentials
    tls: TlsConfig = TlsConfig()
    proxy: str = ""
    """URL of the HTTP proxy; empty for none. See `proxy.find_proxy`."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Additional headers of every request."""
    impersonation: tuple[tuple[str, str], ...] = ()
    """Impersonation headers such as `Impersonate-User`; groups and extras may occur several times."""
    namespace: str = ""
    """The namespace of this process's pod or of the kubeconfig context; empty if unknown."""


@final
class NoCredentials:
    """No `Authorization` header: anonymous access, or a client certificate only."""

    async def header(self) -> str:
        """Returns no header."""
        return ""

    async def renew(self, header: str) -> bool:  # noqa: ARG002 -- the protocol's
        """Returns False: there are no other credentials."""
        return False


@final
class TokenFile:
    """Bearer token in a file that is replaced before the token expires, as the kubelet does for service accounts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._read_at: float | None = None
        self._complained = False

    async def header(self) -> str:
        """Returns the token, read at most a minute ago; the last token if the file is unreadable."""
        if self._read_at is None or monotonic() - self._read_at >= TOKEN_FILE_SECONDS:
            await self._read()
        return f"Bearer {self._token}" if self._token else ""

    async def renew(self, header: str) -> bool:
        """Reads the file again: the token may have been replaced."""
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
    """Returns the configuration from a pod's service account, or None outside a pod.

    Raises:
        ConfigurationError: The pod has no service account token.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        return None
    for name in ("token", "ca.crt"):
        if not (directory / name).is_file():
            message = f"in a pod, but {directory / name} is missing: enable automountServiceAccountToken"
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
