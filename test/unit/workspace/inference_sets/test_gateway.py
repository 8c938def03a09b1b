"""Publication of a set to a Gateway: pool and route, kinds that are missing, and what the Gateway reports."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import InferenceSet
from kaito.runtime.crd import Version, crd
from kaito.runtime.kinds import Service, ServicePort, ServiceSpec
from kaito.runtime.meta import ObjectMeta
from kaito.workspace.inference_sets.gateway import GATEWAY_KINDS, HTTPRoute, InferencePool
from kaito.workspace.settings import WorkspaceSettings

if TYPE_CHECKING:
    from test.unit.workspace.inference_sets.conftest import Sets

SETTINGS = WorkspaceSettings(inference_gateway="gateways/models")


def install(sets: "Sets") -> None:
    """Installs definitions that accept any spec; the end-to-end test uses the real ones."""
    for kind in GATEWAY_KINDS:
        sets.world.install(crd([Version(model=kind, storage=True)]))


def put_picker(sets: "Sets") -> None:
    spec = ServiceSpec(ports=[ServicePort(name="grpc", port=9002)])
    sets.world.put(Service(metadata=ObjectMeta(name="phi-epp", namespace="default"), spec=spec))


def accept(sets: "Sets", kind: type[InferencePool] | type[HTTPRoute], status: str = "True", message: str = "") -> None:
    condition = {"type": "Accepted", "status": status, "reason": "Accepted", "message": message}
    parents = [{"parentRef": {"name": "models"}, "controllerName": "example.com/gw", "conditions": [condition]}]
    sets.world.patch(kind, "phi", {"status": {"parents": parents}}, subresource="status")


async def test_without_a_gateway_in_the_settings_nothing_is_published(sets: "Sets") -> None:
    install(sets)
    sets.put()
    async with sets.controller():
        await sets.provision()
        assert sets.world.list(InferencePool) == []
        assert {c.type for c in sets.current().status.conditions} == {"InferenceSetReady", "InferenceSetUpdated"}


async def test_a_set_is_published_and_the_condition_follows_the_gateway(sets: "Sets") -> None:
    install(sets)
    put_picker(sets)
    sets.put()
    async with sets.controller(SETTINGS):
        await sets.provision()
        pool: dict[str, Any] = sets.world.get(InferencePool, "phi").spec
        assert pool == {
            "selector": {"matchLabels": {"inferenceset.kaito.sh/created-by": "phi"}},
            "targetPorts": [{"number": 5000}],
            "endpointPickerRef": {"name": "phi-epp", "port": {"number": 9002}},
        }
        route: dict[str, Any] = sets.world.get(HTTPRoute, "phi").spec
        assert route["parentRefs"] == [{"name": "models", "namespace": "gateways"}]
        assert route["hostnames"] == ["phi.default"]
        assert sets.condition("InferenceSetRouted")[:2] == ("False", "NotAccepted")
        assert sets.condition()[0] == "True", "the Service of the set does not depend on the Gateway"

        accept(sets, InferencePool)
        accept(sets, HTTPRoute)
        await sets.world.settle()
        assert sets.condition("InferenceSetRouted")[:2] == ("True", "InferenceSetRouted")
        accept(sets, HTTPRoute, "False", "no listener allows the namespace")
        await sets.world.settle()
        assert sets.condition("InferenceSetRouted")[:2] == ("False", "NotAccepted")
        assert "no listener allows the namespace" in sets.condition("InferenceSetRouted")[2]


async def test_kinds_that_are_installed_later_are_noticed(sets: "Sets") -> None:
    sets.put()
    async with sets.controller(SETTINGS):
        await sets.provision()
        assert sets.condition("InferenceSetRouted")[:2] == ("False", "GatewayKindNotInstalled")
        assert sets.condition()[0] == "True"
        install(sets)
        await sets.world.advance(180)
        assert sets.world.find(InferencePool, "phi") is not None
        assert sets.condition("InferenceSetRouted")[:2] == ("False", "EndpointPickerNotFound")
        assert "Service phi-epp, does not exist" in sets.condition("InferenceSetRouted")[2]
        put_picker(sets)
        await sets.world.advance(120)
        assert sets.condition("InferenceSetRouted")[1] == "NotAccepted"


async def test_a_pool_of_another_owner_is_left_unchanged(sets: "Sets") -> None:
    install(sets)
    foreign = InferencePool(metadata=ObjectMeta(name="phi", namespace="default"), spec={"targetPorts": []})
    sets.world.put(foreign)
    sets.put()
    async with sets.controller(SETTINGS):
        await sets.provision()
        assert sets.condition("InferenceSetRouted")[:2] == ("False", "NameConflict")
        assert sets.world.get(InferencePool, "phi").spec == {"targetPorts": []}


async def test_the_condition_is_removed_with_the_setting(sets: "Sets") -> None:
    install(sets)
    sets.put()
    async with sets.controller(SETTINGS):
        await sets.provision()
    sets.world.patch(InferenceSet, "phi", {"metadata": {"annotations": {"example.com/edit": "1"}}})
    async with sets.controller():
        await sets.world.settle()
        assert "InferenceSetRouted" not in {c.type for c in sets.current().status.conditions}


@pytest.mark.parametrize(
    ("field", "value"),
    [("inference_gateway", "models"), ("inference_gateway", "a/B"), ("endpoint_picker", "-x"), ("endpoint_picker", "")],
)
def test_settings_are_names(field: str, value: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        WorkspaceSettings.model_validate({field: value})
