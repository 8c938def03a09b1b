"""InferencePool and HTTPRoute of an InferenceSet, accepted by the real CRDs on a real API server."""

import json
from typing import Any

import pytest

from hack.kubernetes.module_crds import Unavailable, gateway_crds
from test.e2e.test_inference_sets import MANIFEST, row
from test.support.stack import Stack, stack, until

PICKER = """
apiVersion: v1
kind: Service
metadata: {name: phi-4-mini-epp}
spec: {ports: [{name: grpc, port: 9002}]}
"""


def routed(running: Stack) -> dict[str, Any]:
    found = json.loads(running.kubectl("get", "inferenceset", "phi-4-mini", "-o", "json"))
    conditions: list[dict[str, Any]] = found.get("status", {}).get("conditions", [])
    routed_now = [each for each in conditions if each["type"] == "InferenceSetRouted"]
    return routed_now[0] if routed_now else {"reason": "", "status": ""}


@pytest.mark.timeout(240)
async def test_a_set_is_published_to_a_gateway() -> None:
    try:
        definitions = gateway_crds()
    except Unavailable as reason:
        pytest.skip(str(reason))

    def install(running: Stack) -> None:
        for path in definitions:
            running.kubectl("apply", "--server-side", "-f", str(path))
        running.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

    async with stack(controller_flags=["--inference-gateway=default/models"], prepare=install) as running:
        running.kubectl("apply", "-f", "-", stdin=MANIFEST.replace("VERSION", "v1beta1"))
        await until(lambda: row(running) == ["2", "2"], "two Workspaces to serve")
        await until(lambda: routed(running).get("reason") == "EndpointPickerNotFound", "the missing picker")
        pool = json.loads(running.kubectl("get", "inferencepool", "phi-4-mini", "-o", "json"))
        assert pool["spec"]["endpointPickerRef"]["name"] == "phi-4-mini-epp"
        assert pool["spec"]["selector"]["matchLabels"] == {"inferenceset.kaito.sh/created-by": "phi-4-mini"}
        route = json.loads(running.kubectl("get", "httproute", "phi-4-mini", "-o", "json"))
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        assert (backend["kind"], backend["name"]) == ("InferencePool", "phi-4-mini")

        running.kubectl("apply", "-f", "-", stdin=PICKER)
        accepted = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}
        accepted["lastTransitionTime"] = "2030-01-01T00:00:00Z"
        parent = {"parentRef": {"name": "models"}, "controllerName": "example.com/gateway", "conditions": [accepted]}
        for kind in ("inferencepool", "httproute"):
            patch = json.dumps({"status": {"parents": [parent]}})
            running.kubectl("patch", kind, "phi-4-mini", "--subresource=status", "--type=merge", f"--patch={patch}")
        await until(lambda: routed(running).get("status") == "True", "the route to be accepted", 90)

        running.kubectl("delete", "inferenceset", "phi-4-mini", "--timeout=60s")
