"""Writes the status of a pod, and never to another pod of the same name."""

import asyncio
from typing import Any

from kaito.runtime.client import Client, MergePatch
from kaito.runtime.errors import ApiError, Invalid, NotFound, TransportError
from kaito.runtime.kinds import Pod

RETRY_SECONDS = 0.5


async def write_status(client: Client, pod: Pod, status: dict[str, Any]) -> None:
    """Writes a pod's status, retrying while the API server cannot be reached; stops when the pod does not exist.

    A StatefulSet creates a new pod of the old name as soon as the former one is deleted. Because of the UID in the
    patch, the API server rejects the former pod's last status for the new pod (422: metadata.uid is immutable).
    """
    patch = MergePatch({"metadata": {"uid": pod.uid}, "status": status})
    while True:
        try:
            await client.patch(pod, patch, subresource="status")
        except NotFound:
            return
        except (ApiError, TransportError) as error:
            if isinstance(error, Invalid) and any(cause.get("field") == "metadata.uid" for cause in error.causes):
                return
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return
