"""A generated CustomResourceDefinition that embeds built-in structs prunes nothing of them, on both servers.

125 fields of a pod template were pruned without an error.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kaito.runtime.crd import Version, crd
from kaito.runtime.kinds import JobTemplateSpec, PersistentVolumeClaim, PodTemplateSpec
from kaito.runtime.meta import Model, Resource

if TYPE_CHECKING:
    from test.contract.conftest import Server

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MANIFESTS = Path(__file__).parent / "manifests"


class WrapperSpec(Model):
    template: PodTemplateSpec | None = None
    jobs: list[JobTemplateSpec] = []
    claims: dict[str, PersistentVolumeClaim] = {}


class Wrapper(Resource, api="structs.contract.example.com/v1", kind="ContractWrapper"):
    spec: WrapperSpec = WrapperSpec()


async def test_no_field_of_an_embedded_struct_is_pruned(server: "Server") -> None:
    template: dict[str, Any] = yaml.safe_load((MANIFESTS / "pod-template.yaml").read_text(encoding="utf-8"))
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "labels": {"a": "b"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "volumeAttributesClassName": "fast"},
    }
    job = {"spec": {"template": template, "backoffLimitPerIndex": 1, "managedBy": "example.com/queue"}}
    spec = {"template": template, "jobs": [job], "claims": {"data": claim}}
    definition = crd([Version(model=Wrapper, storage=True)])
    await server.ok("POST", CRDS, definition)
    path = "/apis/structs.contract.example.com/v1/namespaces/{ns}/contractwrappers"
    try:
        sent = {"apiVersion": Wrapper.api_version, "kind": Wrapper.kind, "metadata": {"name": "a"}, "spec": spec}
        async with asyncio.timeout(20):
            while True:
                made = await server.call("POST", path, sent, fieldValidation="Strict")
                if made.status != 404:  # it is served
                    break
                await asyncio.sleep(0.1)
        assert made.status == 201, made.body
        assert (await server.ok("GET", f"{path}/a"))["spec"] == spec
        broken = sent | {"metadata": {"name": "b"}, "spec": {"template": {"spec": {"containers": "none"}}}}
        refused = await server.call("POST", path, broken)
        assert refused.status == 422  # what the models name is validated
        assert "spec.template.spec.containers" in refused.body["message"]
    finally:
        await server.ok("DELETE", f"{CRDS}/{definition['metadata']['name']}")
