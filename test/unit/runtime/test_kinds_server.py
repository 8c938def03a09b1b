"""Models of built-in kinds against the API server's own schemas: no field that it does not know."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from kaito.runtime import kinds
from kaito.runtime.kinds import (
    CronJob,
    Ingress,
    NetworkPolicy,
    PodDisruptionBudget,
    Role,
    RoleBinding,
)
from kaito.runtime.meta import LabelSelector, Model, ObjectMeta, Resource
from kaito.runtime.testing import World

SPECS: dict[type[Resource], dict[str, Any]] = {
    CronJob: {
        "schedule": "0 3 * * *",
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 60,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 1,
        "suspend": False,
        "jobTemplate": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
        },
    },
    PodDisruptionBudget: {
        "selector": {"matchLabels": {"a": "b"}},
        "maxUnavailable": "25%",
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    },
    Ingress: {
        "ingressClassName": "nginx",
        "defaultBackend": {"service": {"name": "s", "port": {"name": "http"}}},
        "rules": [
            {
                "host": "a.example.com",
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "s", "port": {"number": 80}}},
                        }
                    ]
                },
            }
        ],
        "tls": [{"hosts": ["a.example.com"], "secretName": "tls"}],
    },
    NetworkPolicy: {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"podSelector": {}}],
                "ports": [{"protocol": "TCP", "port": 8000, "endPort": 8100}],
            }
        ],
        "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": "dns"}]}],
    },
}


@pytest.mark.parametrize("kind", SPECS, ids=lambda kind: kind.kind)
async def test_a_model_has_every_field_and_the_server_accepts_them(world: World, kind: type[Resource]) -> None:
    spec = SPECS[kind]
    document = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}, "spec": spec}
    obj = kind.model_validate(document)
    assert list(_unknown(obj)) == []
    assert obj.to_dict()["spec"] == spec
    (stored,) = world.apply(obj.to_dict())  # strictly: an unknown field is refused
    assert world.get(kind, "x").to_dict()["spec"].keys() == stored["spec"].keys() >= spec.keys()


async def test_roles_are_given_to_service_accounts(world: World) -> None:
    role = {"rules": [{"apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get"]}]}
    binding = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x"},
        "subjects": [{"kind": "ServiceAccount", "name": "sa", "namespace": "default"}],
    }
    for kind, content in ((Role, role), (RoleBinding, binding)):
        document = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}, **content}
        obj = kind.model_validate(document)
        assert list(_unknown(obj)) == []
        world.apply(obj.to_dict())
    assert world.get(RoleBinding, "x").subjects[0].namespace == "default"


def test_an_empty_selector_is_sent_because_it_means_everything() -> None:
    policy = NetworkPolicy(
        metadata=ObjectMeta(name="deny"), spec=kinds.NetworkPolicySpec(pod_selector=LabelSelector(), ingress=[])
    )
    assert policy.to_dict()["spec"] == {"podSelector": {}, "ingress": []}


def _unknown(value: object, path: str = "") -> Iterator[str]:
    """The paths of what a model kept without knowing it."""
    if isinstance(value, Model):
        yield from (f"{path}.{name}" for name in value.model_extra or {} if name not in {"apiVersion", "kind"})
        for name in value.model_fields_set & set(type(value).model_fields):
            yield from _unknown(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _unknown(item, path)
