"""Names the folders, addresses and limits of a cluster.

Everything runs inside one network namespace, so addresses and ports are the same for every cluster and do not collide
with the machine's.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

ADDRESS = "10.77.0.1"
"""Address of the node, of the API server, of the registry and of the DNS server."""
SERVICES = "10.96.0.0/16"
PODS = "10.88.0.0/16"
KUBERNETES_SERVICE = "10.96.0.1"
"""First address of SERVICES: the Service `kubernetes`."""
API_SERVER = f"https://{ADDRESS}:6443"
REGISTRY = f"{ADDRESS}:5000"
"""Host and port of the registry, the prefix of image names in it."""
CLUSTER_DOMAIN = "cluster.local"
PAUSE_IMAGE = "node.local/pause:1"


def cache_folder() -> Path:
    """Return the folder of all clusters and of their binaries."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "kaito" / "cluster"


def binaries_folder() -> Path:
    """Return the folder of the built binaries."""
    return cache_folder() / "bin"


@dataclass(frozen=True)
class Layout:
    """Paths and names of one cluster.

    `down` removes `state` and keeps `kept`: images and blobs that take minutes to make again.

    Args:
        name: Name of the node and of the network namespace; several clusters can run side by side.
    """

    name: str = "kaito-node"
    root: Path = field(default_factory=cache_folder)

    @property
    def folder(self) -> Path:
        """Folder of everything that belongs to this cluster."""
        return self.root / self.name

    @property
    def state(self) -> Path:
        """Folder of what exists between `up` and `down`: keys, data of etcd, volumes of pods."""
        return self.folder / "state"

    @property
    def kept(self) -> Path:
        """Folder of what `down` keeps: images of containerd, blobs of the registry."""
        return self.folder / "kept"

    @property
    def logs(self) -> Path:
        """Folder of the logs of the processes; removed by the next `up` of a new cluster."""
        return self.folder / "log"

    @property
    def pids(self) -> Path:
        """Folder of one record for each process."""
        return self.state / "pid"

    @property
    def certificates(self) -> Path:
        """Folder of keys and certificates."""
        return self.state / "pki"

    @property
    def containerd_socket(self) -> Path:
        """Socket of containerd."""
        return self.state / "containerd.sock"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of an administrator, usable inside of the network namespace."""
        return self.kubeconfig_of("admin")

    def kubeconfig_of(self, component: str) -> Path:
        """Return the path of a component's kubeconfig."""
        return self.state / f"{component}.kubeconfig"

    @property
    def namespace_file(self) -> Path:
        """File that holds the network namespace."""
        return Path("/run/netns") / self.name

    def make_folders(self) -> None:
        """Create the folders that processes expect."""
        for folder in (self.pids, self.certificates, self.logs, self.kept):
            folder.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o700)
