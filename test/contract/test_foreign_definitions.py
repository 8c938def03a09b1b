"""An operator that uses models generated from the real definitions of other projects, on a real API server."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from hack.envtest import ControlPlane
from hack.kubernetes.module_crds import FOREIGN, Unavailable, module_files
from kaito.runtime import Controller, Model, ObjectMeta, Request, Resource
from kaito.runtime.client import apply_definitions
from kaito.runtime.codegen.command import main
from kaito.runtime.kinds import CustomResourceDefinition
from kaito.runtime.testing.envtest import RealCluster

pytestmark = pytest.mark.real

KINDS = ("Application", "Certificate", "HTTPRoute", "Issuer", "NodeClaim", "NodePool", "Prometheus", "ServiceMonitor")


class ShopSpec(Model):
    host: str


class Shop(Resource, api="walk.contract.dev/v1", kind="Shop"):
    spec: ShopSpec


@pytest.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[RealCluster]:
    """A cluster with the definitions, which are deleted at the end."""
    try:
        files = await asyncio.to_thread(module_files, FOREIGN)
    except Unavailable as missing:
        pytest.skip(str(missing))
    documents = [each for file in files for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each]
    async with RealCluster(control_plane.kubeconfig) as cluster:
        definitions = [_installable(each) for each in documents]
        await apply_definitions(cluster.client, definitions)
        yield cluster
        for each in definitions:
            await cluster.client.delete(CustomResourceDefinition.model_validate(each))


def _installable(document: dict[str, Any]) -> dict[str, Any]:
    """Fills in the placeholders of cert-manager's templates, whose metadata is written for Helm."""
    names, group = document["spec"]["names"], document["spec"]["group"]
    metadata = {"name": f"{names['plural']}.{group}", "annotations": document["metadata"].get("annotations", {})}
    return {key: value for key, value in document.items() if key != "status"} | {"metadata": metadata}


async def test_an_operator_creates_a_certificate_with_a_generated_model(
    cluster: RealCluster, control_plane: ControlPlane, tmp_path: Path
) -> None:
    file = tmp_path / "foreign.py"
    arguments = ["models", "--cluster", "--kubeconfig", str(control_plane.kubeconfig), "--output", str(file)]
    for kind in KINDS:
        arguments += ["--kind", kind]
    assert await asyncio.to_thread(main, arguments) == 0
    foreign = ModuleType("foreign_definitions")
    sys.modules[foreign.__name__] = foreign
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec", flags=0, dont_inherit=True), vars(foreign))
    for kind in KINDS:
        assert getattr(foreign, kind).plural

    async def reconcile(request: Request[Shop]) -> None:
        wanted = foreign.Certificate(
            metadata=ObjectMeta(name=request.object.name, namespace=request.object.namespace),
            spec=foreign.CertificateSpec(
                issuer_ref=foreign.CertificateSpecIssuerRef(name="letsencrypt"),
                secret_name=f"{request.object.name}-tls",
                dns_names=[request.object.spec.host],
            ),
        )
        await request.api.ensure(wanted, owner=request.object)

    await cluster.install(Shop)
    controller = Controller(Shop, reconcile).owns(foreign.Certificate)
    async with cluster.manager(controller):
        shop = Shop(
            metadata=ObjectMeta(name="shop", namespace=cluster.namespace), spec=ShopSpec(host="shop.example.com")
        )
        await cluster.client.create(shop)

        async def issued() -> bool:
            found = await cluster.client.find(foreign.Certificate, "shop", cluster.namespace)
            return found is not None and found.spec.dns_names == ["shop.example.com"]

        await cluster.eventually(issued)
    del sys.modules[foreign.__name__]
