"""Webhook configurations from declarations: their content, and that a server accepts them and calls the webhooks."""

from collections.abc import Callable
from typing import Any

import pytest

from kaito.runtime import Model, ObjectMeta, Resource
from kaito.runtime.crd import Version, crd
from kaito.runtime.errors import ConfigurationError, Invalid
from kaito.runtime.testing import World
from kaito.runtime.webhook import Admission, Webhook, admission_manifests, conversion_manifest


class LampSpec(Model):
    watts: int = 0


class Lamp(Resource, api="manifests.test.dev/v1", kind="Lamp"):
    spec: LampSpec = LampSpec()


def fill_in(lamp: Lamp) -> Lamp:
    return lamp if lamp.spec.watts else lamp.evolve(spec=LampSpec(watts=5))


def validate(admission: Admission[Lamp]) -> None:
    if admission.object is not None and admission.object.spec.watts > 100:
        admission.deny("spec.watts", "too bright")


both = Webhook(Lamp, default=fill_in, validate=validate)


def test_each_half_of_a_webhook_has_a_configuration_at_its_own_path() -> None:
    mutating, validating = admission_manifests(both, name="lamps", namespace="lighting")
    assert (mutating["kind"], mutating["metadata"]) == ("MutatingWebhookConfiguration", {"name": "lamps"})
    (entry,) = validating["webhooks"]
    assert entry["name"] == "validate.v1.lamps.manifests.test.dev"
    service = {"name": "lamps", "namespace": "lighting", "path": "/validate-manifests-test-dev-v1-lamp"}
    assert entry["clientConfig"] == {"service": service}
    assert entry["rules"] == [
        {
            "apiGroups": ["manifests.test.dev"],
            "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["lamps"],
        }
    ]


def test_what_is_not_declared_has_no_configuration() -> None:
    (only,) = admission_manifests(Webhook(Lamp, validate=validate), name="lamps", namespace="lighting")
    assert only["kind"] == "ValidatingWebhookConfiguration"


def test_a_webhook_that_only_adds_a_finalizer_is_called_for_creations_and_may_fail() -> None:
    (only,) = admission_manifests(Webhook(Lamp, finalizer="test.dev/f"), name="lamps", namespace="lighting")
    (entry,) = only["webhooks"]
    assert only["kind"] == "MutatingWebhookConfiguration"
    assert (entry["rules"][0]["operations"], entry["failurePolicy"]) == (["CREATE"], "Ignore")
    both_kinds = Webhook(Lamp, default=fill_in, finalizer="test.dev/f")
    ((with_default,),) = (
        manifest["webhooks"] for manifest in admission_manifests(both_kinds, name="lamps", namespace="lighting")
    )
    assert (with_default["rules"][0]["operations"], with_default["failurePolicy"]) == (["CREATE", "UPDATE"], "Fail")
    updates = Webhook(Lamp, validate=validate, finalizer="test.dev/f")
    found = admission_manifests(updates, name="lamps", namespace="lighting", operations=("UPDATE",))
    assert [manifest["kind"] for manifest in found] == ["ValidatingWebhookConfiguration"]


def test_defaults_are_not_asked_about_deletions() -> None:
    mutating, validating = admission_manifests(
        both, name="lamps", url="https://127.0.0.1:9443/", operations=("CREATE", "DELETE")
    )
    assert mutating["webhooks"][0]["rules"][0]["operations"] == ["CREATE"]
    assert validating["webhooks"][0]["rules"][0]["operations"] == ["CREATE", "DELETE"]
    assert mutating["webhooks"][0]["clientConfig"] == {
        "url": "https://127.0.0.1:9443/mutate-manifests-test-dev-v1-lamp"
    }


async def test_a_server_takes_them_and_asks(world: World) -> None:
    world.admit(both)
    assert world.put(Lamp(metadata=ObjectMeta(name="a"))).spec.watts == 5
    with pytest.raises(Invalid, match="too bright"):
        world.patch(Lamp, "a", {"spec": {"watts": 200}})


def test_a_conversion_goes_into_the_crd() -> None:
    manifest = crd(
        [Version(model=Lamp, storage=True)], conversion=conversion_manifest(namespace="lighting", service="lamps")
    )
    assert manifest["spec"]["conversion"] == {
        "strategy": "Webhook",
        "webhook": {
            "conversionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "lamps", "namespace": "lighting", "path": "/convert"}},
        },
    }
    assert "conversion" not in crd([Version(model=Lamp, storage=True)])["spec"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: admission_manifests(name="lamps", namespace="lighting"),
        lambda: admission_manifests(both, both, name="lamps", namespace="lighting"),
        lambda: admission_manifests(both, name="lamps"),
        lambda: admission_manifests(both, name="lamps", namespace="lighting", url="https://127.0.0.1"),
        lambda: conversion_manifest(namespace="lighting"),
    ],
)
def test_wrong_ones_are_refused(wrong: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError):
        wrong()
