"""What the controller may write: never over an object that somebody else controls, and not what the server refuses.

Both become the pass's problem, told in the condition of the workload.
"""

from typing import Final

from kaito.api import Workspace, conditions as words
from kaito.runtime.errors import ApiError, BadRequest, Forbidden, Invalid
from kaito.runtime.meta import Resource
from kaito.workspace.context import Pass

REFUSALS: Final = (Invalid, BadRequest, Forbidden)
"""Answers that are about the object's content or about permission: worth telling the user, not only the log."""


def refused(run: Pass, what: str, refusal: ApiError) -> None:
    """Note a refusal; the pass goes on, and is retried with backoff, because a policy may change."""
    run.seen.problem = (words.WORKLOAD_REFUSED, f"the API server refuses {what}: {refusal.message}")
    run.errors.append(refusal)


def controlled_by(workspace: Workspace, thing: Resource) -> bool:
    """Whether the Workspace is the thing's controller, by UID."""
    return any(owner.controller and owner.uid == workspace.uid for owner in thing.metadata.owner_references)


def foreign(run: Pass, thing: Resource) -> bool:
    """Whether the thing belongs to somebody else; noted as the pass's problem when it does."""
    if controlled_by(run.workspace, thing):
        return False
    owners = ", ".join(f"{o.kind} {o.name}" for o in thing.metadata.owner_references) or "no controller"
    run.seen.problem = (
        words.NAME_CONFLICT,
        f"{thing.kind} {thing.name} exists and belongs to {owners}: delete it, or give the workspace another name",
    )
    return True
