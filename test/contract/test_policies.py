"""ValidatingAdmissionPolicies: both servers refuse and warn alike, in the same words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from test.contract.conftest import Answer, Server

POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
CONFIG_MAPS = "/api/v1/namespaces/{ns}/configmaps"
PATIENCE = 150
"""Tries, a tenth of a second apart, until a real server has compiled a policy: it reads them from a cache."""


@dataclass
class Rules:
    """Makes policies about ConfigMaps of the test's namespace, and takes them away."""

    server: Server
    made: list[str] = field(default_factory=list[str])

    async def add(
        self,
        *actions: str,
        param: dict[str, Any] | None = None,
        operations: tuple[str, ...] = ("CREATE",),
        **spec: Any,
    ) -> str:
        server, name = self.server, f"{self.server.namespace}-{len(self.made)}"
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": list(operations)}
        constraints = {"resourceRules": [rule | {"resources": ["configmaps"]}]}
        policy = {"metadata": {"name": name}, "spec": {"matchConstraints": constraints, **spec}}
        await server.ok("POST", POLICIES, policy)
        selector = {"matchLabels": {"kubernetes.io/metadata.name": server.namespace}}
        binding: dict[str, Any] = {"policyName": name, "validationActions": list(actions)}
        binding["matchResources"] = {"namespaceSelector": selector}
        if param is not None:
            binding["paramRef"] = param
        await server.ok("POST", BINDINGS, {"metadata": {"name": name}, "spec": binding})
        self.made.append(name)
        return name

    async def refused(self, name: str, **data: str) -> Answer:
        """The refusal of a ConfigMap, once the server has seen the policy."""
        for _ in range(PATIENCE):
            answer = await self.create(name, **data)
            if answer.status >= 400:
                return answer
            await self.server.ok("DELETE", f"{CONFIG_MAPS}/{name}")
            await asyncio.sleep(0.1)
        raise AssertionError

    async def create(self, name: str, **data: str) -> Answer:
        return await self.server.call("POST", CONFIG_MAPS, {"metadata": {"name": name}, "data": data})


@pytest.fixture
async def rules(server: Server) -> AsyncIterator[Rules]:
    rules = Rules(server)
    try:
        yield rules
    finally:
        for name in rules.made:
            await server.call("DELETE", f"{BINDINGS}/{name}")
            await server.call("DELETE", f"{POLICIES}/{name}")


def reported(answer: Answer, policy: str) -> str:
    return str(answer.body["message"]).replace(policy, "P")


async def test_a_refusal_names_policy_binding_and_message(rules: Rules) -> None:
    policy = await rules.add(
        "Deny",
        variables=[{"name": "size", "expression": "int(object.data.size)"}],
        matchConditions=[{"name": "sized", "expression": "request.operation != 'DELETE' && has(object.data)"}],
        validations=[
            {"expression": "variables.size <= 10", "messageExpression": "'at most 10, not ' + object.data.size"},
            {"expression": "object.data.size != '7'", "message": "seven is taken", "reason": "Forbidden"},
            {"expression": "object.data.size != '8'"},
        ],
    )
    answer = await rules.refused("a", size="12")
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    message = "ValidatingAdmissionPolicy 'P' with binding 'P' denied request: at most 10, not 12"
    assert reported(answer, policy) == f'configmaps "a" is forbidden: {message}'
    assert answer.body["details"]["causes"] == [{"message": message.replace("'P'", f"'{policy}'")}]
    seven = await rules.refused("a", size="7")
    assert (seven.status, seven.body["reason"]) == (403, "Forbidden")
    assert reported(seven, policy).endswith("denied request: seven is taken")
    eight = await rules.refused("a", size="8")
    assert reported(eight, policy).endswith("denied request: failed expression: object.data.size != '8'")
    assert (await rules.create("a", size="9")).status == 201
    await rules.server.ok("DELETE", f"{CONFIG_MAPS}/a")


async def test_updates_and_deletions_are_seen_with_the_old_state(rules: Rules) -> None:
    policy = await rules.add(
        "Deny",
        operations=("CREATE", "UPDATE", "DELETE"),
        validations=[
            {"expression": "oldObject == null || object == null || object.data.size == oldObject.data.size"},
            {"expression": "object != null || oldObject.data.size != '1'", "message": "number one stays"},
            {"expression": "object == null || object.metadata.name != 'no'"},
        ],
    )
    await rules.refused("no", size="0")  # may be deleted if it was created before the policy was in force
    assert (await rules.create("a", size="1")).status == 201
    patch = await rules.server.call(
        "PATCH", f"{CONFIG_MAPS}/a", {"data": {"size": "2"}}, "application/merge-patch+json"
    )
    assert (patch.status, "failed expression: oldObject == null" in reported(patch, policy)) == (422, True)
    deletion = await rules.server.call("DELETE", f"{CONFIG_MAPS}/a")
    assert (deletion.status, reported(deletion, policy).endswith("number one stays")) == (422, True)


async def test_a_binding_may_warn(rules: Rules) -> None:
    policy = await rules.add("Warn", validations=[{"expression": "object.data.size != '1'", "message": "one is few"}])
    answer = await rules.create("a", size="1")
    for number in range(PATIENCE):
        assert answer.status == 201
        if answer.warnings:
            break
        await asyncio.sleep(0.1)
        answer = await rules.create(f"a-{number}", size="1")
    text = f"Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{policy}': one is few"
    assert answer.warnings == (f'299 - "{text}"',)


async def test_parameters_come_from_objects(rules: Rules) -> None:
    server = rules.server
    await server.ok("POST", CONFIG_MAPS, {"metadata": {"name": "limits"}, "data": {"most": "3"}})
    policy = await rules.add(
        "Deny",
        param={"name": "limits", "namespace": server.namespace, "parameterNotFoundAction": "Deny"},
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        validations=[
            {
                "expression": "int(object.data.size) <= int(params.data.most)",
                "messageExpression": "'more than ' + params.data.most",
            }
        ],
    )
    answer = await rules.refused("a", size="4")
    for _ in range(PATIENCE):
        if "more than 3" in reported(answer, policy):
            break
        await asyncio.sleep(0.1)
        answer = await rules.refused("a", size="4")
    assert reported(answer, policy).endswith("denied request: more than 3")
    assert (await rules.create("a", size="3")).status == 201


@pytest.mark.parametrize("failure_policy", ["Fail", "Ignore"])
async def test_an_expression_that_fails_counts_as_the_policy_says(rules: Rules, failure_policy: str) -> None:
    policy = await rules.add(
        "Deny",
        failurePolicy=failure_policy,
        validations=[
            {"expression": "object.data.size == '1'"},
            {"expression": "object.metadata.name != 'no'", "message": "not this one"},
        ],
    )
    if failure_policy == "Ignore":
        answer = await rules.refused("no", size="1")
        assert reported(answer, policy).endswith("not this one")
        assert (await rules.create("a")).status == 201
        return
    answer = await rules.refused("a")
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert reported(answer, policy) == (
        "configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'P' with binding 'P' denied request: "
        "expression 'object.data.size == '1'' resulted in error: no such key: data"
    )


async def test_a_match_condition_does_not_know_the_namespace(rules: Rules) -> None:
    """`namespaceObject` is null there, also for namespaced objects; validations know it."""
    condition = {"name": "unknown", "expression": "namespaceObject == null"}
    validation = {"expression": "namespaceObject == null", "message": "the namespace is known"}
    await rules.add("Deny", matchConditions=[condition], validations=[validation])
    answer = await rules.refused("a", size="1")
    assert "the namespace is known" in answer.body["message"]
