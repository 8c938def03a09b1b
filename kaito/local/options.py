"""Options of `kaito up`."""

from dataclasses import dataclass
from pathlib import Path

from kaito.local.control_plane import ControlPlaneKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the local cluster."""

    folder: Path = Path(".kaito")
    """Where kubeconfig, logs, the model and pods' files are kept."""
    control_plane: ControlPlaneKind = "memory"
    """The in-memory API server, or a real kube-apiserver and etcd."""
    node_api: str = "machine"
    """`machine` or `nodeclaim`: kind of node request to create."""
    speed: float = 60.0
    """Seconds of the simulated cloud per real second; a pool takes five simulated minutes."""
    presets: Path | None = None
    """The environment with the serving software; detected in a checkout."""
    model: str = ""
    """Directory of the model that all pods serve, or `tiny` for a model with random weights. By default
    SmolLM2-135M-Instruct if it is in the cache (`make demo` puts it there), else `tiny`."""
    tracing_endpoint: str = ""
    """Collector that both managers and the pods send spans to by OTLP over HTTP; empty for none."""
    console_port: int = 8585
    """Port of the console; another free one if it is in use."""
