"""Scale to zero and back with real processes: controller, activator and gpu-provisioner on a real API server.

The test is kubelet and kube-proxy: it runs the pods of the StatefulSet as a server on loopback once a node exists, and
sends each request to an endpoint of the Service: a ready pod, or the activator while its EndpointSlice names it.
"""

import asyncio
import json
import random
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kaito.api import labels
from kaito.runtime import Again, Controller, Manager, ObjectMeta, Request, Settings
from kaito.runtime.cache import Cached
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import EndpointSlice, Node, Pod, StatefulSet
from test.support.stack import ROOT, Program, Stack, stack, until

POD_IP = "127.3.0.1"
ACTIVATOR_IP = "10.9.0.1"
"""An address that an EndpointSlice may contain; the activator listens on loopback."""

MANIFEST = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: phi}
spec:
  replicas: 1
  autoscaling: {minReplicas: 0, idleSeconds: 60}
resource:
  instanceType: Standard_NC24ads_A100_v4
  labelSelector: {matchLabels: {apps: phi}}
inference:
  preset: {name: phi-4}
"""

ADDRESSES = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: kaito-system}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: workspace-activator-1
  namespace: kaito-system
  labels: {{kaito.sh/activator: address}}
addressType: IPv4
endpoints:
  - addresses: [{ACTIVATOR_IP}]
    conditions: {{ready: true}}
ports: []
"""


class Model:
    """The server in the pods."""

    def __init__(self) -> None:
        self.answered = 0

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None]:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self._chat), web.get("/metrics", self._metrics)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, POD_IP, 5000).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(0.1)
        self.answered += 1
        return web.json_response({"number": body["number"]})

    async def _metrics(self, _: web.Request) -> web.Response:
        text = f'kaito_http_requests_total{{code="200",route="/v1/chat/completions"}} {self.answered}\n'
        return web.Response(text=f"{text}kaito_generation_in_flight 0\n")


async def run_pods(request: Request[StatefulSet]) -> Again | None:
    """Runs the pod of a StatefulSet once a node is ready, and ends it with the StatefulSet's replicas."""
    owner, api = request.object, request.api
    wanted = 1 if owner.spec.replicas is None else owner.spec.replicas
    nodes = [node for node in await api.list(Node) if node.is_ready]
    pods = await api.list(Pod, namespace=owner.namespace, owned_by=owner)
    if wanted and not pods and nodes:
        metadata = ObjectMeta(
            name=f"{owner.name}-0",
            namespace=owner.namespace,
            labels=owner.spec.template.metadata.labels,
            owner_references=[owner.owner_reference()],
        )
        spec = {"nodeName": nodes[0].name, "containers": [{"name": "model", "image": "model"}]}
        pod = await api.create(Pod.model_validate({"metadata": metadata.to_dict(), "spec": spec}))
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": POD_IP, "podIPs": [{"ip": POD_IP}], "conditions": ready}
        await api.patch(pod, MergePatch({"status": status}), subresource="status")
    for pod in pods if not wanted else ():
        await api.delete(pod, grace_seconds=0)
    ready_pods = len(pods) if wanted else 0
    async with request.status() as scope:
        scope.set(observed_generation=owner.metadata.generation, replicas=ready_pods, ready_replicas=ready_pods)
    return Again(0.5, "a node may appear") if wanted and not pods else None


class Client:
    """Sends requests to the endpoints of the Service."""

    def __init__(self, manager: Manager, session: aiohttp.ClientSession) -> None:
        self._manager = manager
        self._session = session
        self.statuses: list[int] = []
        self.waited: list[float] = []

    def _endpoints(self) -> list[str]:
        pods = [pod for pod in self._manager.cache.list(Pod) if pod.is_ready and not pod.deleting]
        slices = [each for each in self._manager.cache.list(EndpointSlice) if each.endpoints]
        held = [f"127.0.0.1:{each.ports[0].port}" for each in slices if each.name == "phi-activator"]
        return [*(f"{pod.status.pod_ip}:5000" for pod in pods), *held]

    async def send(self, number: int) -> None:
        endpoint = random.choice(self._endpoints())  # as kube-proxy does
        url = f"http://{endpoint}/v1/chat/completions"
        async with self._session.post(url, json={"number": number}) as response:
            self.statuses.append(response.status)
            assert await response.json() == {"number": number}
            self.waited.append(float(response.headers.get("X-Kaito-Waited-Seconds", "0")))


def workspace(running: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(running.kubectl("get", "workspace", "phi", "-o", "json"))
    return found


def condition(running: Stack, name: str) -> dict[str, str]:
    found = workspace(running).get("status", {}).get("conditions", [])
    return next((each for each in found if each["type"] == name), {"status": "Unknown", "reason": "", "message": ""})


def count(running: Stack, kind: str) -> int:
    return len(json.loads(running.kubectl("get", kind, "-o", "json"))["items"])


def activator(running: Stack) -> Program:
    command = [sys.executable, str(ROOT / "cmd" / "workspace-activator" / "__main__.py")]
    command += [f"--kubeconfig={running.kubeconfig}", "--metrics-bind-address=0", "--health-probe-bind-address=0"]
    return Program("activator", [*command, "--listen-address=127.0.0.1"], running.folder / "activator.log")


@pytest.mark.timeout(420)
async def test_no_request_is_lost_from_one_copy_to_none_and_back() -> None:
    model = Model()
    async with stack("machine") as running, model.served(), aiohttp.ClientSession() as session:
        running.programs.pop("driver").stop()
        running.programs["activator"] = holder = activator(running)
        holder.start()
        running.kubectl("apply", "-f", "-", stdin=ADDRESSES)
        settings = Settings(
            kubeconfig=running.kubeconfig, metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False
        )
        cached = [Cached(EndpointSlice, labels=labels.ACTIVATOR), Cached(Node)]
        pods = Controller(StatefulSet, run_pods, name="pods", cache=cached).owns(Pod)
        async with Manager(settings, controllers=[pods], name="kubelet") as manager:
            running.kubectl("apply", "-f", "-", stdin=MANIFEST)
            await until(lambda: condition(running, "WorkspaceReady")["status"] == "True", "the first start", 120)
            client = Client(manager, session)
            for number in range(20):
                await client.send(number)

            await until(lambda: workspace(running)["spec"]["replicas"] == 0, "the scale to zero", 150)
            await client.send(20)  # at once: the pod may still run, or the request starts a copy again
            assert client.statuses == [200] * 21
            await until(lambda: count(running, "machines") == 0, "the node to be given back", 240)
            message = condition(running, "InferenceReady")["message"]
            assert message.startswith("no copies, because spec.replicas is 0; a request to its Service starts a copy")

            async with asyncio.TaskGroup() as group:
                for number in range(30, 60):
                    group.create_task(client.send(number))
            assert client.statuses == [200] * 51
            assert min(client.waited[-30:]) > 0.5
            assert model.answered == 51
            assert workspace(running)["spec"]["replicas"] == 1
            await until(lambda: condition(running, "WorkspaceReady")["status"] == "True", "the second start", 60)
            assert workspace(running)["status"]["scaling"]["lastStartSeconds"] >= 0
