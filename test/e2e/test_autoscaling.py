"""Scaling by load on a real API server with both programs: the metrics of a server add Workspaces and remove them."""

import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from test.e2e.test_inference_sets import names, row
from test.support.stack import Stack, stack, until

ADDRESS = "127.0.0.42"
"""Address of the pod; servers listen on port 5000, and every address of 127.0.0.0/8 is this machine's."""

MANIFEST = """
apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata: {name: phi-4-mini}
spec:
  replicas: 1
  labelSelector: {matchLabels: {apps: phi-4-mini}}
  autoscaling:
    minReplicas: 1
    maxReplicas: 3
    target: {requests: 10}
    scaleUp: {windowSeconds: 0}
    scaleDown: {windowSeconds: 30, copiesPerMinute: 2}
  template:
    resource: {instanceType: Standard_NC24ads_A100_v4}
    inference: {preset: {name: phi-4-mini-instruct}}
"""

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: phi-4-mini-0-0
  labels: {kaito.sh/workspace: phi-4-mini-0}
spec:
  nodeName: NODE
  containers: [{name: model, image: registry.example/model:1}]
"""


class Server(ThreadingHTTPServer):
    """The metrics of a model server whose requests the test sets."""

    running = 0


class Handler(BaseHTTPRequestHandler):
    """Answers `GET /metrics` in vLLM's form."""

    def do_GET(self) -> None:
        server = self.server
        running = server.running if isinstance(server, Server) else 0
        body = (
            f'vllm:num_requests_running{{engine="0"}} {running}\nvllm:num_requests_waiting{{engine="0"}} 0\n'.encode()
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Writes no access log."""


@contextmanager
def served(address: str) -> Generator[Server]:
    """Runs the server of a model on port 5000 of an address."""
    try:
        server = Server((address, 5000), Handler)
    except OSError as error:
        pytest.skip(f"port 5000 of {address} cannot be used: {error}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def model() -> Iterator[Server]:
    with served(ADDRESS) as server:
        yield server


def decision(running: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        running.kubectl("get", "inferenceset", "phi-4-mini", "-o", "jsonpath={.status.autoscaling}") or "{}"
    )
    return found


@pytest.mark.timeout(300)
async def test_workspaces_follow_the_load_of_the_servers(model: Server) -> None:
    async with stack() as running:
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await until(lambda: row(running) == ["1", "1"], "one Workspace to serve")
        node = running.kubectl("get", "workspace", "phi-4-mini-0", "-o", "jsonpath={.status.workerNodes[0]}")
        running.kubectl("apply", "-f", "-", stdin=POD.replace("NODE", node))
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2030-01-01T00:00:00Z"}
        status = {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}], "conditions": [ready]}
        patch = json.dumps({"status": status})
        running.kubectl("patch", "pod", "phi-4-mini-0-0", "--subresource=status", "--type=merge", f"--patch={patch}")
        await until(lambda: decision(running).get("reason") == "Steady", "the load to be known")

        model.running = 28
        await until(lambda: row(running) == ["3", "3"], "three Workspaces to serve", 90)
        assert len(await running.pools()) == 3
        events = running.kubectl("get", "events", "-o", "jsonpath={.items[*].message}")
        assert "changed replicas from 1 to 3: 28 requests run or wait, and the target is 10 for each copy" in events

        model.running = 2
        await until(lambda: names(running) == ["phi-4-mini-0"], "two Workspaces to be removed", 150)
        assert decision(running)["replicas"] == 1
