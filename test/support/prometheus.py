"""A Prometheus on the cluster's network that scrapes what the PodMonitors of config/monitoring select."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from hack.cluster import Cluster
from kaito.runtime.clock import SystemClock
from test.support.real_node import ROOT

MONITORING = ROOT / "config" / "monitoring"
PROCESS = "prometheus"
ADDRESS = "127.0.0.1:9090"
SCRAPE_SECONDS = 5
_START_SECONDS = 60.0
_STEP_SECONDS = 5


def scrape_configs(monitors: Iterable[Mapping[str, Any]], kubeconfig: Path) -> list[dict[str, Any]]:
    """Returns the scrape configuration that the Prometheus Operator writes for PodMonitors."""
    return [
        _scrape_config(monitor, endpoint, kubeconfig)
        for monitor in monitors
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
    ]


def _scrape_config(monitor: Mapping[str, Any], endpoint: Mapping[str, Any], kubeconfig: Path) -> dict[str, Any]:
    metadata, spec, port = monitor["metadata"], monitor["spec"], endpoint["port"]
    discovery: dict[str, Any] = {"role": "pod", "kubeconfig_file": str(kubeconfig)}
    if not spec.get("namespaceSelector", {}).get("any"):
        discovery["namespaces"] = {"names": [metadata["namespace"]]}
    relabeling = [*_selection(spec["selector"])]
    relabeling.append(_keep("container_port_name", port))
    relabeling.extend(
        _copy(f"pod_label_{_sanitized(label)}", _sanitized(label)) for label in spec.get("podTargetLabels", ())
    )
    relabeling.extend(
        _copy(source, target)
        for source, target in (("namespace", "namespace"), ("pod_name", "pod"), ("pod_container_name", "container"))
    )
    return {
        "job_name": f"podMonitor/{metadata['namespace']}/{metadata['name']}/{port}",
        "honor_labels": endpoint.get("honorLabels", False),
        "kubernetes_sd_configs": [discovery],
        "relabel_configs": relabeling,
    }


def _selection(selector: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for label, value in selector.get("matchLabels", {}).items():
        yield _keep(f"label_{_sanitized(label)}", value)
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "Exists", expression
        yield _keep(f"labelpresent_{_sanitized(expression['key'])}", "true")


def _sanitized(label: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in label)


def _keep(source: str, pattern: str) -> dict[str, Any]:
    return {"source_labels": [f"__meta_kubernetes_pod_{source}"], "regex": pattern, "action": "keep"}


def _copy(source: str, target: str) -> dict[str, Any]:
    return {"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target}


@dataclass(frozen=True)
class Prometheus:
    """The running server."""

    cluster: Cluster
    since: float

    def labels_with_data(self, expression: str) -> list[Mapping[str, str]]:
        """Returns the label sets of the series that an expression had since the server started."""
        query = {
            "query": expression,
            "start": self.since,
            "end": SystemClock().now().timestamp(),
            "step": _STEP_SECONDS,
        }
        return [series["metric"] for series in self._get("query_range", query)["result"]]

    def rules(self) -> list[Mapping[str, Any]]:
        """Returns the state of all alerts."""
        return [rule for group in self._get("rules", {})["groups"] for rule in group["rules"]]

    def targets(self) -> list[Mapping[str, Any]]:
        """Returns what is scraped now."""
        found: list[Mapping[str, Any]] = self._get("targets", {"state": "active"})["activeTargets"]
        return found

    def _get(self, path: str, query: Mapping[str, object]) -> Any:
        url = f"http://{ADDRESS}/api/v1/{path}?{urlencode(query)}"
        answer = json.loads(self.cluster.run("curl", "-sS", "--max-time", "60", url).stdout)
        assert answer["status"] == "success", answer
        return answer["data"]


def start(cluster: Cluster) -> Prometheus:
    """Starts the server with all PodMonitors and alerts of config/monitoring.

    Raises:
        StartFailed: it ended or did not become ready.
    """
    folder = cluster.layout.state / PROCESS
    folder.mkdir(exist_ok=True)
    monitors = list(yaml.safe_load_all((MONITORING / "pod-monitors.yaml").read_text()))
    rules = [yaml.safe_load(path.read_text())["spec"] for path in sorted(MONITORING.glob("rules-*.yaml"))]
    files = {f"rules-{number}.yaml": document for number, document in enumerate(rules)}
    seconds = f"{SCRAPE_SECONDS}s"
    files["prometheus.yaml"] = {
        "global": {"scrape_interval": seconds, "scrape_timeout": seconds, "evaluation_interval": seconds},
        "rule_files": [str(folder / name) for name in files],
        "scrape_configs": scrape_configs(monitors, cluster.layout.kubeconfig),
    }
    for name, document in files.items():
        (folder / name).write_text(yaml.safe_dump(document))
    program = _program((sys.executable, "-m", "hack.tools", "prometheus"))
    storage, configuration = f"--storage.tsdb.path={folder / 'data'}", f"--config.file={folder / 'prometheus.yaml'}"
    since = SystemClock().now().timestamp()
    cluster.processes.start(PROCESS, [program, configuration, storage, f"--web.listen-address={ADDRESS}"])
    ready = ("curl", "-sf", "--max-time", "5", f"http://{ADDRESS}/-/ready")
    cluster.processes.wait(PROCESS, lambda: cluster.run(*ready, check=False).returncode == 0, _START_SECONDS)
    return Prometheus(cluster, since)


def stop(cluster: Cluster) -> None:
    """Stops the server."""
    cluster.processes.stop(PROCESS)


def _program(command: Sequence[str]) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
