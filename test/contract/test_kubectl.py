"""kubectl against both servers: what a person types first has to work, and to look the same."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from test.contract.conftest import Server

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {plural: things, kind: Thing, shortNames: [th], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    schema:
      openAPIV3Schema:
        description: A thing to try kubectl with.
        type: object
        properties:
          spec:
            type: object
            description: What is wanted.
            properties:
              size: {type: integer, minimum: 1, description: How big it is to be.}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
WORKLOAD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'web:IMAGE', ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
"""


@dataclass
class Done:
    code: int
    out: str
    error: str


class Kubectl:
    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.base = [str(KUBECTL), "--kubeconfig", str(server.kubeconfig), "--cache-dir", str(folder)]
        self.base += ["--namespace", server.namespace]

    async def __call__(self, *words: str, text: str = "") -> Done:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self.base, *words, stdin=pipe, stdout=pipe, stderr=pipe)
        out, error = await process.communicate(text.encode())
        return Done(process.returncode or 0, out.decode(), error.decode())

    async def ok(self, *words: str, text: str = "") -> str:
        done = await self(*words, text=text)
        assert done.code == 0, done.error
        return done.out


@pytest.fixture
def kubectl(server: Server, tmp_path: Path) -> Kubectl:
    return Kubectl(server, tmp_path / "cache")


@pytest.fixture
def group(server: Server) -> str:
    return f"{server.namespace}.example.com"


async def define(kubectl: Kubectl, group: str) -> None:
    await kubectl.ok("apply", "-f", "-", text=DEFINITION.replace("GROUP", group))
    await kubectl.ok("wait", "--for=condition=Established", f"crd/things.{group}", "--timeout=10s")


def thing(group: str, size: int) -> str:
    return f"apiVersion: {group}/v1\nkind: Thing\nmetadata: {{name: one}}\nspec: {{size: {size}}}\n"


