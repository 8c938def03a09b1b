"""Classifies the result of a reconcile: the table of results, errors and their effects on the queue.

A pure function of what the reconcile function returned or raised. The engine applies the effect and counts it.

| returned or raised                     | result          | queue                                                    |
|----------------------------------------|-----------------|----------------------------------------------------------|
| `None`                                 | success         | reset failures                                           |
| `Again`                                | requeue_after   | reset failures, add after the delay                      |
| `Terminal`, or a group of nothing else | error, terminal | reset failures                                           |
| `Retry`, error with its own delay      | error           | count a failure, add after that delay                    |
| any other error, the deadline          | error           | count a failure, add after the key's backoff             |

`RunOptions.on_error` and `attempts` change the last rows: see `kaito.runtime.controller.failures`.

controller-runtime keeps the failure count after a terminal error, which inflates the next backoff; here it is reset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self, cast, final

from kaito.runtime.errors import ApiError, ConfigurationError, Conflict, KaitoRuntimeError, Retry, Terminal
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
"""Counted as panics, as in Go: only a new version of the program fixes them."""


class DeadlineExceeded(KaitoRuntimeError):
    """A reconcile was cancelled because it ran longer than its controller's deadline."""


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """The classified result of a reconcile."""

    result: Result
    again: Again | None = None
    """Set for `requeue_after`."""
    error: Exception | None = None
    """Set for `error`."""
    terminal: bool = False
    """No retry until something changes."""
    retry_after: float | None = None
    """The error's own retry delay in seconds, instead of the key's backoff."""

    @classmethod
    def of_result(cls, result: object) -> Self:
        """Classifies what a reconcile function returned."""
        if result is None:
            return cls("success")
        if isinstance(result, Again):
            return cls("requeue_after", again=result)
        kind = type(result).__name__
        return cls.of_error(TypeError(f"a reconcile function returns None or Again(...), not {kind}"))

    @classmethod
    def of_error(cls, error: Exception) -> Self:
        """Classifies what a reconcile function raised."""
        errors = list(leaf_errors(error))
        terminal = all(isinstance(each, Terminal) for each in errors)
        delays = [_own_delay(each) for each in errors]
        known = [delay for delay in delays if delay is not None]
        # The delay of one member of a group replaces the backoff only if the other members have a delay, too.
        retry_after = min(known) if known and len(known) == len(errors) else None
        return cls("error", error=error, terminal=terminal, retry_after=None if terminal else retry_after)

    @property
    def is_timeout(self) -> bool:
        """Whether the controller's deadline cancelled it."""
        return isinstance(self.error, DeadlineExceeded)

    @property
    def is_panic(self) -> bool:
        """Whether it was a programming error."""
        return self.error is not None and any(isinstance(e, PROGRAMMING_ERRORS) for e in leaf_errors(self.error))

    @property
    def is_expected(self) -> bool:
        """Whether the error explains itself, as a rejection by the API server does, so that the log needs no stack.

        Wrong use of the framework needs a stack to be found; a deadline needs it to show what the reconcile awaited.
        """
        return self.error is not None and all(
            isinstance(e, KaitoRuntimeError) and not isinstance(e, ConfigurationError | DeadlineExceeded)
            for e in leaf_errors(self.error)
        )

    @property
    def is_conflict(self) -> bool:
        """Whether the object changed concurrently: common, and resolved by the retry."""
        return self.error is not None and all(isinstance(e, Conflict) for e in leaf_errors(self.error))


def _own_delay(error: BaseException) -> float | None:
    match error:
        case Retry():
            return error.after
        case ApiError():
            return error.retry_after
        case _:
            return None


def leaf_errors(error: BaseException) -> Iterator[BaseException]:
    """The error, or the leaves of an exception group."""
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaf_errors(each)
    else:
        yield error


def describe(error: BaseException) -> str:
    """The error in one line, with groups flattened."""
    errors = leaf_errors(error)
    return "; ".join(f"{type(each).__name__}: {each}" if str(each) else type(each).__name__ for each in errors)
