"""Creates the network namespace of a cluster: one bridge with the node's address and no default route.

No packet can leave the namespace, and the iptables rules of kube-proxy stay out of the machine's tables. Processes
enter it with `nsenter --net`, not with `ip netns exec`: the latter creates a mount namespace as well, and containerd
has to see the mounts of kubelet.
"""

import subprocess

from hack.cluster.layout import ADDRESS, SERVICES, SYSTEM_ADDRESS, Layout

_BRIDGE = "node0"


def inside(layout: Layout) -> list[str]:
    """Returns the words before a command that runs in the network namespace."""
    return ["nsenter", f"--net={layout.namespace_file}"]


def exists(layout: Layout) -> bool:
    """Whether the network namespace exists; the file alone can remain after a reboot."""
    return layout.namespace_file.exists() and _succeeds(*inside(layout), "true")


def create(layout: Layout) -> None:
    """Creates the namespace, the bridge and the routes, unless they exist."""
    if not exists(layout):
        layout.namespace_file.unlink(missing_ok=True)
        _run("ip", "netns", "add", layout.name)
    within = inside(layout)
    _run(*within, "ip", "link", "set", "lo", "up")
    if not _succeeds(*within, "ip", "link", "show", _BRIDGE):
        _run(*within, "ip", "link", "add", _BRIDGE, "type", "bridge")  # a dummy would do; some kernels have none
    for address in (ADDRESS, SYSTEM_ADDRESS):
        _run(*within, "ip", "address", "replace", f"{address}/32", "dev", _BRIDGE)
    _run(*within, "ip", "link", "set", _BRIDGE, "up")
    # kube-proxy rewrites service addresses before they are routed, but a route has to exist.
    _run(*within, "ip", "route", "replace", SERVICES, "dev", _BRIDGE)
    _run(*within, "sysctl", "-qw", "net.ipv4.ip_forward=1")


def delete(layout: Layout) -> None:
    """Deletes the namespace, if it exists."""
    if layout.namespace_file.exists():
        _run("ip", "netns", "delete", layout.name)


def can_create() -> bool:
    """Whether this machine can create network namespaces and bridges."""
    name = "kaito-probe"
    if not _succeeds("ip", "netns", "add", name):
        return False
    try:
        return _succeeds("ip", "-n", name, "link", "add", _BRIDGE, "type", "bridge")
    finally:
        _succeeds("ip", "netns", "delete", name)


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr.strip() or result.returncode}")


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
