"""Gives tests on a real node what a user has: kubectl, curl, and waits that end with a diagnosis."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hack.cluster import REGISTRY, Cluster, CommandFailed

ROOT = Path(__file__).parents[2]
VERSION = (ROOT / "VERSION").read_text().strip()
SYSTEM = "kaito-system"
PREFIX = f"{REGISTRY}/kaito"
"""Registry and repository prefix of the images under test."""
MODELS = f"{REGISTRY}/models"
"""Registry and repository prefix of model artifacts."""
_POLL_SECONDS = 1.0


class NotReached(AssertionError):
    """Raised when a state was not reached in time; the message has the diagnosis."""


@dataclass(frozen=True)
class Diagnosis:
    """Collects what an operator would look at after a failure."""

    cluster: Cluster
    namespaces: tuple[str, ...] = ("default", SYSTEM)
    tail: int = 40

    def text(self) -> str:
        """Returns objects, events and the ends of logs; a part that cannot be read is an error in one line."""
        parts = [self._run("get", "nodes,pods,workspaces,machines,jobs,statefulsets", "--all-namespaces", "-o", "wide")]
        parts.append(self._run("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"))
        for namespace in self.namespaces:
            parts.append(self._run("describe", "pods,workspaces", "-n", namespace))
            names = self._run("get", "pods", "-n", namespace, "-o", "name").split()
            for name in names:
                log = self._run("logs", "-n", namespace, name, "--all-containers", f"--tail={self.tail}")
                parts.append(f"--- {namespace} {name}\n{log}")
        processes = self.cluster.processes
        parts.extend(f"--- {name}\n{processes.log_end(name, 10)}" for name in ("kubelet", "containerd"))
        return "\n".join(parts)

    def _run(self, *words: str) -> str:
        try:
            result = self.cluster.run("kubectl", *words, check=False, timeout_seconds=60)
        except subprocess.TimeoutExpired as error:
            return f"kubectl {' '.join(words)}: {error}"
        return result.stdout + result.stderr


@dataclass
class Kubernetes:
    """Access to the cluster as a user has it: kubectl and curl.

    Args:
        cluster: The cluster.
        namespace: Namespace of objects without one.
    """

    cluster: Cluster
    namespace: str = "default"
    _clean_up: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Applies objects.

        Raises:
            CommandFailed: the API server rejected one.
        """
        text = yaml.safe_dump_all([dict(document) for document in documents])
        self.cluster.kubectl("apply", "-n", self.namespace, "--server-side", "-f", "-", stdin=text)

    def rejection(self, document: Mapping[str, Any]) -> str:
        """Returns the message with which the API server rejects an object."""
        text = yaml.safe_dump(dict(document))
        result = self.cluster.run("kubectl", "apply", "-n", self.namespace, "-f", "-", stdin=text, check=False)
        assert result.returncode != 0, f"accepted: {text}"
        return result.stderr

    def get(self, *words: str) -> Any:
        """Returns an object or a list as JSON; None if it does not exist."""
        result = self.cluster.run("kubectl", "get", "-n", self.namespace, *words, "-o", "json", check=False)
        if result.returncode != 0:
            if "NotFound" in result.stderr or "not found" in result.stderr:
                return None
            raise CommandFailed(("kubectl", "get", *words), result)
        return json.loads(result.stdout)

    def items(self, *words: str) -> list[Any]:
        """Returns the objects of a list."""
        found: list[Any] = self.get(*words)["items"]
        return found

    def delete(self, *words: str, timeout_seconds: int = 240) -> None:
        """Deletes objects and waits until they are deleted."""
        command = ("kubectl", "delete", "-n", self.namespace, "--ignore-not-found", *words)
        limit = (f"--timeout={timeout_seconds}s",)
        result = self.cluster.run(*command, *limit, check=False, timeout_seconds=timeout_seconds + 30)
        if result.returncode != 0:
            raise NotReached(f"{' '.join(command)}: {result.stderr}\n{Diagnosis(self.cluster).text()}")

    def until(self, what: str, is_reached: Callable[[], bool], seconds: float = 180) -> float:
        """Waits until a state is reached; returns the seconds it took.

        Raises:
            NotReached: it was not reached in time.
        """
        begun = time.monotonic()
        while not is_reached():
            if time.monotonic() - begun > seconds:
                raise NotReached(f"{what}: not after {seconds:.0f} s\n{Diagnosis(self.cluster).text()}")
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - begun

    def rolled_out(self, name: str, seconds: int = 240) -> None:
        """Waits for a Deployment of the installation."""
        words = ("rollout", "status", f"deployment/{name}", "-n", SYSTEM, f"--timeout={seconds}s")
        result = self.cluster.run("kubectl", *words, check=False, timeout_seconds=seconds + 30)
        if result.returncode != 0:
            raise NotReached(f"{' '.join(words)}: {result.stderr}\n{Diagnosis(self.cluster).text()}")

    def condition(self, workspace: str, kind: str) -> Mapping[str, str]:
        """Returns a condition of a Workspace; an empty mapping if it does not exist."""
        found: dict[str, Any] = self.get("workspace", workspace) or {}
        conditions: list[dict[str, str]] = found.get("status", {}).get("conditions", [])
        return next((condition for condition in conditions if condition["type"] == kind), dict[str, str]())

    def uid(self, *words: str) -> str:
        """Returns the UID of an object; empty if it does not exist."""
        found: dict[str, Any] = self.get(*words) or {}
        return str(found.get("metadata", {}).get("uid", ""))

    def is_pod_ready(self, name: str) -> bool:
        """Whether the containers of a pod are ready."""
        found: dict[str, Any] = self.get("pod", name) or {}
        conditions: list[dict[str, str]] = found.get("status", {}).get("conditions", [])
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def until_condition(self, workspace: str, kind: str, status: str = "True", seconds: float = 300) -> float:
        """Waits for a condition of a Workspace; returns the seconds it took."""
        what = f"{kind}={status} of Workspace {workspace}"
        return self.until(what, lambda: self.condition(workspace, kind).get("status") == status, seconds)

    def service_address(self, name: str) -> str:
        """Returns the cluster IP of a Service."""
        address: str = self.get("service", name)["spec"]["clusterIP"]
        return address

    def post(self, url: str, body: Mapping[str, Any], seconds: int = 240) -> Any:
        """Sends a JSON request from inside of the cluster's network; returns the JSON answer.

        Raises:
            CommandFailed: curl failed or the status is an error.
        """
        command = ["curl", "-sS", "--fail-with-body", "--max-time", str(seconds)]
        header = ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        result = self.cluster.run(*command, *header, url, stdin=json.dumps(body), timeout_seconds=seconds + 10)
        return json.loads(result.stdout)


def leader_identity(kubernetes: Kubernetes) -> str:
    """Returns the identity of the leading process, POD_UUID; empty without one. A restarted container has another."""
    leases = kubernetes.items("leases", "-n", SYSTEM)
    holders = [lease["spec"].get("holderIdentity", "") for lease in leases if "workspace" in lease["metadata"]["name"]]
    return str(holders[0] or "") if holders else ""


def leader(kubernetes: Kubernetes) -> str:
    """Returns the name of the leading pod; empty without one."""
    return leader_identity(kubernetes).partition("_")[0]


def workspace(name: str, **resource: object) -> dict[str, Any]:
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name},
        "resource": {"labelSelector": {"matchLabels": {"apps": name}}, **resource},
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
    }
