"""The manager that `churn` measures: a separate process whose watches can be cut and whose cache can be read.

    python -m hack.bench.framework.churn_manager KUBECONFIG METRICS_ADDRESS

A controller sets `data.done` to `data.want` on labeled ConfigMaps. The process is a normal operator (`Manager.run`,
with the metrics port) that also reads commands from stdin, one per line: `cut` breaks every open watch at its next
chunk, `show` prints the cache as one line of JSON. It ends at the end of stdin.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaito.runtime import Cached, Controller, Manager, Request, Settings
from kaito.runtime.client import MergePatch, Reply, StreamReply
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.errors import TransportError
from kaito.runtime.kinds import ConfigMap

LABELS = {"bench": "churn"}
WORKERS = 10


class Knife:
    """Breaks streams at their next chunk, which is lost."""

    def __init__(self, inner: HttpTransport) -> None:
        self._inner = inner
        self.cuts = 0

    @property
    def host(self) -> str:
        return self._inner.host

    async def request(self, *target: str, **options: Any) -> Reply:
        return await self._inner.request(*target, **options)

    async def close(self) -> None:
        await self._inner.close()

    @asynccontextmanager
    async def stream(self, *target: str, **options: Any) -> AsyncGenerator[StreamReply]:
        """The transport's stream, until it is cut."""
        async with self._inner.stream(*target, **options) as reply:
            yield _Cuttable(reply, self)


@dataclass
class _Cuttable:
    inner: StreamReply
    knife: Knife
    cuts: int = field(init=False)

    def __post_init__(self) -> None:
        self.cuts = self.knife.cuts

    @property
    def status(self) -> int:
        return self.inner.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.inner.headers

    async def chunks(self) -> AsyncGenerator[bytes]:
        async for chunk in self.inner.chunks():
            if self.cuts != self.knife.cuts:
                raise TransportError("cut")
            yield chunk

    async def read(self) -> bytes:
        return await self.inner.read()


async def finish(request: Request[ConfigMap]) -> None:
    """Sets `done` to `want`."""
    data = request.object.data
    if data.get("done") != data.get("want"):
        await request.api.patch(request.object, MergePatch({"data": {"done": data.get("want")}}))


class Orders:
    """Executes the commands from stdin; a runnable of the manager."""

    name = "orders"
    leader_elected = False

    def __init__(self, knife: Knife) -> None:
        self._knife = knife
        self.manager: Manager | None = None

    async def run(self) -> None:
        """Reads commands until stdin ends; the manager then stops, because a runnable ended."""
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(orders), sys.stdin.buffer
        )
        while order := (await orders.readline()).strip():
            if order == b"cut":
                self._knife.cuts += 1
            elif order == b"show" and self.manager is not None:
                shown = {
                    found.name: [found.metadata.resource_version, found.data.get("want"), found.data.get("done")]
                    for found in self.manager.cache.list(ConfigMap)
                }
                sys.stdout.write(json.dumps(shown) + "\n")
                sys.stdout.flush()


def main() -> None:
    """Runs until stopped."""
    kubeconfig, metrics = Path(sys.argv[1]), sys.argv[2]
    knife = Knife(HttpTransport(asyncio.run(find_cluster_config(kubeconfig))))
    orders = Orders(knife)
    manager = orders.manager = Manager(
        Settings(
            kubeconfig=kubeconfig,
            metrics_bind_address=metrics,
            debug_endpoints=True,
            health_probe_bind_address="0",
            leader_elect=False,
            log_level="error",
        ),
        name="bench",
        controllers=[Controller(ConfigMap, finish, workers=WORKERS)],
        cache=[Cached(ConfigMap, labels=LABELS)],
        runnables=[orders],
        transport=knife,
    )
    manager.run()


if __name__ == "__main__":
    main()
