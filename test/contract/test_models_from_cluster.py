"""`kaito-runtime models --cluster` on both servers: custom kinds, and built-in kinds without a model."""

import asyncio
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kaito.runtime import Client, ObjectMeta
from kaito.runtime.client import apply_definitions, connect
from kaito.runtime.codegen.command import main
from kaito.runtime.kinds import CustomResourceDefinition
from test.contract.conftest import Server

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["class"],
            "properties": {
                "class": {"type": "string", "description": 'A name that Python uses.\n"""\nINJECTED = 1\n"""'},
                "port": {"x-kubernetes-int-or-string": True},
                "weights": {"type": "object", "additionalProperties": {"type": "number"}},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "until": {"type": "string", "format": "date-time", "nullable": True},
            },
        },
    },
}


def definition(group: str) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"parcels.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": "Parcel", "plural": "parcels", "singular": "parcel", "listKind": "ParcelList"},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}}],
        },
    }


@pytest.fixture
def load() -> Iterator[Any]:
    loaded: list[str] = []

    def run(file: Path) -> ModuleType:
        module = ModuleType(f"from_cluster_{len(loaded)}")
        sys.modules[module.__name__] = module
        loaded.append(module.__name__)
        exec(compile(file.read_text("utf-8"), module.__name__, "exec", flags=0, dont_inherit=True), vars(module))
        return module

    yield run
    for name in loaded:
        del sys.modules[name]


async def generate(server: Server, file: Path, *kinds: str) -> int:
    """Runs the command in a thread, because it has an event loop of its own."""
    arguments = ["models", "--cluster", "--kubeconfig", str(server.kubeconfig), "--output", str(file)]
    for kind in kinds:
        arguments += ["--kind", kind]
    return await asyncio.to_thread(main, arguments)


async def test_models_of_a_custom_kind_create_and_read_objects(server: Server, tmp_path: Path, load: Any) -> None:
    group = f"g{uuid.uuid4().hex[:8]}.example.com"
    async with connect(server.kubeconfig, field_manager="test") as client:
        await apply_definitions(client, [definition(group)])
        try:
            file = tmp_path / "parcels.py"
            assert await generate(server, file, f"Parcel.{group}") == 0
            first = file.read_text()
            assert await generate(server, file, f"Parcel.{group}") == 0
            assert file.read_text() == first
            module = load(file)
            assert not hasattr(module, "INJECTED")
            await _create_and_read(client, module, server.namespace)
        finally:
            await client.delete(CustomResourceDefinition.model_validate(definition(group)))


async def _create_and_read(client: Client, module: ModuleType, namespace: str) -> None:
    spec = {"class": "fast", "port": "http", "weights": {"a": 0.5}, "raw": {"deep": [{"er": None, "x": 1}]}}
    parcel = module.Parcel(metadata=ObjectMeta(name="a", namespace=namespace), spec=module.ParcelSpec(**spec))
    created = await client.create(parcel)
    read = await client.get(module.Parcel, "a", namespace)
    assert read == created
    assert (read.spec.class_, read.spec.port, read.spec.weights) == ("fast", "http", {"a": 0.5})


async def test_models_of_built_in_kinds_come_from_the_openapi_documents(
    server: Server, tmp_path: Path, load: Any
) -> None:
    file = tmp_path / "kinds.py"
    assert await generate(server, file, "ReplicationController", "Role.rbac.authorization.k8s.io") == 0
    module = load(file)
    assert (module.Role.api_version, module.Role.namespaced) == ("rbac.authorization.k8s.io/v1", True)
    assert module.ReplicationController.plural == "replicationcontrollers"
    role = module.Role(metadata=ObjectMeta(name="r", namespace=server.namespace), rules=[])
    async with connect(server.kubeconfig, field_manager="test") as client:
        await client.create(role)
        assert (await client.get(module.Role, "r", server.namespace)).rules in ([], None)


@pytest.mark.real
async def test_recursive_schemas_and_quantities_of_built_in_kinds(real: Server, tmp_path: Path, load: Any) -> None:
    file = tmp_path / "kinds.py"
    assert await generate(real, file, "HorizontalPodAutoscaler", "CustomResourceDefinition", "APIService") == 0
    module = load(file)
    assert module.HorizontalPodAutoscaler.api_version == "autoscaling/v2"
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"},
        "maxReplicas": 3,
        "metrics": [
            {
                "type": "Pods",
                "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1500m"}},
            }
        ],
    }
    scaler = module.HorizontalPodAutoscaler.model_validate(
        {"metadata": {"name": "a", "namespace": real.namespace}, "spec": spec}
    )
    async with connect(real.kubeconfig, field_manager="test") as client:
        await client.create(scaler)
        read = await client.get(module.HorizontalPodAutoscaler, "a", real.namespace)
    assert str(read.spec.metrics[0].pods.target.average_value) == "1500m"
    assert read.to_dict()["spec"]["metrics"] == spec["metrics"]


async def test_a_kind_that_is_not_served_is_an_error(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await generate(server, tmp_path / "x.py", "Unicorn") == 1
    assert "the cluster does not serve the kind Unicorn" in capsys.readouterr().err
    assert not (tmp_path / "x.py").exists()
