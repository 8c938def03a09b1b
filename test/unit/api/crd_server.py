"""An API server that has Kaito's CRDs and nothing else: no webhook, no controller, no socket."""

import asyncio
import copy
import json
from functools import cache
from itertools import count
from typing import Any

from kaito.api.crds import manifests
from kaito.apiserver import ApiServer, HttpRequest

WORKSPACES = "/apis/kaito.sh/v1beta1/namespaces/default/workspaces"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PATHS = {
    "Workspace": WORKSPACES,
    "Machine": "/apis/karpenter.sh/v1alpha5/machines",
    "NodeClaim": "/apis/karpenter.sh/v1/nodeclaims",
}
DEFINED = cache(manifests)
JSON = {"content-type": "application/json", "user-agent": "unit/1.0"}

SERVE: dict[str, Any] = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": "serve"},
    "resource": {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"apps": "phi"}}},
    "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
}
TUNE: dict[str, Any] = {
    **SERVE,
    "metadata": {"name": "tune"},
    "inference": None,
    "tuning": {
        "preset": {"name": "phi-3-mini-4k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://data.example/a"]},
        "output": {"image": "registry.example/a:1", "imagePushSecret": "push"},
    },
}
CLAIM: dict[str, Any] = {
    "apiVersion": "karpenter.sh/v1",
    "kind": "NodeClaim",
    "metadata": {"name": "claim"},
    "spec": {
        "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
        "requirements": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}],
    },
}
MACHINE: dict[str, Any] = {
    "apiVersion": "karpenter.sh/v1alpha5",
    "kind": "Machine",
    "metadata": {"name": "machine"},
    "spec": {"machineTemplateRef": {"name": "machine"}},
}
ADAPTER: dict[str, Any] = {"source": {"name": "a", "image": "registry.example/a:1"}, "strength": "0.5"}


async def _call(server: ApiServer, method: str, path: str, body: object, query: dict[str, str]) -> tuple[int, Any]:
    data = json.dumps(body).encode()
    response = await server.handle(HttpRequest(method, path, tuple(query.items()), JSON, data))
    assert isinstance(response.body, bytes)
    return response.status, json.loads(response.body)


def call(server: ApiServer, method: str, path: str, body: object, **query: str) -> tuple[int, Any]:
    return asyncio.run(_call(server, method, path, body, query))


@cache
def shared_server() -> ApiServer:
    """One server for all tests; they create with `dryRun`, or under names of their own."""
    server = ApiServer(seed=1)
    for manifest in DEFINED():
        assert call(server, "POST", DEFINITIONS, manifest)[0] == 201
    return server


def changed(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The object with values at dotted paths; None removes."""
    result = {key: value for key, value in copy.deepcopy(base).items() if value is not None}
    for path, value in change.items():
        *parents, last = path.split(".")
        target = result
        for part in parents:
            target = target.setdefault(part, {})
        if value is None:
            target.pop(last, None)
        else:
            target[last] = value
    return result


def create(base: dict[str, Any], change: dict[str, Any]) -> Any:
    """Returns the object as the API server stores it, or the causes of its rejection by field."""
    status, body = call(shared_server(), "POST", PATHS[base["kind"]], changed(base, change), dryRun="All")
    if status == 201:
        return body
    return causes(status, body)


def causes(status: int, body: Any) -> dict[str, str]:
    assert status == 422, body
    return {cause["field"]: cause["message"] for cause in body["details"]["causes"]}


def is_stored(answer: Any) -> bool:
    return "metadata" in answer


def texts(number: int) -> list[str]:
    return [f"n{index}" for index in range(number)]


def adapters(number: int) -> list[dict[str, Any]]:
    return [{"source": {"name": name, "image": "registry.example/a:1"}} for name in texts(number)]


def requirement(**more: Any) -> dict[str, Any]:
    return {"key": "a", "operator": "In", "values": ["b"], **more}


def taint(**more: Any) -> dict[str, Any]:
    return {"key": "sku", "effect": "NoSchedule", **more}


URL = "https://data.example/"
EMPTY: dict[str, Any] = {}
VOLUME: dict[str, Any] = {"emptyDir": {}}


NUMBERS = count()


def replace(base: dict[str, Any], stored: dict[str, Any], change: dict[str, Any]) -> tuple[int, Any]:
    """Stores an object under a new name, and answers the attempt to change it."""
    path, named = PATHS[base["kind"]], {"metadata.name": f"changed-{next(NUMBERS)}"}
    status, body = call(shared_server(), "POST", path, changed(base, stored | named))
    assert status == 201, body
    return call(shared_server(), "PUT", f"{path}/{named['metadata.name']}", changed(body, change))


def definition(plural: str) -> dict[str, Any]:
    return next(found for found in DEFINED() if found["spec"]["names"]["plural"] == plural)
