"""Scripted trouble: rules that match requests and change what happens to them.

A test, or a person through `POST /__admin/faults`, adds a `Fault`; the first rule that matches a request applies, and
is used up after `times` matches. `named_faults` holds the troubles of Azure's users, ready made.
"""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LroEnd = Literal[
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
    """How a long-running operation ends instead of succeeding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    end: LroEnd = "failed"
    """`status-lost`: it ends well, but its status URL answers 404. `status-stuck` and `status-stuck-failed`: the pool
    is Succeeded or Failed, and its status URL still answers InProgress. `succeeded-but-failed`: the operation reports
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
