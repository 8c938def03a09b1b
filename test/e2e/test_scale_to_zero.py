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
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kaito.api import labels
from kaito.runtime import Again, Controller, Manager, ObjectMeta, Request, Settings
from kaito.runtime.cache import Cached
from kaito.runtime.client import Api, MergePatch
from kaito.runtime.kinds import EndpointSlice, Node, Pod, StatefulSet
from test.support.stack import ROOT, Program, Stack, stack, until

COPIES = 5
GRACE_SECONDS = 40
"""`terminationGracePeriodSeconds` of the pods."""
PRE_STOP_SECONDS = 5

ACTIVATOR_IP = "10.9.0.1"
"""An address that an EndpointSlice may contain; the activator listens on loopback."""


def pod_ip(ordinal: int) -> str:
    """The address of the server of a pod."""
    return f"127.3.0.{ordinal + 1}"


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
    """The servers in the pods, one address each. A server that drains refuses requests."""

    def __init__(self) -> None:
        self.answered = 0
        self.draining: set[str] = set()

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None]:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self._chat), web.get("/metrics", self._metrics)])
        runner = web.AppRunner(app)
        await runner.setup()
        for ordinal in range(COPIES):
            await web.TCPSite(runner, pod_ip(ordinal), 5000).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _chat(self, request: web.Request) -> web.Response:
        if request.get_extra_info("sockname")[0] in self.draining:
            return web.json_response({"error": {"message": "draining"}}, status=503, headers={"Retry-After": "1"})
        body = await request.json()
        await asyncio.sleep(0.1)
        self.answered += 1
        return web.json_response({"number": body["number"]})

    async def _metrics(self, _: web.Request) -> web.Response:
        text = f'kaito_http_requests_total{{code="200",route="/v1/chat/completions"}} {self.answered}\n'
        return web.Response(text=f"{text}kaito_generation_in_flight 0\n")

    async def run_pods(self, request: Request[StatefulSet]) -> Again | None:
        """Runs a pod on each node, up to the replicas; a surplus pod drains after its `preStop`, and ends."""
        owner, api = request.object, request.api
        wanted = 1 if owner.spec.replicas is None else owner.spec.replicas
        nodes = sorted(node.name for node in await api.list(Node) if node.is_ready and not node.deleting)
        pods = {pod.name: pod for pod in await api.list(Pod, namespace=owner.namespace, owned_by=owner)}
        free = [node for node in nodes if node not in {pod.spec.node_name for pod in pods.values()}]
        for ordinal in range(wanted):
            if f"{owner.name}-{ordinal}" not in pods and free:
                pod = await self._start(api, owner, ordinal, free.pop(0))
                pods[pod.name] = pod
        for pod in pods.values():
            if pod.deleting:
                await self._end(api, pod)
            elif int(pod.name.rpartition("-")[2]) >= wanted:
                await api.delete(pod, grace_seconds=GRACE_SECONDS)
        running = [pod for pod in pods.values() if not pod.deleting]
        async with request.status() as scope:
            scope.set(observed_generation=owner.metadata.generation, replicas=len(pods), ready_replicas=len(running))
        return Again(0.5, "nodes and pods change") if len(running) != wanted or len(pods) != wanted else None

    async def _start(self, api: Api, owner: StatefulSet, ordinal: int, node: str) -> Pod:
        address = pod_ip(ordinal)
        self.draining.discard(address)
        metadata = ObjectMeta(
            name=f"{owner.name}-{ordinal}",
            namespace=owner.namespace,
            labels=owner.spec.template.metadata.labels,
            owner_references=[owner.owner_reference()],
        )
        spec = {"nodeName": node, "containers": [{"name": "model", "image": "model"}]}
        pod = await api.create(Pod.model_validate({"metadata": metadata.to_dict(), "spec": spec}))
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": ready}
        return await api.patch(pod, MergePatch({"status": status}), subresource="status")

    async def _end(self, api: Api, pod: Pod) -> None:
        """Ends a pod that is deleted: it answers during `preStop`, then it refuses requests, then it is gone."""
        ends_at = pod.metadata.deletion_timestamp
        left = (ends_at - datetime.now(UTC)).total_seconds() if ends_at is not None else 0.0
        if GRACE_SECONDS - left >= PRE_STOP_SECONDS and pod.status.pod_ip:
            self.draining.add(pod.status.pod_ip)
        if GRACE_SECONDS - left >= PRE_STOP_SECONDS + 1:
            await api.delete(pod, grace_seconds=0)


