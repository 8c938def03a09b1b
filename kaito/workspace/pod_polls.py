"""Polls the servers in pods, which have no API token and cannot report anything themselves.

`start_progress`, `adapter_monitor`, `activity`, `scaling.monitor` and `inference_sets.loads` use it. The polls run
outside reconciles.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from kaito.runtime.meta import ObjectKey
from kaito.workspace.manifests.service import SERVER_PORT

POLL_SECONDS: Final = 3.0
"""Interval of the polls of one pod."""

TIMEOUT_SECONDS: Final = 2.0
"""Time limit of one poll. Pods are in the cluster's network, and a server that loads a model answers late."""

MAX_CONCURRENT_POLLS: Final = 32

MAX_METRICS_BYTES: Final = 4 * 2**20
"""The metrics of vLLM have about 100 KiB."""

Fetch = Callable[[str], Awaitable[bytes | None]]
"""Returns the body of a response of the pod with that address; None if there is none."""


class PolledPod(NamedTuple):
    """A pod that is polled."""

    workspace: ObjectKey
    uid: str
    address: str


async def poll_pods(
    due: Callable[[], Sequence[PolledPod]],
    poll: Callable[[PolledPod], Awaitable[None]],
    added: asyncio.Event,
    *,
    interval_seconds: float = POLL_SECONDS,
) -> None:
    """Polls until canceled, and waits without polls while no pod is due.

    Args:
        due: the pods to poll now.
        poll: polls one of them.
        added: is set when a pod becomes due.
        interval_seconds: pause between two rounds of polls.
    """
    limit = asyncio.Semaphore(MAX_CONCURRENT_POLLS)

    async def limited(pod: PolledPod) -> None:
        async with limit:
            await poll(pod)

    while True:
        pods = due()
        if not pods:
            added.clear()
            await added.wait()
            continue
        async with asyncio.TaskGroup() as group:
            for pod in pods:
                group.create_task(limited(pod))
        await asyncio.sleep(interval_seconds)


async def fetch_from_pod(address: str, path: str, max_bytes: int) -> bytes | None:
    """Reads a path of the server in a pod; returns None on any failure, which is normal while the pod starts.

    The program in the pod may be the user's: a response of more than `max_bytes` is a failure.
    """
    import aiohttp  # not at the start: a standby, and a controller without pods, poll nothing

    host = f"[{address}]" if ":" in address else address
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{host}:{SERVER_PORT}{path}", allow_redirects=False) as response,
        ):
            if response.status != 200:
                return None
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    return None
            return bytes(body)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None


async def fetch_metrics(address: str) -> bytes | None:
    """Reads `GET /metrics` of the pod with that address; returns None on any failure."""
    return await fetch_from_pod(address, "/metrics", MAX_METRICS_BYTES)
