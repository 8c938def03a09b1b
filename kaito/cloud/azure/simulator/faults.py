"""Scripted trouble: rules that match requests and change what happens to them.

A test, or a person through `POST /__admin/faults`, adds a `Fault`; the first rule that matches a request applies, and
is used up after `times` matches. `NAMED` holds the troubles Azure's users meet, ready made.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LroEnd = Literal["succeeded", "failed", "canceled", "never", "status-lost", "succeeded-but-failed"]


class OperationFault(BaseModel):
    """How a long-running operation ends instead of succeeding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    end: LroEnd = "failed"
    """`status-lost`: it ends well, but its status URL answers 404. `succeeded-but-failed`: the operation reports
    success while the pool is Failed."""
    code: str = "AllocationFailed"
    message: str = "Allocation failed."
    details: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    slower: float = 1.0
    """Factor on how long the operation takes."""


class Fault(BaseModel):
    """One rule: which requests it meets, how often, and what it does to them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    method: str = "*"
    path: str = ".*"
    """Regular expression searched in the path, without regard to case."""
    pool: str = ".*"
    """Regular expression over the whole pool name; requests about no pool match only the default."""
    skip: int = 0
    """Matching requests let through before the rule bites."""
    times: int | None = 1
    """Matching requests it bites; `None` until it is removed."""

    status: int | None = None
    body: dict[str, Any] | None = None
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    delay: float = 0.0
    """Seconds before anything else happens (not scaled by the simulator's speed)."""
    hang: bool = False
    """Never answer; the client has to give up."""
    drop: bool = False
    """Close the connection without an answer."""
    after: bool = False
    """Let the request take effect first, then answer wrongly: the client cannot know that it was accepted."""
    truncate: bool = False
    """Answer with the first half of the JSON."""
    operation: OperationFault | None = None

    def matches(self, method: str, path: str, pool: str) -> bool:
        """Whether the rule is about this request."""
        return (
            self.method in {"*", method}
            and re.search(self.path, path, re.IGNORECASE) is not None
            and (self.pool == ".*" or (bool(pool) and re.fullmatch(self.pool, pool) is not None))
        )


def _error(status: int, code: str, message: str) -> dict[str, Any]:
    return {"status": status, "body": {"error": {"code": code, "message": message}}}


NAMED: Mapping[str, Mapping[str, Any]] = {
    "quota": {
        "method": "PUT",
        "status": 400,
        "body": {
            "code": "ErrCode_InsufficientVCPUQuota",
            "details": None,
            "message": "Insufficient vcpu quota requested 24, remaining 0 for family StandardNCADSA100v4Family "
            "for region eastus.",
            "subcode": "",
            "target": "agentPoolProfile.vmSize",
        },
    },
    "quota-nested": {
        "method": "PUT",
        "status": 400,
        "body": {
            "error": {
                "code": "InvalidTemplateDeployment",
                "message": "The template deployment failed with error: see details.",
                "details": [
                    {
                        "code": "QuotaExceeded",
                        "message": "Operation could not be completed as it results in exceeding approved "
                        "standardNCADSA100v4Family Cores quota. Current Limit: 24, Current Usage: 24, "
                        "Additional Required: 24",
                    }
                ],
            }
        },
    },
    "capacity": {
        "method": "PUT",
        "operation": {
            "end": "failed",
            "code": "ReconcileVMSSAgentPoolFailed",
            "message": 'Unable to provision the virtual machine scale set: Code="AllocationFailed" Message="Allocation '
            'failed. We do not have sufficient capacity for the requested VM size in this region."',
        },
    },
    "sku": {
        "method": "PUT",
        **_error(
            400,
            "BadRequest",
            "The VM size of AgentPoolProfile is not allowed in your subscription in location 'eastus'.",
        ),
    },
    "unauthorized": _error(
        403, "AuthorizationFailed", "The client does not have authorization to perform action over scope."
    ),
    "throttled": {
        **_error(429, "TooManyRequests", "The request is being throttled as the limit has been reached."),
        "headers": {"Retry-After": "5"},
    },
    "server-error": _error(500, "InternalOperationError", "Internal server error"),
    "busy": {
        "method": "PUT",
        **_error(
            409,
            "OperationNotAllowed",
            "Another agentpool operation (other - Creating) is in progress, please wait for it to finish.",
        ),
    },
    "hang": {"hang": True},
    "drop": {"drop": True},
    "accepted-then-dropped": {"method": "PUT", "drop": True, "after": True},
    "truncated": {"truncate": True},
    "status-lost": {"method": "PUT", "operation": {"end": "status-lost"}},
    "canceled": {
        "method": "PUT",
        "operation": {
            "end": "canceled",
            "code": "Canceled",
            "message": "The operation was overriden and canceled by a later operation",
        },
    },
    "never-ends": {"method": "PUT", "operation": {"end": "never"}},
    "succeeded-but-failed": {"method": "PUT", "operation": {"end": "succeeded-but-failed"}},
    "slow-delete": {"method": "DELETE", "operation": {"end": "succeeded", "slower": 10.0}},
}
"""The scripted troubles by name."""


def named(name: str, **changes: Any) -> Fault:
    """A ready-made fault, adjusted: `named("throttled", times=20)`, `named("capacity", pool="ws.*")`.

    Raises:
        KeyError: no fault of that name.
    """
    return Fault(name=name, **{**NAMED[name], **changes})


class FaultScript:
    """The rules in force, in the order they were added."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._seen: dict[int, int] = {}

    def add(self, fault: Fault) -> Fault:
        """Put a rule in force and return it."""
        self._rules.append(fault)
        return fault

    def clear(self, name: str | None = None) -> None:
        """Drop every rule, or those of that name."""
        self._rules = [rule for rule in self._rules if name is not None and rule.name != name]

    def active(self) -> list[Fault]:
        """The rules that still bite."""
        return list(self._rules)

    def take(self, method: str, path: str, pool: str) -> Fault | None:
        """The rule for this request, counted."""
        for rule in list(self._rules):
            if not rule.matches(method, path, pool):
                continue
            seen = self._seen[id(rule)] = self._seen.get(id(rule), 0) + 1
            if seen <= rule.skip:
                continue
            if rule.times is not None and seen >= rule.skip + rule.times:
                self._rules.remove(rule)
                self._seen.pop(id(rule), None)
            return rule
        return None
