"""What `kaito up` can be told."""

from dataclasses import dataclass
from pathlib import Path

from kaito.local.control_plane import ControlPlaneKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the local cluster."""

    folder: Path = Path(".kaito")
    """Where kubeconfig, logs, the model and pods' files are kept."""
    control_plane: ControlPlaneKind = "memory"
    """The in-memory API server, or a real kube-apiserver and etcd."""
    node_api: str = "machine"
    """`machine` or `nodeclaim`: how the workspace controller asks for nodes."""
    speed: float = 60.0
    """How many seconds of the simulated cloud pass in one real second; a pool takes five minutes there."""
    presets: Path | None = None
    """The environment with the serving software; found by itself in a checkout."""
