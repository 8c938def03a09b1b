"""Names the folders, addresses and limits of a cluster.

Everything runs inside one network namespace, so addresses and ports are the same for every cluster and do not collide
with the machine's.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from hack import cache

ADDRESS = "10.77.0.1"
"""Address of the node, of the API server, of the registry and of the DNS server."""
SYSTEM_ADDRESS = "10.77.0.2"
"""Address of the system node."""
SERVICES = "10.96.0.0/16"
PODS = "10.88.0.0/16"
NODE_PODS = "10.88.0.0/17"
SYSTEM_PODS = "10.88.128.0/17"
KUBERNETES_SERVICE = "10.96.0.1"
"""First address of SERVICES: the Service `kubernetes`."""
API_SERVER = f"https://{ADDRESS}:6443"
REGISTRY = f"{ADDRESS}:5000"
"""Host and port of the registry, the prefix of image names in it."""
CLUSTER_DOMAIN = "cluster.local"
PAUSE_IMAGE = "node.local/pause:1"


def cache_folder() -> Path:
    """Returns the folder of all clusters and of their binaries."""
    return cache.cache_folder("cluster")


def binaries_folder() -> Path:
    """Returns the folder of the built binaries."""
    return cache_folder() / "bin"


@dataclass(frozen=True)
class Layout:
    """Paths and names of one cluster.

    `down` removes `state` and keeps `kept`: images and blobs that take minutes to make again.

    Args:
        name: Name of the node and of the network namespace; several clusters can run side by side.
        root: Folder of all clusters.
        is_system: Whether containerd, kubelet and pod network are those of the system node. What the nodes of a cluster
            share is the same in both layouts.
    """

    name: str = "kaito-node"
    root: Path = field(default_factory=cache_folder)
    is_system: bool = False

    @property
    def system(self) -> "Layout":
        """Layout of the system node."""
        return replace(self, is_system=True)

    @property
    def node_name(self) -> str:
        """Default name of the node, also of its pod network."""
        return f"{self.name}-system" if self.is_system else self.name

    @property
    def node_address(self) -> str:
        """Address of the node and its kubelet."""
        return SYSTEM_ADDRESS if self.is_system else ADDRESS

    @property
    def node_pods(self) -> str:
        """Addresses of the node's pods, a part of PODS."""
        return SYSTEM_PODS if self.is_system else NODE_PODS

    @property
    def pod_bridge(self) -> str:
        """Network interface of the node's pods."""
        return "pods1" if self.is_system else "pods0"

    @property
    def kubelet(self) -> str:
        """Name of kubelet's process, also of its credentials."""
        return "kubelet-system" if self.is_system else "kubelet"

    @property
    def containerd(self) -> str:
        """Name of containerd's process, also of the folder of its images in `kept`."""
        return "containerd-system" if self.is_system else "containerd"

    @property
    def folder(self) -> Path:
        """Folder of everything that belongs to this cluster."""
        return self.root / self.name

    @property
    def state(self) -> Path:
        """Folder of what exists between `up` and `down`: keys, data of etcd, volumes of pods."""
        return self.folder / "state"

    @property
    def node_state(self) -> Path:
        """Folder of the node in `state`."""
        return self.state / "system-node" if self.is_system else self.state

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
        return self.node_state / "containerd.sock"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of an administrator, usable inside of the network namespace."""
        return self.kubeconfig_of("admin")

    def kubeconfig_of(self, component: str) -> Path:
        """Returns the path of a component's kubeconfig."""
        return self.state / f"{component}.kubeconfig"

    @property
    def namespace_file(self) -> Path:
        """File that holds the network namespace."""
        return Path("/run/netns") / self.name

    def make_folders(self) -> None:
        """Creates the folders that processes expect."""
        for folder in (self.pids, self.certificates, self.logs, self.kept, self.node_state):
            folder.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o700)
