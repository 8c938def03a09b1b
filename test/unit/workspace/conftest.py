"""The founding document's Workspace and what its controller is told, for every test of the room."""

import pytest

from kaito.api import Workspace
from kaito.runtime.meta import Quantity
from kaito.workspace.plan import Hardware, Plan, Serving
from kaito.workspace.settings import NodeApi, WorkspaceSettings

UID = "0b8e7c0e-0000-4000-8000-000000000001"


@pytest.fixture(params=[NodeApi.MACHINE, NodeApi.NODECLAIM])
def node_api(request: pytest.FixtureRequest) -> NodeApi:
    """Every test of the node path runs over both kinds of claims."""
    api: NodeApi = request.param
    return api


@pytest.fixture
def settings(node_api: NodeApi) -> WorkspaceSettings:
    return WorkspaceSettings(node_api=node_api)


@pytest.fixture
def phi() -> Workspace:
    """The first manifest of the founding document, as stored."""
    return Workspace.model_validate(
        {
            "metadata": {
                "name": "workspace-phi-3-mini",
                "namespace": "default",
                "uid": UID,
                "generation": 1,
                "creationTimestamp": "2030-01-01T00:00:00Z",
            },
            "resource": {
                "count": 1,
                "instanceType": "Standard_NC6s_v3",
                "labelSelector": {"matchLabels": {"apps": "phi-3"}},
            },
            "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
        }
    )


@pytest.fixture
def hardware() -> Hardware:
    return Hardware(count=1, instance_type="Standard_NC6s_v3", gpus=1, disk=Quantity("87Gi"))


@pytest.fixture
def serving() -> Serving:
    return Serving(
        model="phi-3-mini-4k-instruct",
        image="registry.example/kaito-phi-3-mini-4k-instruct:0.0.2",
        tools_image="registry.example/kaito-base:0.5.0",
        command=("/bin/sh", "-c", "serve"),
        readiness_seconds=1800,
    )


@pytest.fixture
def plan(hardware: Hardware, serving: Serving) -> Plan:
    return Plan(hardware=hardware, serving=serving)
