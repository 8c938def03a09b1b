"""What the controller may write to: an object of the right name that somebody else controls is never taken over."""

from kaito.api import Workspace, conditions as words
from kaito.runtime.meta import Resource
from kaito.workspace.context import Pass


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
