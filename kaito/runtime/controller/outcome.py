"""Classifies the result of a reconcile: results, errors, and what the queue does about them.

A pure function of what the reconcile function returned or raised; the worker carries it out and counts it.

| came back                             | result          | queue                                              |
|---------------------------------------|-----------------|----------------------------------------------------|
| `None`                                | success         | forget failures                                    |
| `Again`                               | requeue_after   | forget failures, add after the delay               |
| `Terminal`, or a group of nothing else| error, terminal | forget failures                                    |
| error with its own `retry_after`      | error           | count a failure, add after that delay              |
| any other error, the deadline         | error           | count a failure, add after the key's backoff       |

controller-runtime keeps the failure count after a terminal error, which inflates the next backoff; here it is dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from kaito.runtime.errors import ApiError, ConfigurationError, Conflict, KaitoRuntimeError, Terminal
from kaito.runtime.reconcile import Again

Result = Literal["success", "error", "requeue_after"]

PROGRAMMING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RecursionError,
    TypeError,
)
"""What would be a panic in Go: counted apart, because only a new version of the program helps."""


class DeadlineExceeded(KaitoRuntimeError):
    """A reconcile was cancelled because it ran longer than its controller allows."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    result: Result
    again: Again | None = None
    """Set for `requeue_after`."""
    error: Exception | None = None
    """Set for `error`."""
    terminal: bool = False
    """No retry until something changes."""
    retry_after: float | None = None
    """The delay the error asks for, in seconds, instead of the key's backoff."""

    @property
    def timed_out(self) -> bool:
        """Whether the controller's own deadline ended it."""
        return isinstance(self.error, DeadlineExceeded)

    @property
    def panicked(self) -> bool:
        """Whether it was a programming error."""
        return self.error is not None and any(isinstance(e, PROGRAMMING_ERRORS) for e in members(self.error))

    @property
    def expected(self) -> bool:
        """Whether the error is the cluster's no rather than ours: no stack trace is needed to understand it.

        Wrong use needs one, to be found; so does a deadline, to see what was being waited for.
        """
        return self.error is not None and all(
            isinstance(e, KaitoRuntimeError) and not isinstance(e, ConfigurationError | DeadlineExceeded)
            for e in members(self.error)
        )

    @property
    def is_conflict(self) -> bool:
        """Whether somebody else changed the object meanwhile: an everyday event, cured by the retry."""
        return self.error is not None and all(isinstance(e, Conflict) for e in members(self.error))


def returned(value: object) -> Outcome:
    """The outcome of a function that returned."""
    if value is None:
        return Outcome("success")
    if isinstance(value, Again):
        return Outcome("requeue_after", again=value)
    kind = type(value).__name__
    return raised(TypeError(f"a reconcile function returns None or Again(...), not {kind}"))


def raised(error: Exception) -> Outcome:
    """The outcome of a function that raised."""
    errors = list(members(error))
    terminal = all(isinstance(each, Terminal) for each in errors)
    delays = [each.retry_after if isinstance(each, ApiError) else None for each in errors]
    known = [delay for delay in delays if delay is not None]
    # One member that wants another delay than the exponential one does not speak for those that do not.
    retry_after = min(known) if known and len(known) == len(errors) else None
    return Outcome("error", error=error, terminal=terminal, retry_after=None if terminal else retry_after)


def members(error: BaseException) -> Iterator[BaseException]:
    """The error, or the leaves of a group."""
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from members(each)
    else:
        yield error


def describe(error: BaseException) -> str:
    """The error in one line, groups flattened."""
    return "; ".join(f"{type(each).__name__}: {each}" if str(each) else type(each).__name__ for each in members(error))
