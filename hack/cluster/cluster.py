"""Brings a cluster up and down and runs commands in its network.

Every step is repeatable: `up` starts what does not run, after a crash as well; `down` stops and removes what it finds.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hack.cluster import binaries, control_plane, identities, network, node, prerequisites, registry, runtime
from hack.cluster.layout import Layout
from hack.cluster.node import NodeOptions
from hack.cluster.processes import Processes

_STOP_ORDER = (
    "coredns",
    "kube-scheduler",
    "kube-controller-manager",
    "containerd",
    "registry",
    "kube-apiserver",
    "etcd",
)


def _discard(_line: str) -> None:
    """Reports nothing."""


class Cluster:
    """A real Kubernetes cluster of one node, in a network namespace of this machine.

    Args:
        name: Name of the cluster, its node and its network namespace.
        report: Receives lines of progress.
    """

    def __init__(self, name: str = Layout.name, report: Callable[[str], None] = _discard) -> None:
        self.layout = Layout(name)
        self.processes = Processes(self.layout)
        self._report = report

    def up(self, *, join: bool = True) -> None:
        """Starts everything that does not run; returns when the node is Ready.

        Args:
            join: Start kubelet and kube-proxy; otherwise the cluster has no node until `join` is called.

        Raises:
            Unavailable: the machine cannot run a cluster, or a program cannot be built.
            StartFailed: a process ended or did not become ready.
        """
        prerequisites.check()
        binaries.build(self._report)
        with self._lock():
            fresh = not self.layout.state.exists()
            if fresh:
                shutil.rmtree(self.layout.logs, ignore_errors=True)
            self.layout.make_folders()
            network.create(self.layout)
            identities.issue(self.layout)
            self._report("starting the control plane")
            control_plane.start(self.layout, self.processes)
            control_plane.start_dns(self.layout, self.processes)
            registry.start(self.layout, self.processes)
            self._report("starting containerd")
            runtime.start(self.layout, self.processes)
            if join:
                self._report("starting the node")
                node.start(self.layout, self.processes)

    def join(self, options: NodeOptions) -> None:
        """Starts kubelet and kube-proxy for a node with a name, labels and provider ID of its own.

        Raises:
            StartFailed: a process ended, or the node did not become Ready.
        """
        with self._lock():
            node.start(self.layout, self.processes, options)

    def leave(self) -> None:
        """Stops kubelet and kube-proxy and kills the containers of the node; its Node object stays."""
        with self._lock():
            node.remove(self.layout, self.processes)
            runtime.remove_containers(self.layout)

    def join_system_node(self) -> None:
        """Starts a second node for controllers, with kubelet, containerd and pod network of its own and without GPUs.

        Raises:
            StartFailed: a process ended, or the node did not become Ready.
        """
        system = self.layout.system
        with self._lock():
            system.make_folders()
            self._report("starting the system node")
            runtime.start(system, self.processes)
            node.start(system, self.processes)

    def leave_system_node(self) -> None:
        """Stops the second node and its containerd, and deletes its Node object."""
        system = self.layout.system
        if not system.node_state.exists():
            return
        self.run("kubectl", "delete", "node", system.node_name, "--ignore-not-found", check=False)
        with self._lock():
            node.remove(system, self.processes)
            self._remove_containers(system)
            self.processes.stop(system.containerd)

    def down(self, *, purge: bool = False) -> None:
        """Stops every process, deletes containers, mounts, the network namespace and the state.

        Args:
            purge: Also delete the images and the blobs of the registry.
        """
        if not self.layout.folder.exists():
            return
        with self._lock():
            nodes = (self.layout, self.layout.system)
            for layout in nodes:
                node.remove(layout, self.processes)  # first, so that no container is started again
            sockets = [socket for layout in nodes for socket in runtime.shim_sockets(layout)]
            for layout in nodes:
                self._remove_containers(layout)
            for name in _STOP_ORDER:
                self.processes.stop(name)
            for name in self.processes.running():
                self.processes.stop(name)
            for layout in nodes:
                runtime.remove_leftovers(layout, sockets)
            network.delete(self.layout)
            shutil.rmtree(self.layout.state, ignore_errors=True)
            if purge:
                runtime.remove_images(self.layout)

    def _remove_containers(self, layout: Layout) -> None:
        configured = (layout.node_state / "containerd-config" / "config.toml").exists()
        if configured and not self.processes.is_running(layout.containerd) and not binaries.missing():
            # It crashed: only containerd can remove containers and snapshots from the folder of images.
            network.create(layout)
            runtime.start(layout, self.processes)
        if self.processes.is_running(layout.containerd):
            runtime.remove_containers(layout)

    def command(self, *words: str | Path) -> list[str]:
        """Returns a command that runs in the cluster's network."""
        return [*network.inside(self.layout), *map(str, words)]

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment of commands that use the cluster as an administrator."""
        return {**os.environ, "KUBECONFIG": str(self.layout.kubeconfig)}

    def run(
        self, *words: str | Path, stdin: str | None = None, check: bool = True, timeout_seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the cluster's network, with the administrator's KUBECONFIG.

        Raises:
            CommandFailed: it failed and `check` is set.
            subprocess.TimeoutExpired: it ran longer than the time limit.
        """
        result = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
            env=self.environment,
        )
        if check and result.returncode != 0:
            raise CommandFailed(words, result)
        return result

    def kubectl(self, *words: str | Path, stdin: str | None = None, timeout_seconds: float = 300) -> str:
        """Runs kubectl and returns what it prints.

        Raises:
            CommandFailed: it failed.
        """
        return self.run("kubectl", *words, stdin=stdin, timeout_seconds=timeout_seconds).stdout

    def load(self, *archives: Path) -> None:
        """Imports image archives (OCI or docker) into containerd.

        Raises:
            RuntimeError: an archive was rejected.
        """
        for archive in archives:
            runtime.load(self.layout, archive)

    def kill_container(self, namespace: str, pod: str, container: str) -> None:
        """Sends SIGKILL to every process of a container, as the kernel does when memory is exhausted.

        Raises:
            CommandFailed: the pod does not exist.
        """
        path = f'{{.spec.nodeName}} {{.status.containerStatuses[?(@.name=="{container}")].containerID}}'
        node_name, identifier = self.kubectl("get", "pod", pod, "-n", namespace, "-o", f"jsonpath={path}").split()
        system = self.layout.system
        layout = system if node_name == system.node_name else self.layout
        runtime.kill(layout, identifier.removeprefix("containerd://"))

    @contextmanager
    def _lock(self) -> Generator[None]:
        self.layout.folder.mkdir(parents=True, exist_ok=True)
        with (self.layout.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class CommandFailed(RuntimeError):
    """Raised when a command in the cluster fails; the message has what it printed."""

    def __init__(self, words: tuple[str | Path, ...], result: subprocess.CompletedProcess[str]) -> None:
        output = (result.stderr.strip() or result.stdout.strip())[-2000:]
        super().__init__(f"{' '.join(map(str, words))} failed with exit code {result.returncode}: {output}")
        self.result = result
