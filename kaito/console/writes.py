"""Creates, scales and deletes Workspaces, with the rights of the user."""

from typing import Final

from kaito.api import Workspace
from kaito.console.drafts import name_taken, read_draft, wrong_names
from kaito.console.security.access import User
from kaito.console.security.refusal import Refusal
from kaito.runtime.errors import ApiError, BadRequest, Forbidden, Invalid, NotFound
from kaito.runtime.meta import ObjectKey

MAX_COPIES: Final = 1000


async def create(text: str, user: User, *, update: bool) -> ObjectKey:
    """Applies the Workspace of a manifest (server-side apply); returns its key.

    Args:
        text: the manifest.
        user: the user.
        update: whether a Workspace that exists is changed.

    Raises:
        Refusal: the manifest is wrong, the API server rejects it, or the Workspace exists.
    """
    source = (await read_draft(text)).source
    workspace = source.workspace
    if source.errors:
        field, message = source.errors[0]
        raise Refusal(422, f"{field}: {message}", field)
    if source.unknown_fields:
        field = source.unknown_fields[0]
        raise Refusal(422, f"{field} is not a field of a Workspace: correct or remove it", field)
    for field, message in wrong_names(workspace):
        raise Refusal(422, f"{field}: {message}", field)
    try:
        if not update and (taken := await name_taken(workspace, user)):
            raise Refusal(409, taken, "metadata.name")
        await user.client.apply(workspace)
    except ApiError as error:
        raise refusal_of(error) from error
    return workspace.key


async def delete(key: ObjectKey, user: User) -> None:
    """Deletes a Workspace.

    Raises:
        Refusal: it does not exist, or the API server rejects the deletion.
    """
    try:
        await user.client.delete(await _stored(key, user))
    except ApiError as error:
        raise refusal_of(error) from error


async def scale(key: ObjectKey, copies: object, user: User) -> None:
    """Sets the number of copies of a Workspace.

    Raises:
        Refusal: the number is not valid, or the API server rejects it.
    """
    if isinstance(copies, bool) or not isinstance(copies, int) or not 0 <= copies <= MAX_COPIES:
        raise Refusal(400, f"copies is not a whole number from 0 to {MAX_COPIES}", "copies")
    try:
        workspace = await _stored(key, user)
        if workspace.tuning is not None:
            raise Refusal(409, f"Workspace {key} tunes a model: a tuning job has no copies", "copies")
        await user.client.scale(workspace, copies)
    except ApiError as error:
        raise refusal_of(error) from error


async def _stored(key: ObjectKey, user: User) -> Workspace:
    found = await user.client.find(Workspace, key.name, key.namespace)
    if found is None:
        raise Refusal(404, f"Workspace {key} does not exist: choose one of the list")
    return found


def refusal_of(error: ApiError) -> Refusal:
    """Returns the refusal for an error of the API server, with the field that it names."""
    field = next((cause.get("field", "") for cause in error.causes), "")
    if isinstance(error, Forbidden):
        return Refusal(403, f"the API server does not allow it: {error.message}", field)
    if isinstance(error, NotFound):
        return Refusal(404, f"the API server does not find it: {error.message}", field)
    if isinstance(error, Invalid | BadRequest):
        return Refusal(422, error.message, field)
    return Refusal(error.code if 400 <= error.code < 500 else 502, f"the API server rejects it: {error.message}", field)
