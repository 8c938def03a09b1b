"""The scale subresource of Workspaces on both servers: kubectl, an autoscaler, and GitOps tools that apply again."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from test.contract.conftest import APPLY, MERGE
from test.contract.test_kaito_crds import ALPHA, BETA, PHI, TUNE, beta, causes, install
from test.contract.test_kubectl import Kubectl

if TYPE_CHECKING:
    from pathlib import Path

    from test.contract.conftest import Server

SCALE = f"{BETA}/{PHI}/scale"


async def scaled(server: Server, replicas: int) -> dict[str, Any]:
    """Scales as `kubectl scale` does."""
    found: dict[str, Any] = await server.ok("PATCH", SCALE, {"spec": {"replicas": replicas}}, MERGE)
    return found


async def test_an_autoscaler_reads_and_updates_the_scale(server: Server) -> None:
    await install(server)
    await server.ok("POST", BETA, beta(PHI, {"spec": {"replicas": 2}}))
    status = {"replicas": 2, "readyReplicas": 1, "selector": f"kaito.sh/workspace={PHI}"}
    await server.ok("PATCH", f"{BETA}/{PHI}/status", {"status": status}, MERGE)
    for version in (ALPHA, BETA):
        scale = await server.ok("GET", f"{version}/{PHI}/scale")
        assert (scale["apiVersion"], scale["kind"]) == ("autoscaling/v1", "Scale")
        assert scale["spec"] == {"replicas": 2}
        assert scale["status"] == {"replicas": 2, "selector": f"kaito.sh/workspace={PHI}"}

    scale["spec"]["replicas"] = 5
    await server.ok("PUT", SCALE, scale)
    stored = await server.ok("GET", f"{BETA}/{PHI}")
    assert (stored["spec"], stored["resource"]["count"]) == ({"replicas": 5}, 1)
    stale = await server.call("PUT", SCALE, scale)
    assert stale.status == 409
    assert (await scaled(server, 0))["spec"].get("replicas", 0) == 0  # a zero is left out
    assert (await server.ok("GET", f"{BETA}/{PHI}"))["spec"] == {"replicas": 0}


async def test_the_scale_is_limited_as_the_field_is(server: Server) -> None:
    await install(server)
    await server.ok("POST", BETA, beta(PHI, {"spec": {"replicas": 1}}))
    for replicas, field, message in (
        (129, "spec.replicas", "less than or equal to 128"),
        (-1, ".spec.replicas", "should be a non-negative integer"),
    ):
        answer = await server.call("PATCH", SCALE, {"spec": {"replicas": replicas}}, MERGE)
        assert message in causes(answer)[field]


async def test_a_tuning_workspace_has_no_scale(server: Server) -> None:
    await install(server)
    await server.ok("POST", BETA, beta(TUNE))
    answer = await server.call("GET", f"{BETA}/{TUNE}/scale")
    assert answer.status == 500
    assert 'the spec replicas field ".spec.replicas" does not exist' in answer.body["message"]


async def test_a_manifest_that_is_applied_again_leaves_the_replicas(server: Server) -> None:
    await install(server)
    manifest = beta(PHI, {"resource": {"count": 1}})
    await server.ok("PATCH", f"{BETA}/{PHI}", manifest, APPLY, fieldManager="gitops", force="true")
    await server.ok("PATCH", f"{BETA}/{PHI}", {"spec": {"replicas": 1}}, MERGE)  # as admission does
    await scaled(server, 4)
    await server.ok("PATCH", f"{BETA}/{PHI}", manifest, APPLY, fieldManager="gitops", force="true")
    assert (await server.ok("GET", f"{BETA}/{PHI}"))["spec"] == {"replicas": 4}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
async def test_kubectl_scales_a_workspace_and_apply_keeps_the_number(server: Server, tmp_path: Path) -> None:
    await install(server)
    kubectl = Kubectl(server, tmp_path / "cache")
    manifest = json.dumps(beta(PHI))
    await kubectl.ok("apply", "-f", "-", text=manifest)
    await kubectl.ok("patch", "workspace", PHI, "--type=merge", "-p", '{"spec":{"replicas":1}}')
    assert await kubectl.ok("scale", "workspace", PHI, "--replicas=3") == f"workspace.kaito.sh/{PHI} scaled\n"
    assert "unchanged" in await kubectl.ok("apply", "-f", "-", text=manifest)
    assert await kubectl.ok("get", "workspace", PHI, "-o", "jsonpath={.spec.replicas}") == "3"
    await kubectl.ok("apply", "-f", "-", text=json.dumps(beta(PHI, {"resource": {"count": 2}})))
    assert await kubectl.ok("get", "workspace", PHI, "-o", "jsonpath={.resource.count}") == "2"
