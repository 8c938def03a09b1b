"""What a user may see of the cluster: the namespaces whose Workspaces the user may list, and kinds of objects."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final, final

from kaito.api import Workspace
from kaito.console.cluster.kinds import UNREAD_NAMES
from kaito.console.security.access import Action, User
from kaito.console.security.refusal import Refusal
from kaito.console.stream import everything
from kaito.console.watch import ClusterWatch
from kaito.runtime.meta import ObjectKey, Resource

CONCURRENT_REVIEWS: Final = 16


def batched(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yields parts of a sequence."""
    return (names[start : start + size] for start in range(0, len(names), size))


def action_on(verb: str, kind: type[Resource], namespace: str = "", name: str = "", subresource: str = "") -> Action:
    """Returns the action of a verb on a kind."""
    return Action(verb, kind.plural, kind.group(), namespace if kind.namespaced else "", name, subresource)


@final
class Rights:
    """The rights of one user.

    Args:
        user: the user.
        watch: the cluster.
    """

    def __init__(self, user: User, watch: ClusterWatch) -> None:
        self._user = user
        self._watch = watch

    async def namespaces(self) -> Callable[[str], bool]:
        """Returns which namespaces the user sees.

        Raises:
            Refusal: the API server cannot answer.
        """
        if await self._user.may(action_on("list", Workspace)):
            return everything
        known = sorted({key.namespace for key in self._watch.board.entries})
        allowed: set[str] = set()
        for some in batched(known, CONCURRENT_REVIEWS):
            answers = await asyncio.gather(*(self._user.may(action_on("list", Workspace, name)) for name in some))
            allowed |= {name for name, answer in zip(some, answers, strict=True) if answer}
        return allowed.__contains__

    async def hidden(self, key: ObjectKey) -> dict[str, str]:
        """Returns the kinds around a Workspace that the user may not read, by the names that a diagnosis uses.

        Raises:
            Refusal: the API server cannot answer.
        """
        found: dict[str, str] = {}
        for kind, name in UNREAD_NAMES.items():
            verb = "get" if name == "namespace" else "list"
            action = action_on(
                verb, kind, key.namespace if kind.namespaced else "", key.namespace if verb == "get" else ""
            )
            if name not in found and not await self._user.may(action):
                found[name] = f"you have no right to {action}"
        return found

    async def require(self, action: Action) -> None:
        """Checks a right.

        Raises:
            Refusal: the user does not have it, or the API server cannot answer.
        """
        if not await self._user.may(action):
            raise Refusal(403, f"you have no right to {action}: ask an administrator of the cluster for it")
