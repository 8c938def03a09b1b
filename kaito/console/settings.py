"""Settings of the console."""

from dataclasses import dataclass
from typing import Final, Literal, final

Mode = Literal["local", "kubeconfig", "cluster"]
"""`local`: in `kaito up`. `kubeconfig`: with the rights of a kubeconfig. `cluster`: in a pod, for users who send their
own bearer token."""

DEFAULT_PORT: Final = 8585
LOOPBACK: Final = "127.0.0.1"


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
