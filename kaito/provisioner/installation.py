"""Which installation we are: the name on our instances, so that two clusters in one subscription do not clean up after
each other."""

from typing import final

from kaito.runtime import Api
from kaito.runtime.errors import Terminal
from kaito.runtime.kinds import Namespace

IDENTITY_NAMESPACE = "kube-system"
"""Its UID is the usual identity of a cluster: made once, never deleted."""


@final
class Installation:
    """The id, asked of the cluster once."""

    def __init__(self, configured: str = "") -> None:
        self._id = configured
        self.namespace: Namespace | None = None
        """Where events are recorded that concern no claim; None with a configured id."""

    async def id(self, api: Api) -> str:
        """The configured id, or the UID of `kube-system`.

        Raises:
            Terminal: there is no such namespace, and no id is configured.
        """
        if not self._id:
            namespace = await api.client.find(Namespace, IDENTITY_NAMESPACE)
            if namespace is None:
                message = (
                    f"namespace {IDENTITY_NAMESPACE} does not exist: name this installation with --installation-id"
                )
                raise Terminal(message)
            self._id, self.namespace = namespace.uid, namespace
        return self._id
