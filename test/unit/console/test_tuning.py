"""The progress of tuning jobs, read from their pods."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from kaito.api import Workspace
from kaito.console.tuning import MAX_POINTS, Run
from kaito.console.views.waterfall import waterfall
from kaito.diagnosis import Situation, diagnose
from kaito.runtime.kinds import Job, Pod
from kaito.workspace.manifests.service import SERVER_PORT
from test.support.addresses import own_address
from test.unit.console.conftest import Scene, sse, workspace

ADDRESS = own_address()


def report(step: int, **changes: Any) -> dict[str, Any]:
    found = {"phase": "training", "step": step, "total_steps": 40, "loss": 3.0 - step / 20, "eta_seconds": 30.0}
    return found | changes


REPORTS = [report(10), report(20), report(40, phase="pushing", loss=None, eta_seconds=None)]


@pytest.fixture
async def server() -> AsyncIterator[None]:
    """The server of a tuning job: each request gets the next report, and then the last one."""
    left = list(REPORTS)

    async def progress(_: web.Request) -> web.Response:
        return web.json_response(left[0] if len(left) == 1 else left.pop(0))

    app = web.Application()
    app.add_routes([web.get("/progress", progress)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, ADDRESS, SERVER_PORT).start()
    yield
    await runner.cleanup()


@pytest.mark.usefixtures("server")
async def test_a_loss_curve_arrives_in_the_detail(scene: Scene) -> None:
    document = workspace().to_dict()
    del document["inference"]
    document["tuning"] = {
        "preset": {"name": "phi-3-mini-4k-instruct"},
        "method": "lora",
        "input": {"urls": ["https://example.com/data.parquet"]},
        "output": {"image": "registry.example/adapter:1", "imagePushSecret": "push"},
    }
    await scene.client.create(Workspace.model_validate(document))
    spec = {"containers": [{"name": "tuning", "image": "tuning"}], "restartPolicy": "Never"}
    template = {"metadata": {"name": "phi", "namespace": "default"}, "spec": {"template": {"spec": spec}}}
    job = await scene.client.create(Job.model_validate(template))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "phi", "uid": job.uid, "controller": True}
    names: dict[str, Any] = {"name": "phi-x", "namespace": "default", "labels": {"kaito.sh/workspace": "phi"}}
    manifest = {"metadata": {**names, "ownerReferences": [owner]}, "spec": spec}
    pod = await scene.client.create(Pod.model_validate(manifest))
    status = {"phase": "Running", "podIP": ADDRESS}
    await scene.client.update_status(Pod.model_validate(pod.to_dict() | {"status": status}))
    tuning: dict[str, Any] = {}
    async with asyncio.timeout(40), scene.browser.get(f"{scene.url}/api/events") as stream:
        async for _ in sse(stream):
            async with scene.browser.get(f"{scene.url}/api/workspaces/default/phi") as answer:
                detail: dict[str, Any] = await answer.json()
            tuning = detail.get("tuning") or {}
            if tuning.get("push") == "running":
                break
    assert tuning["loss"] == [[10, 2.5], [20, 2.0]]
    assert (tuning["progress"], tuning["phase"], tuning["eta"]) == (1.0, "pushing", None)


@pytest.mark.parametrize("step", [None, "1", True])
def test_reports_without_a_loss_are_no_points(step: object) -> None:
    run = Run("uid")
    for loss in (None, "1", True):
        run.add({"step": step, "loss": loss})
    run.add({"step": 3, "loss": 1.5})
    run.add({"step": 3, "loss": 1.4})
    run.add({"step": 2, "loss": 1.4})
    assert run.loss == [(3, 1.5)]


def test_a_long_curve_is_thinned_out() -> None:
    run = Run("uid")
    for step in range(10 * MAX_POINTS):
        run.add({"step": step, "loss": 1.0})
    assert len(run.loss) <= MAX_POINTS
    assert run.loss[0][0] == 0
    assert run.loss[-1][0] > 9 * MAX_POINTS


def test_the_stages_of_a_new_workspace_have_begun_and_not_ended() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    made = workspace().with_metadata(creation_timestamp=at)
    situation = Situation(now=at, workspace=made)
    assert waterfall(situation, diagnose(situation)) == []
    pending = Pod.model_validate({"metadata": {"name": "phi-0", "namespace": "default", "creationTimestamp": at}})
    situation = Situation(now=at, workspace=made, pods=[pending])
    (stage,) = waterfall(situation, diagnose(situation))
    assert (stage["label"], stage["end"], stage["state"]) == ("pod scheduled", None, "running")
