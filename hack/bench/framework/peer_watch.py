"""Lower bound of the latency benchmark: a watch whose lines are split and decoded, without cache and queue."""

import asyncio
import signal
import sys
from pathlib import Path

from hack.bench.framework.cluster import connected
from hack.bench.framework.protocol import Latencies, emit
from kaito.runtime.tasks import TaskScope


async def follow(kubeconfig: Path) -> None:
    """Watches until stopped. The initial events have no time and are not counted."""
    latencies = Latencies()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with connected(kubeconfig) as cluster:

        async def look() -> None:
            async for found in cluster.watch():
                latencies.record(found["metadata"]["name"], found["data"].get("sent"))
            raise RuntimeError("the watch ended")

        async with TaskScope("peer") as scope:
            scope.spawn(look(), name="look")
            emit("synced", objects=0)
            await stopped.wait()
    emit("end", nanoseconds=latencies.nanoseconds)


asyncio.run(follow(Path(sys.argv[2])))
