"""Runs the fake kubelet: a Node whose pods are processes of this machine, behind a real kube-apiserver.

It serves logs, exec and port-forward with the kubelet's own streaming code (control-plane/fake-kubelet). It is built
with Go on first use and when its source changes.
"""

import hashlib
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from hack.envtest.binaries import HERE, cache_directory
from hack.go import build_once, go
from kaito.runtime import Client, ObjectMeta
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import Node, Pod

MODULE = HERE / "control-plane"


class FakeKubelet:
    """The process; use it with `with`.

    Raises:
        Unavailable: it is not built and Go is not installed (on entering).
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.port = 0

    def __enter__(self) -> Self:
        process = subprocess.Popen(
            [_binary()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._stack.enter_context(process)  # closes its input, which ends it, and waits
        self.port = int(process.stdout.readline() if process.stdout else 0)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    async def register(self, client: Client, name: str) -> Node:
        """Creates its Node, to which the API server relays requests for the pods that are bound to it."""
        node = await client.create(Node(metadata=ObjectMeta(name=name)))
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
        }
        return await client.patch(node, MergePatch({"status": status}), subresource="status")


def pod_on(node: Node, name: str, namespace: str, *, containers: tuple[str, ...] = ("main",)) -> Pod:
    """Returns a pod that is bound to a node."""
    spec = {"nodeName": node.name, "containers": [{"name": each, "image": "none"} for each in containers]}
    return Pod.model_validate({"metadata": {"name": name, "namespace": namespace}, "spec": spec})


def _binary() -> Path:
    source = (MODULE / "fake-kubelet" / "main.go").read_bytes()
    path = cache_directory() / f"fake-kubelet-{hashlib.sha256(source).hexdigest()[:12]}"
    build_once(path.parent, path.is_file, lambda: _build(path), without_go="the fake kubelet is not built: install Go")
    return path


def _build(path: Path) -> None:
    partial = path.with_suffix(".partial")
    command = ("build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial), "./fake-kubelet")
    go(*command, folder=MODULE, purpose="the fake kubelet")
    partial.rename(path)
