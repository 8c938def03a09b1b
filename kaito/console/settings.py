"""Settings of the console."""

from dataclasses import dataclass
from typing import Final, Literal, final
from urllib.parse import urlsplit

from kaito.runtime.errors import ConfigurationError

Mode = Literal["local", "kubeconfig", "cluster"]
"""`local`: in `kaito up`. `kubeconfig`: with the rights of a kubeconfig. `cluster`: in a pod, for users who send their
own bearer token."""

DEFAULT_PORT: Final = 8585
LOOPBACK: Final = "127.0.0.1"
TRACE_ID: Final = "{trace_id}"
"""Placeholder in the address of a trace."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSettings:
    """Settings of one console."""

    mode: Mode = "kubeconfig"
    cluster: str = ""
    """Name of the cluster that is shown."""
    address: str = LOOPBACK
    """Address of the listener."""
    port: int = DEFAULT_PORT
    """0 selects a free port."""
    allow_writes: bool = False
    """Whether Workspaces may be created, scaled and deleted. In a cluster, the rights of the user decide as well."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that are shown; all if empty."""
    hosts: tuple[str, ...] = ()
    """Further accepted values of the Host header, with a port unless it is that of the scheme."""
    trace_url: str = ""
    """Address of a trace in the user's trace store, with `{trace_id}`; empty for none."""
    dashboard_url: str = ""
    """Address of the dashboard; empty for none."""
    alerts_url: str = ""
    """Address of the alerts; empty for none."""

    def __post_init__(self) -> None:
        """Validates the addresses, which the browser opens.

        Raises:
            ConfigurationError: one is not an address of HTTP, or that of a trace has no `{trace_id}`.
        """
        for name in ("trace_url", "dashboard_url", "alerts_url"):
            value: str = getattr(self, name)
            flag = f"--{name.replace('_', '-')}"
            if value and urlsplit(value).scheme not in {"http", "https"}:
                message = f"{flag}={value}: use an address that begins with https:// or http://"
                raise ConfigurationError(message)
        if self.trace_url and TRACE_ID not in self.trace_url:
            message = f"--trace-url={self.trace_url}: must contain {TRACE_ID}"
            raise ConfigurationError(message)
