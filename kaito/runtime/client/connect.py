"""`connect`: a live client of its own, for scripts and tools that are not a manager."""

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from kaito.runtime.client.access import find_access
from kaito.runtime.client.client import Client


@contextlib.asynccontextmanager
async def connect(
    kubeconfig: Path | None = None, *, context: str = "", field_manager: str, user_agent: str = ""
) -> AsyncGenerator[Client]:
    """A client for the length of the body.

    Args:
        kubeconfig: cluster and credentials; without it `$KUBECONFIG`, `~/.kube/config`, or the pod's service account.
        context: context of the kubeconfig; its current one by default.
        field_manager: the name under which the server records changes.
        user_agent: as the server logs it; the field manager by default.

    Raises:
        ConfigurationError: there is no cluster to talk to; the message names the places looked at.
    """
    from kaito.runtime.client.http import HttpTransport  # only who connects pays for the network

    transport = HttpTransport(await find_access(kubeconfig, context))
    try:
        yield Client(transport, field_manager=field_manager, user_agent=user_agent)
    finally:
        await transport.close()
