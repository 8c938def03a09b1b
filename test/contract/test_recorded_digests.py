"""Objects of a Workspace on both API servers: what one process has applied with a digest, the next one does not write.

The comparison is with the object as the server returns it, with its defaults. A form that the server normalizes would
cost a request for each object at each start of the controller.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from kaito.api import Workspace, labels
from kaito.models.weights import Weights
from kaito.runtime.cache import Cached
from kaito.runtime.client import Api
from kaito.runtime.client.sender import ApiRequest
from kaito.runtime.kinds import EndpointSlice, Job, NetworkPolicy, Service, StatefulSet
from kaito.runtime.manager import Manager
from kaito.runtime.meta import Quantity, Resource
from kaito.workspace.manifests.activator import activator_slice
from kaito.workspace.manifests.group import network_policy
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.manifests.service import services
from kaito.workspace.manifests.tuning import tuning_job
from kaito.workspace.plan import Hardware, ModelContainer, Plan
from kaito.workspace.settings import WorkspaceSettings
from test.contract.test_manager import Server, settings_for
from test.contract.test_preset_pods import PARTS, RESOURCE, SOURCES

KINDS: tuple[type[Resource], ...] = (Service, StatefulSet, NetworkPolicy, EndpointSlice, Job)


def objects(namespace: str, part: str, weights: Weights) -> list[Resource]:
    metadata = {"name": "phi", "namespace": namespace, "uid": "1"}
    workspace = Workspace.model_validate({"metadata": metadata, "resource": RESOURCE, **PARTS[part]})
    hardware = Hardware(copies=1, instance_type="Standard_NC6s_v3", gpus=1, disk=Quantity("80Gi"))
    container = ModelContainer(
        preset="phi-3-mini-4k-instruct",
        image="kaito/kaito-serving:1",
        tools_image="kaito/kaito-serving:1",
        command=("python3", "serve"),
        pull_secrets=("pull",),
        access_secret="hf",
        weights=weights,
    )
    plan, settings = Plan(hardware=hardware, container=container, config_map="mine"), WorkspaceSettings()
    if part == "tuning":
        return [tuning_job(workspace, plan, settings)]
    since = datetime(2030, 1, 1, tzinfo=UTC)
    activator = activator_slice(workspace, port=20_000, family="IPv4", addresses=["10.0.0.1"], since=since)
    workload = inference_stateful_set(workspace, plan, settings)
    return [*services(workspace), workload, network_policy(workspace), activator]


async def written(server: Server, wanted: Sequence[Resource]) -> list[str]:
    """Ensures the objects in a new process; returns those that it wrote."""
    found: list[str] = []

    async def noted(request: ApiRequest, send: Any) -> Any:
        if request.method != "GET":
            found.append(request.target.partition("?")[0].rpartition("/")[2])
        return await send(request)

    async with Manager(settings_for(server), cache=[Cached(kind) for kind in KINDS], name="kaito") as manager:
        api: Api = manager.api.intercepted(noted)
        for each in wanted:
            await api.ensure(each, record=labels.APPLIED)
    return found


@pytest.mark.parametrize("weights", SOURCES, ids=lambda weights: weights.method)
async def test_a_second_process_writes_nothing(server: Server, weights: Weights) -> None:
    wanted = objects(server.namespace, "inference", weights)
    assert len(await written(server, wanted)) == len(wanted)
    assert await written(server, wanted) == []


async def test_a_second_process_does_not_write_a_tuning_job(server: Server) -> None:
    wanted = objects(server.namespace, "tuning", SOURCES[0])
    assert await written(server, wanted) == ["phi"]
    assert await written(server, wanted) == []
