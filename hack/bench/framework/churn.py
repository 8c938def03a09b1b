"""A manager under churn on a real API server: nothing may be lost, grow or get stuck.

    python -m hack.bench.framework.churn [--minutes 10] [--rate 100]

Another client creates, changes and deletes ConfigMaps at a steady rate; a controller sets `data.done` to `data.want` on
each. Meanwhile watches are cut at random, each cut losing what was on its way, and the API server is stopped and
started twice. Afterwards the cache must equal a live list and every object must be done. Exits with 1 when not, or when
resident memory grew by more than a tenth after the first minute.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from hack.bench.framework.store import resident_kib
from hack.envtest import ControlPlane
from kaito.runtime import Cached, Client, Controller, Manager, Request, Settings
from kaito.runtime.client import MergePatch
from kaito.runtime.client.access import find_access
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.client.transport import Reply, StreamReply
from kaito.runtime.errors import ApiError, TransportError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.tasks import TaskScope

NAMES = 500
LABELS = {"bench": "churn"}
CUT_SECONDS = 4.0
"""Mean time between cuts of all watches."""
SETTLE_SECONDS = 120.0


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
        """As the transport's, until cut."""
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
    """Set `done` to `want`."""
    data = request.object.data
    if data.get("done") != data.get("want"):
        await request.api.patch(request.object, MergePatch({"data": {"done": data.get("want")}}))


@dataclass
class Churn:
    """The other client."""

    client: Client
    dice: random.Random
    present: set[str] = field(default_factory=set[str])
    changes: int = 0
    failures: int = 0

    async def run(self, rate: float) -> None:
        """Change something, `rate` times a second, until cancelled."""
        async with TaskScope("churn") as scope:
            due = time.monotonic()
            while True:
                scope.spawn(self._change(), name="change")
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _change(self) -> None:
        name = f"c{self.dice.randrange(NAMES):03}"
        want = str(self.dice.random())
        body = ConfigMap(metadata=ObjectMeta(name=name, namespace="default", labels=LABELS), data={"want": want})
        try:
            if name not in self.present:
                self.present.add(name)
                await self.client.create(body)
            elif self.dice.random() < 0.3:
                self.present.discard(name)
                await self.client.delete(body, if_uid=False)
            else:
                await self.client.patch(body, MergePatch({"data": {"want": want}}))
            self.changes += 1
        except (ApiError, TransportError):
            self.failures += 1  # Conflicts with ourselves, or the server is away: the next one will do.


async def equal_to_live(manager: Manager, client: Client) -> list[str]:
    """What is wrong: keys the cache does not show as the server does, and objects that are not done."""
    live = {found.name: found for found in await client.list(ConfigMap, namespace="default", labels=LABELS)}
    cached = {found.name: found for found in manager.cache.list(ConfigMap)}
    wrong = [f"{name}: only live" for name in live.keys() - cached.keys()]
    wrong += [f"{name}: only cached" for name in cached.keys() - live.keys()]
    for name in live.keys() & cached.keys():
        if live[name].metadata.resource_version != cached[name].metadata.resource_version:
            wrong.append(f"{name}: cached at {cached[name].metadata.resource_version}")
        if live[name].data.get("done") != live[name].data.get("want"):
            wrong.append(f"{name}: not done")
    return wrong


async def settled(manager: Manager, client: Client) -> list[str]:
    """What is still wrong when nothing changes any more."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        wrong = await equal_to_live(manager, client)
        if not wrong or time.monotonic() > deadline:
            return wrong
        await asyncio.sleep(0.5)


async def trouble(plane: ControlPlane, knife: Knife, seconds: float, dice: random.Random) -> list[int]:
    """Cut watches all the time, restart the API server twice; returns the resident KiB, second by second."""
    resident: list[int] = []
    restarts = [seconds / 3, seconds * 2 / 3]
    started = time.monotonic()
    while (passed := time.monotonic() - started) < seconds:
        if restarts and passed > restarts[0]:
            restarts.pop(0)
            await asyncio.to_thread(plane.stop_api_server)
            await asyncio.sleep(3)
            await asyncio.to_thread(plane.start_api_server)
        if dice.random() < 1 / CUT_SECONDS:
            knife.cuts += 1
        resident.append(resident_kib())
        await asyncio.sleep(1)
    return resident


async def measure(minutes: float, rate: float) -> dict[str, Any]:
    """Run it all; the figures and what is wrong in the end."""
    dice = random.Random(1)  # noqa: S311 -- a benchmark
    with ControlPlane() as plane:
        knife = Knife(HttpTransport(await find_access(plane.kubeconfig)))
        transport = HttpTransport(await find_access(plane.kubeconfig))
        client = Client(transport, field_manager="churn")
        settings = Settings(
            kubeconfig=plane.kubeconfig,
            metrics_bind_address="0",
            health_probe_bind_address="0",
            leader_elect=False,
            log_level="error",
        )
        manager = Manager(
            settings,
            name="bench",
            controllers=[Controller(ConfigMap, finish, workers=10)],
            cache=[Cached(ConfigMap, labels=LABELS)],
            transport=knife,
        )
        try:
            async with manager:
                churn = Churn(client, dice)
                async with TaskScope("bench") as scope:
                    scope.spawn(churn.run(rate), name="churn")
                    resident = await trouble(plane, knife, minutes * 60, dice)
                wrong = await settled(manager, client)
                stats = manager.cache.stats()[0]
        finally:
            await transport.close()
            await knife.close()
    after_first_minute = resident[min(60, len(resident) // 2) :]
    return {
        "minutes": minutes,
        "changes": churn.changes,
        "changes_refused": churn.failures,
        "cuts": knife.cuts,
        "watch_restarts": dict(stats.restarts),
        "relists": dict(stats.relists),
        "own_write_waits": dict(stats.waits),
        "rss_mib_after_first_minute": round(after_first_minute[0] / 1024, 1),
        "rss_mib_highest_later": round(max(after_first_minute) / 1024, 1),
        "rss_growth_percent": round((max(after_first_minute) / after_first_minute[0] - 1) * 100, 1),
        "wrong": wrong[:20],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=100)
    asked = parser.parse_args(arguments)
    result = asyncio.run(measure(asked.minutes, asked.rate))
    print(json.dumps(result, indent=2))
    if result["wrong"] or result["rss_growth_percent"] > 10:
        sys.exit(1)


if __name__ == "__main__":
    main()