async def test_apply_creates_configures_and_leaves_alone(kubectl: Kubectl) -> None:
    first = await kubectl.ok("apply", "-f", "-", text=WORKLOAD.replace("IMAGE", "1"))
    again = await kubectl.ok("apply", "-f", "-", text=WORKLOAD.replace("IMAGE", "1"))
    changed = await kubectl.ok("apply", "-f", "-", text=WORKLOAD.replace("IMAGE", "2"))
    assert first.split("\n")[:2] == ["deployment.apps/web created", "service/web created"]
    assert again.split("\n")[:2] == ["deployment.apps/web unchanged", "service/web unchanged"]
    assert changed.split("\n")[:2] == ["deployment.apps/web configured", "service/web unchanged"]
    image = await kubectl.ok("get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
    assert image == "web:2"


async def test_get_shows_the_columns_of_built_in_kinds(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", text=WORKLOAD.replace("IMAGE", "1"))
    shown = await kubectl.ok("get", "deployments,services")
    lines = [re.sub(r"\s+", " ", re.sub(r"\d+s\b", "0s", line)).strip() for line in shown.splitlines() if line]
    assert lines == [
        "NAME READY UP-TO-DATE AVAILABLE AGE",
        "deployment.apps/web 0/2 0 0 0s",
        "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE",
        "service/web ClusterIP None <none> 80/TCP 0s",
    ]


async def test_a_custom_resource_lives_from_apply_to_delete(kubectl: Kubectl, group: str) -> None:
    await define(kubectl, group)
    assert await kubectl.ok("apply", "-f", "-", text=thing(group, 3)) == f"thing.{group}/one created\n"
    shown = await kubectl.ok("get", f"things.{group}")
    assert [line.split() for line in shown.splitlines()] == [["NAME", "SIZE", "READY"], ["one", "3"]]
    described = await kubectl.ok("describe", f"things.{group}", "one")
    assert re.search(r"Spec:\s+Size:\s+3", described)
    assert "Events:" in described
    assert await kubectl.ok("scale", f"things.{group}/one", "--replicas=5") == f"thing.{group}/one scaled\n"
    await kubectl.ok("patch", f"things.{group}", "one", "--type=merge", "-p", '{"spec":{"size":null}}')
    unset = await kubectl("get", "--raw", f"/apis/{group}/v1/namespaces/{kubectl.server.namespace}/things/one/scale")
    assert 'the spec replicas field ".spec.size" does not exist' in unset.error
    assert await kubectl.ok("scale", f"things.{group}/one", "--replicas=5") == f"thing.{group}/one scaled\n"
    patched = await kubectl.ok("patch", f"things.{group}", "one", "--type=merge", "-p", '{"spec":{"size":4}}')
    assert "patched" in patched
    assert await kubectl.ok("delete", f"things.{group}", "one") == f'thing.{group} "one" deleted\n'
    assert (await kubectl("get", f"things.{group}", "one")).error.startswith("Error from server (NotFound)")
    await kubectl.ok("delete", "crd", f"things.{group}")


async def test_the_error_of_a_rejected_schema_contains_the_field(kubectl: Kubectl, group: str) -> None:
    await define(kubectl, group)
    refused = await kubectl("apply", "-f", "-", text=thing(group, 0))
    assert refused.code == 1
    assert "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1" in refused.error
    unknown = await kubectl("apply", "-f", "-", text=thing(group, 1).replace("size: 1", "size: 1, sice: 2"))
    assert unknown.code == 1
    assert 'strict decoding error: unknown field "spec.sice"' in unknown.error
    await kubectl.ok("delete", "crd", f"things.{group}")


async def explain(kubectl: Kubectl, *words: str) -> str:
    """Explains a field of a new kind: a real server publishes its documents a moment after it serves the kind."""
    done = await kubectl("explain", *words)
    for _ in range(50):
        if done.code == 0:
            break
        await asyncio.sleep(0.2)
        done = await kubectl("explain", *words)
    assert done.code == 0, done.error
    return done.out


async def test_explain_reads_the_schema(kubectl: Kubectl, group: str) -> None:
    await define(kubectl, group)
    received = await explain(kubectl, f"things.{group}", "--recursive")
    assert "A thing to try kubectl with." in received
    field = await explain(kubectl, "things.spec.size", f"--api-version={group}/v1")
    assert "size <integer>" in re.sub(r"[\t ]+", " ", field)
    assert "How big it is to be." in field
    built_in = await kubectl.ok("explain", "deployment.spec.replicas")
    assert "Number of desired pods" in built_in
    await kubectl.ok("delete", "crd", f"things.{group}")


async def test_server_side_apply_conflicts_and_forces(kubectl: Kubectl, group: str) -> None:
    await define(kubectl, group)
    await kubectl.ok("apply", "--server-side", "-f", "-", text=thing(group, 1))
    taken = await kubectl("apply", "--server-side", "--field-manager=other", "-f", "-", text=thing(group, 2))
    assert taken.code == 1
    assert 'conflict with "kubectl": .spec.size' in taken.error
    forced = ["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"]
    assert "serverside-applied" in await kubectl.ok(*forced, text=thing(group, 2))
    await kubectl.ok("delete", "crd", f"things.{group}")


async def test_a_watch_prints_what_happens(kubectl: Kubectl, server: Server) -> None:
    pipe = asyncio.subprocess.PIPE
    words = [*kubectl.base, "get", "configmaps", "--watch", "-o", "name"]
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe)
    assert process.stdout is not None
    try:
        await server.ok("POST", "/api/v1/namespaces/{ns}/configmaps", {"metadata": {"name": "seen"}})
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        assert line == b"configmap/seen\n"
    finally:
        process.terminate()
        await process.communicate()


async def test_create_label_annotate_and_edit_by_set(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "configmap", "made", "--from-literal=a=b")
    await kubectl.ok("create", "secret", "generic", "hidden", "--from-literal=token=abc")
    await kubectl.ok("create", "deployment", "web", "--image=web:1", "--replicas=2", "--port=80")
    await kubectl.ok("create", "job", "once", "--image=busybox", "--", "true")
    await kubectl.ok("label", "configmap", "made", "x=y")
    await kubectl.ok("annotate", "configmap", "made", "n=1")
    await kubectl.ok("set", "image", "deployment/web", "web=web:2")
    made = json.loads(await kubectl.ok("get", "configmap", "made", "-o", "json"))
    assert made["data"] == {"a": "b"}
    assert (made["metadata"]["labels"], made["metadata"]["annotations"]) == ({"x": "y"}, {"n": "1"})
    hidden = json.loads(await kubectl.ok("get", "secret", "hidden", "-o", "json"))
    assert hidden["data"] == {"token": "YWJj"}
    web = json.loads(await kubectl.ok("get", "deployment", "web", "-o", "json"))
    container = web["spec"]["template"]["spec"]["containers"][0]
    assert (web["spec"]["replicas"], container["image"], container["ports"][0]["containerPort"]) == (2, "web:2", 80)


async def test_discovery_finds_short_names_and_categories(kubectl: Kubectl, group: str) -> None:
    await define(kubectl, group)
    await kubectl.ok("apply", "-f", "-", text=thing(group, 1))
    assert "one" in await kubectl.ok("get", f"th.v1.{group}")
    listed = await kubectl.ok("api-resources", f"--api-group={group}", "--no-headers")
    assert listed.split() == ["things", "th", f"{group}/v1", "true", "Thing"]
    assert await kubectl.ok("auth", "can-i", "create", "pods") == "yes\n"
    await kubectl.ok("delete", "crd", f"things.{group}")
