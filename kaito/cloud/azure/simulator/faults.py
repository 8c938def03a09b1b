"""Fault injection: rules that match requests and change their result.

Tests, or clients of `POST /__admin/faults`, add a `Fault`. The first rule that matches a request applies; it is removed
after `times` matches. `named_faults` contains faults that users of Azure have met.
"""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

OperationEnd = Literal[
    "succeeded",
    "failed",
    "canceled",
    "never",
    "status-lost",
    "status-stuck",
    "status-stuck-failed",
    "succeeded-but-failed",
]


class OperationFault(BaseModel):
    """The end of a long-running operation, instead of success."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    end: OperationEnd = "failed"
    """`never`: it keeps running. `status-lost`: it succeeds, and its status URL returns 404. `status-stuck` and
    `status-stuck-failed`: the pool becomes Succeeded or Failed, and the status URL still returns InProgress.
    `succeeded-but-failed`: the operation succeeds, and the pool is Failed."""
    code: str = "AllocationFailed"
    message: str = "Allocation failed."
    details: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    slower: float = 1.0
    """Factor for the duration of the operation."""


class Fault(BaseModel):
    """A rule: the requests that it matches, how often it applies, and its effect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    method: str = "*"
    path: str = ".*"
    """Regular expression that is searched in the path, case-insensitively."""
    pool: str = ".*"
    """Regular expression for the whole name of the pool; requests without a pool match only the default."""
    skip: int = 0
    """Matching requests before the rule applies."""
    times: int | None = 1
    """Matching requests that the rule applies to; None: all, until it is removed."""

    status: int | None = None
    body: dict[str, Any] | None = None
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    delay: float = 0.0
    """Delay in real seconds."""
    hang: bool = False
    """Send no response."""
    drop: bool = False
    """Close the connection without a response."""
    after: bool = False
    """Execute the request first, then send the response of the fault: the client does not learn that it succeeded."""
    truncate: bool = False
    """Send the first half of the JSON."""
    operation: OperationFault | None = None

    def matches(self, method: str, path: str, pool: str) -> bool:
        """Whether the rule matches a request."""
        return (
            self.method in {"*", method}
            and re.search(self.path, path, re.IGNORECASE) is not None
            and (self.pool == ".*" or (bool(pool) and re.fullmatch(self.pool, pool) is not None))
        )


class FaultScript:
    """The active rules, in the order in which they were added."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._seen: dict[int, int] = {}

    def add(self, fault: Fault) -> Fault:
        """Adds a rule and returns it."""
        self._rules.append(fault)
        return fault

    def clear(self, name: str | None = None) -> None:
        """Removes all rules, or those with this name."""
        self._rules = [rule for rule in self._rules if name is not None and rule.name != name]

    def active(self) -> list[Fault]:
        """The active rules."""
        return list(self._rules)

    def take(self, method: str, path: str, pool: str) -> Fault | None:
        """The first rule that applies to a request; counts the match."""
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
