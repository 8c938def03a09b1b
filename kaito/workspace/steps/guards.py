"""What the controller may write: never over an object with another controller, and not what the server refuses.

Both become the pass's problem, reported in the condition of the workload.
"""

from collections.abc import Awaitable
from typing import TypeVar

from pydantic import ValidationError

from kaito.api import conditions
from kaito.runtime.errors import ApiError
from kaito.runtime.meta import Resource
from kaito.workspace.context import Pass
from kaito.workspace.failure import describe, is_refusal
from kaito.workspace.ownership import controls, name_conflict

R = TypeVar("R", bound=Resource)


async def unless_refused(run: Pass, what: str, write: Awaitable[R]) -> R | None:
    """The result of the write; None when it is refused, which is the pass's problem then.

    The pass goes on, and is retried with backoff: a policy may change.

    Raises:
        Exception: any other failure.
    """
    try:
        return await write
    except (ApiError, ValidationError) as error:
        if not is_refusal(error):
            raise
        note_problem(run, conditions.WORKLOAD_REFUSED, f"the API server refuses {what}: {describe(error)}")
        run.errors.append(error)
        return None


def note_problem(run: Pass, reason: str, message: str) -> None:
    """Keep the first problem of a pass: the later ones may follow from it."""
    run.seen.problem = run.seen.problem or (reason, message)


def foreign(run: Pass, thing: Resource) -> bool:
    """Whether the Workspace does not control the thing; noted as the pass's problem then."""
    if controls(run.workspace, thing):
        return False
    note_problem(run, conditions.NAME_CONFLICT, name_conflict(thing))
    return True
