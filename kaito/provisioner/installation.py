"""Identifies this installation, so that two clusters in one subscription never delete each other's agent pools."""

from typing import final

from kaito.runtime import Api
from kaito.runtime.errors import Terminal
from kaito.runtime.kinds import Namespace

IDENTITY_NAMESPACE = "kube-system"
"""Its UID is the usual identity of a cluster: the namespace is never deleted."""


@final
class Installation:
    """Identifier of the installation, read from the cluster once."""

    def __init__(self, configured: str = "") -> None:
        self._id = configured
        self.namespace: Namespace | None = None
        """Object of the events that concern no claim; None if the identifier is configured."""

    async def id(self, api: Api) -> str:
        """The configured identifier, or the UID of `kube-system`.

        Raises:
            Terminal: no identifier is configured and the namespace does not exist.
        """
        if not self._id:
            namespace = await api.client.find(Namespace, IDENTITY_NAMESPACE)
            if namespace is None:
                message = f"namespace {IDENTITY_NAMESPACE} does not exist: set --installation-id"
                raise Terminal(message)
            self._id, self.namespace = namespace.uid, namespace
        return self._id
