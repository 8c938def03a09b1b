"""Starts containerd 2.x with a CNI bridge network, and removes what it leaves behind.

Images stay in a folder that `down` keeps. Version 2.1 is the first with image volumes.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from hack.cluster import binaries, image_archive, registry
from hack.cluster.layout import PAUSE_IMAGE, REGISTRY, Layout
from hack.cluster.prerequisites import cni_folder
from hack.cluster.processes import Processes, Record, ended, send, start_time

_START_SECONDS = 60.0
_SHIM = "containerd-shim"

_CONFIGURATION = """\
version = 3
root = "{root}"
state = "{state}"

[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  # The unpacked copy is the only one that containers use, and a serving image has several GiB.
  discard_unpacked_layers = true
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{hosts}"

[plugins."io.containerd.cri.v1.runtime"]
  # Sandboxes cannot lower their OOM score on a machine without CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  # Network namespaces of pods are mounted below the state folder, so that they are removed with it.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni_plugins}"]
    conf_dir = "{cni}"
    use_internal_loopback = true
"""


def start(layout: Layout, processes: Processes) -> None:
    """Starts containerd, unless it runs, and makes the sandbox image available.

    Raises:
        StartFailed: containerd ended or did not become ready.
    """
    configuration = _write_configuration(layout)
    processes.start(
        layout.containerd,
        [binaries.path("containerd"), "--config", configuration],
        environment={"PATH": f"{binaries.path('containerd').parent}:{os.environ['PATH']}"},
    )
    processes.wait(layout.containerd, lambda: _ctr(layout, "version").returncode == 0, _START_SECONDS)
    if PAUSE_IMAGE not in images(layout):
        _import_pause_image(layout)


def images(layout: Layout) -> list[str]:
    """Returns the names of the images that containerd holds."""
    return _ctr(layout, "images", "list", "-q").stdout.split()


def load(layout: Layout, archive: Path) -> None:
    """Imports the images of an OCI or docker archive.

    Raises:
        RuntimeError: containerd rejected the archive.
    """
    result = _ctr(layout, "images", "import", str(archive))
    if result.returncode != 0:
        raise RuntimeError(f"importing {archive} failed: {result.stderr.strip()}")


def kill(layout: Layout, container: str) -> None:
    """Sends SIGKILL to every process of a container.

    Raises:
        RuntimeError: the container does not run.
    """
    result = _ctr(layout, "tasks", "kill", "--signal", "SIGKILL", "--all", container)
    if result.returncode != 0:
        raise RuntimeError(f"killing container {container!r} failed: {result.stderr.strip()}")


def remove_containers(layout: Layout) -> None:
    """Kills and deletes every container; images stay. containerd has to run."""
    for task in _ctr(layout, "tasks", "list", "-q").stdout.split():
        _ctr(layout, "tasks", "delete", "--force", task)
    for container in _ctr(layout, "containers", "list", "-q").stdout.split():
        _ctr(layout, "containers", "delete", container)
    for sandbox in _ctr(layout, "sandboxes", "list", "-q").stdout.split():
        _ctr(layout, "sandboxes", "remove", "--force", sandbox)


def shim_sockets(layout: Layout) -> list[Path]:
    """Returns the sockets of the running shims; they lie outside of the state folder."""
    found: list[Path] = []
    for bundle in _bundles(layout):
        with contextlib.suppress(OSError, ValueError, KeyError):
            address: str = json.loads((bundle / "bootstrap.json").read_text())["address"]
            found.append(Path(address.removeprefix("unix://")))
    return found


def remove_leftovers(layout: Layout, sockets: Iterable[Path] = ()) -> None:
    """Kills shims that containerd did not stop, unmounts what lies below the state folder, removes files elsewhere.

    Args:
        layout: Paths of the cluster.
        sockets: Sockets of the shims that ran before containers were removed.
    """
    for shim in list(_shims(layout)):
        _kill_with_descendants(shim)
    for mount in sorted(_mounts(layout.folder), reverse=True):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    for socket in sockets:
        socket.unlink(missing_ok=True)  # a shim that lost its containerd leaves it
    _remove_cgroups(layout)
    for link in Path("/var/log/containers").glob("*"):  # kubelet's fixed folder of links to the logs of containers
        if link.is_symlink() and link.readlink().is_relative_to(layout.folder):
            link.unlink()
    for result in Path("/var/lib/cni/results").glob(f"{layout.name}-*"):
        result.unlink()


def _bundles(layout: Layout) -> list[Path]:
    return list((layout.node_state / "containerd" / "io.containerd.runtime.v2.task" / "k8s.io").glob("*"))


def _remove_cgroups(layout: Layout) -> None:
    """Removes the cgroups of containers whose shims were killed."""
    cgroups = [Path("/sys/fs/cgroup/k8s.io"), *Path("/sys/fs/cgroup").glob("*/k8s.io")]
    for bundle in _bundles(layout):
        for cgroup in cgroups:
            with contextlib.suppress(OSError):
                (cgroup / bundle.name).rmdir()
    for cgroup in cgroups:
        with contextlib.suppress(OSError):  # another cluster's containers are in it
            cgroup.rmdir()


def _write_configuration(layout: Layout) -> Path:
    folder = layout.node_state / "containerd-config"
    hosts, cni = folder / "hosts", folder / "cni"
    host = hosts / REGISTRY
    for path in (host, cni):
        path.mkdir(parents=True, exist_ok=True)
    (host / "hosts.toml").write_text(registry.hosts_file(layout))
    (cni / "10-node.conflist").write_text(json.dumps(_network(layout)))
    configuration = folder / "config.toml"
    configuration.write_text(
        _CONFIGURATION.format(
            root=layout.kept / layout.containerd,
            state=layout.node_state / "containerd",
            socket=layout.containerd_socket,
            pause=PAUSE_IMAGE,
            hosts=hosts,
            cni_plugins=cni_folder(),
            cni=cni,
        )
    )
    return configuration


def _network(layout: Layout) -> dict[str, object]:
    ipam = {
        "type": "host-local",
        "dataDir": str(layout.node_state / "ipam"),
        "ranges": [[{"subnet": layout.node_pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": layout.pod_bridge, "isGateway": True, "hairpinMode": True, "ipam": ipam}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": layout.node_name, "plugins": [bridge, ports]}


def _import_pause_image(layout: Layout) -> None:
    archive = layout.node_state / "pause.tar"
    with archive.open("wb") as target:
        image_archive.write(target, PAUSE_IMAGE, {"pause": binaries.path("pause").read_bytes()}, ["/pause"])
    load(layout, archive)
    archive.unlink()


def _ctr(layout: Layout, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(binaries.path("ctr")), "--address", str(layout.containerd_socket), "--namespace", "k8s.io", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _shims(layout: Layout) -> Iterator[Record]:
    socket = str(layout.containerd_socket)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if Path(words[0]).name.startswith(_SHIM) and socket in words:
            pid = int(folder.name)
            started = start_time(pid)
            if started is not None:
                yield Record(pid, started)


def _kill_with_descendants(record: Record) -> None:
    for pid in _children(record.pid):
        started = start_time(pid)
        if started is not None:
            _kill_with_descendants(Record(pid, started))
    send(record, signal.SIGKILL)
    ended(record, timeout_seconds=5)


def _children(pid: int) -> list[int]:
    children: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children.update(int(word) for word in path.read_text().split())
        except OSError:
            continue
    return sorted(children)


def _mounts(folder: Path) -> list[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    points = [line.split(" ")[1] for line in lines]
    return [point for point in points if Path(point).is_relative_to(folder)]


def remove_images(layout: Layout) -> None:
    """Removes what `down` keeps. containerd must not run."""
    shutil.rmtree(layout.kept, ignore_errors=True)
