"""Starts an image registry on the node's address, over plain HTTP."""

import json
import subprocess

from hack.cluster import binaries
from hack.cluster.layout import ADDRESS, REGISTRY, Layout
from hack.cluster.network import inside
from hack.cluster.processes import Processes

_CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http:
  addr: {address}
log: {{level: warn}}
"""
_START_SECONDS = 30.0


def start(layout: Layout, processes: Processes) -> None:
    """Start the registry; its blobs outlive the cluster.

    Raises:
        StartFailed: it ended or did not become ready.
    """
    storage = layout.kept / "registry"
    storage.mkdir(parents=True, exist_ok=True)
    configuration = layout.state / "registry.yaml"
    configuration.write_text(_CONFIGURATION.format(storage=storage, address=REGISTRY))
    processes.start(
        "registry",
        [binaries.path("registry"), "serve", configuration],
        environment={"OTEL_TRACES_EXPORTER": "none"},
    )
    processes.wait("registry", lambda: _get(layout, "/v2/") is not None, _START_SECONDS)


def tags(layout: Layout, repository: str) -> list[str]:
    """Return the tags of a repository; an empty list if it does not exist."""
    body = _get(layout, f"/v2/{repository}/tags/list")
    names: list[str] | None = json.loads(body).get("tags") if body is not None else None
    return names or []


def hosts_file() -> str:
    """Return containerd's configuration of this registry (`hosts.toml`)."""
    url = f"http://{ADDRESS}:{REGISTRY.rpartition(':')[2]}"
    return f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'


def _get(layout: Layout, path: str) -> str | None:
    result = subprocess.run(
        [*inside(layout), "curl", "-sf", "--max-time", "10", f"http://{REGISTRY}{path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout if result.returncode == 0 else None
