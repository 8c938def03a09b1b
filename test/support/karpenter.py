"""A real Karpenter core with its kwok provider beside the workspace controller, as processes on a real API server.

The installation is an overlay of `config`, and the controller runs with exactly its permissions. No kubelet, no
scheduler and no controller-manager run: `hack.karpenter.nodes` reports nodes as ready, and `hack.bench.driver` reports
workloads as ready, or `hack.karpenter.pods` runs their pods.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from hack.envtest import ControlPlane
from hack.karpenter import Karpenter
from test.support.stack import BINARIES, ROOT, Program, run_kubectl

T = TypeVar("T")

ACCOUNT: Final = "system:serviceaccount:kaito-system:workspace-controller"
POLL_SECONDS: Final = 0.5


class KarpenterStack:
    """The running programs, and what is in the cluster."""

    def __init__(self, kubeconfig: Path, folder: Path, arguments: Sequence[str], *, pods: bool = False) -> None:
        self.kubeconfig, self.folder = kubeconfig, folder
        common = ["--metrics-bind-address=0", "--health-probe-bind-address=0", "--leader-elect=false"]
        account = self._account_kubeconfig()
        controller = [str(BINARIES / "workspace-controller"), f"--kubeconfig={account}", *common, "--webhook=false"]
        driver = ["hack.karpenter.pods"] if pods else ["hack.bench.driver"]
        workloads = [sys.executable, "-m", *driver, str(kubeconfig), *([] if pods else ["workloads"])]
        self.programs = [
            Program(name, command, folder / f"{name}.log")
            for name, command in (
                ("nodes", [sys.executable, "-m", "hack.karpenter.nodes", str(kubeconfig)]),
                ("workloads", workloads),
                ("workspace-controller", [*controller, *arguments]),
            )
        ]

    def _account_kubeconfig(self) -> Path:
        """Writes a kubeconfig that impersonates the controller's service account."""
        config: dict[str, Any] = yaml.safe_load(self.kubeconfig.read_text())
        config["users"][0]["user"] |= {"as": ACCOUNT, "as-groups": ["system:serviceaccounts", "system:authenticated"]}
        config["contexts"][0]["context"]["namespace"] = "kaito-system"
        path = self.folder / "account.kubeconfig"
        path.touch(0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Runs kubectl against the API server and returns its output."""
        return run_kubectl(self.kubeconfig, *arguments, stdin=stdin, check=check)

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Creates or changes objects."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Returns the objects of a kind in all namespaces."""
        found: list[dict[str, Any]] = json.loads(
            self.kubectl("get", kind, "-A", "-o", "json", f"--selector={selector}")
        )["items"]
        return found

    def claims(self, workspace: str) -> list[dict[str, Any]]:
        """Returns the NodeClaims of a Workspace."""
        return self.items("nodeclaims", f"kaito.sh/workspace={workspace}")

    def conditions(self, workspace: str) -> dict[str, tuple[str, str, str]]:
        """Returns status, reason and message of each condition of a Workspace."""
        found = json.loads(self.kubectl("get", "workspace", workspace, "-o", "json"))
        listed: list[dict[str, str]] = found.get("status", {}).get("conditions", [])
        return {each["type"]: (each["status"], each["reason"], each.get("message", "")) for each in listed}

    def created(self, workspace: str) -> list[str]:
        """Returns the names of the NodeClaims that the controller created for a Workspace, from its log."""
        return [line["claim"] for line in self._creations(workspace)]

    def creation_times(self, workspace: str) -> list[float]:
        """Returns when these NodeClaims were created, in seconds since the epoch."""
        return [datetime.fromisoformat(line["ts"]).timestamp() for line in self._creations(workspace)]

    def _creations(self, workspace: str) -> list[dict[str, Any]]:
        log = (self.folder / "workspace-controller.log").read_text()
        lines = [json.loads(line) for line in log.splitlines() if '"claim created"' in line]
        return [line for line in lines if line["name"] == workspace]

    def until(self, found: Callable[[], T], what: str, seconds: float = 90.0) -> T:
        """Polls until the function returns something true, and returns it.

        Raises:
            TimeoutError: it did not; the message contains what was awaited and the end of the controller's log.
        """
        deadline = time.monotonic() + seconds
        while not (result := found()):
            if time.monotonic() > deadline:
                log = (self.folder / "workspace-controller.log").read_text()[-1000:]
                raise TimeoutError(f"waited {seconds:.0f} s for {what}; log: {log}")
            time.sleep(POLL_SECONDS)
        return result

    def until_condition(
        self, workspace: str, condition: str, status: str, words: str = "", seconds: float = 90.0
    ) -> str:
        """Waits for a condition's status and words of its message or reason; returns the message."""

        def found() -> str:
            state, reason, message = self.conditions(workspace).get(condition, ("", "", ""))
            return f"{reason}: {message}" if state == status and words in f"{reason}: {message}" else ""

        return self.until(found, f"{condition}={status} of {workspace} with {words!r}", seconds)


@contextlib.contextmanager
def karpenter_stack(
    arguments: Sequence[str], *documents: Mapping[str, Any], overlay: str = "karpenter", pods: bool = False
) -> Generator[KarpenterStack]:
    """Runs the control plane, Karpenter and the controller.

    Args:
        arguments: arguments of the controller.
        documents: objects that exist before the programs start.
        overlay: folder of the installation in `config/overlays`.
        pods: whether pods exist, which are evicted from nodes that Karpenter drains.

    Raises:
        Unavailable: binaries are missing and cannot be built.
    """
    crds = Karpenter.crds()  # builds Karpenter before anything is started
    with ControlPlane() as control_plane, contextlib.ExitStack() as cleanup:
        stack = KarpenterStack(control_plane.kubeconfig, control_plane.folder, arguments, pods=pods)
        stack.kubectl("apply", "--server-side", *(f"--filename={path}" for path in crds))
        stack.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        stack.kubectl("apply", "--server-side", "-k", str(ROOT / "config" / "overlays" / overlay))
        stack.kubectl("delete", "validatingwebhookconfigurations", "--all")  # no pod serves the webhook
        stack.kubectl("delete", "nodepools", "--all")  # the kind of its node class cannot be changed
        stack.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        stack.apply(*documents)
        cleanup.enter_context(Karpenter(control_plane.kubeconfig, control_plane.folder))
        for program in stack.programs:
            program.start()
            cleanup.callback(program.stop)
        yield stack
        if keep := os.environ.get("KEEP_LOGS"):
            for log in control_plane.folder.glob("*.log"):
                (Path(keep) / log.name).write_bytes(log.read_bytes())
