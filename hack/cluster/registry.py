"""Starts an image registry on the node's address, with a certificate of the cluster's authority.

That is how a registry inside of a company looks: containerd is configured to trust the authority, and pods that pull
themselves need its certificate.
"""

import json
import subprocess

from hack.cluster import binaries
from hack.cluster.layout import REGISTRY, Layout
from hack.cluster.network import inside
from hack.cluster.processes import Processes

_CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http:
  addr: {address}
  tls: {{certificate: {certificates}/registry.crt, key: {certificates}/registry.key}}
log: {{level: warn}}
"""
_START_SECONDS = 30.0


def start(layout: Layout, processes: Processes) -> None:
    """Starts the registry; its blobs outlive the cluster.

    Raises:
        StartFailed: it ended or did not become ready.
    """
    storage = layout.kept / "registry"
    storage.mkdir(parents=True, exist_ok=True)
    configuration = layout.state / "registry.yaml"
    configuration.write_text(_CONFIGURATION.format(storage=storage, address=REGISTRY, certificates=layout.certificates))
    processes.start(
        "registry",
        [binaries.path("registry"), "serve", configuration],
        environment={"OTEL_TRACES_EXPORTER": "none"},
    )
    processes.wait("registry", lambda: _get(layout, "/v2/") is not None, _START_SECONDS)


def tags(layout: Layout, repository: str) -> list[str]:
    """Returns the tags of a repository; an empty list if it does not exist."""
    body = _get(layout, f"/v2/{repository}/tags/list")
    names: list[str] | None = json.loads(body).get("tags") if body is not None else None
    return names or []


def hosts_file(layout: Layout) -> str:
    """Returns containerd's configuration of this registry (`hosts.toml`)."""
    url, authority = f"https://{REGISTRY}", layout.certificates / "ca.crt"
    return f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n  ca = "{authority}"\n'


def _get(layout: Layout, path: str) -> str | None:
    authority = str(layout.certificates / "ca.crt")
    result = subprocess.run(
        [*inside(layout), "curl", "-sf", "--max-time", "10", "--cacert", authority, f"https://{REGISTRY}{path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout if result.returncode == 0 else None