class Client:
    """Sends requests to the endpoints of the Service, as kube-proxy routes them."""

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
        endpoint = random.choice(self._endpoints())
        await asyncio.sleep(random.random())  # a node routes by endpoints that are up to a second old
        url = f"http://{endpoint}/v1/chat/completions"
        async with self._session.post(url, json={"number": number}) as response:
            self.statuses.append(response.status)
            self.waited.append(float(response.headers.get("X-Kaito-Waited-Seconds", "0")))
            assert response.status == 200, f"{endpoint}: {await response.text()}"
            assert await response.json() == {"number": number}

    async def load(self, stopped: asyncio.Event) -> None:
        """Sends ten requests each second."""
        async with asyncio.TaskGroup() as group:
            while not stopped.is_set():
                group.create_task(self.send(len(self.statuses)))
                await asyncio.sleep(0.1)


def workspace(running: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(running.kubectl("get", "workspace", "phi", "-o", "json"))
    return found


def condition(running: Stack, name: str) -> dict[str, str]:
    found = workspace(running).get("status", {}).get("conditions", [])
    return next((each for each in found if each["type"] == name), {"status": "Unknown", "reason": "", "message": ""})


def is_ready(running: Stack) -> bool:
    return condition(running, "WorkspaceReady")["status"] == "True"


def copies(running: Stack) -> tuple[int, int]:
    status = workspace(running)["status"]
    return status.get("replicas", 0), status.get("readyReplicas", 0)


def count(running: Stack, kind: str) -> int:
    return len(json.loads(running.kubectl("get", kind, "-o", "json"))["items"])


def activator(running: Stack) -> Program:
    command = [sys.executable, str(ROOT / "cmd" / "workspace-activator" / "__main__.py")]
    command += [f"--kubeconfig={running.kubeconfig}", "--metrics-bind-address=0", "--health-probe-bind-address=0"]
    return Program("activator", [*command, "--listen-address=127.0.0.1"], running.folder / "activator.log")


@pytest.mark.timeout(420)
async def test_no_request_is_lost_from_one_copy_to_five_to_none_and_back() -> None:
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
        pods = Controller(StatefulSet, model.run_pods, name="pods", cache=cached).owns(Pod)
        async with Manager(settings, controllers=[pods], name="kubelet") as manager:
            running.kubectl("apply", "-f", "-", stdin=MANIFEST)
            await until(lambda: is_ready(running), "the first start", 120)
            client, stopped = Client(manager, session), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(client.load(stopped))
                running.kubectl("scale", "workspace", "phi", f"--replicas={COPIES}")
                await until(lambda: copies(running) == (COPIES, COPIES), "five copies", 120)
                assert count(running, "machines") == COPIES
                running.kubectl("scale", "workspace", "phi", "--replicas=1")
                await until(lambda: count(running, "machines") == 1, "four nodes to be given back", 120)
                stopped.set()
            sent = len(client.statuses)
            assert client.statuses == [200] * sent

            await until(lambda: workspace(running)["spec"]["replicas"] == 0, "the scale to zero", 150)
            await client.send(sent)  # at once: the pod may still run, or the request starts a copy again
            await until(lambda: count(running, "machines") == 0, "the node to be given back", 240)
            message = condition(running, "InferenceReady")["message"]
            assert message.startswith("no copies, because spec.replicas is 0; a request to its Service starts a copy")

            async with asyncio.TaskGroup() as group:
                for number in range(30):
                    group.create_task(client.send(number))
            assert client.statuses == [200] * (sent + 31)
            assert min(client.waited[-30:]) > 0.5
            assert model.answered == sent + 31
            assert workspace(running)["spec"]["replicas"] == 1
            await until(lambda: is_ready(running), "the second start", 60)
            assert workspace(running)["status"]["scaling"]["lastStartSeconds"] >= 0
