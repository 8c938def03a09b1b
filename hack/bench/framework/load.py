"""Generates the load of the latency benchmark: changes ConfigMaps at a steady rate, with the time in each change.

    python -m hack.bench.framework.load KUBECONFIG --rate 200 --seconds 30 --objects 500

`data.sent` is CLOCK_MONOTONIC in nanoseconds, taken right before the patch is handed to the HTTP client. Prints
`result` with the number of changes and their delay against the schedule; a large delay means that the machine is the
bottleneck.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

from hack.bench.framework.cluster import Cluster, connected
from hack.bench.framework.protocol import emit
from kaito.runtime.tasks import TaskScope


async def change(cluster: Cluster, index: int) -> None:
    """Writes the time into one object."""
    await cluster.patch(index, json.dumps({"data": {"sent": str(time.monotonic_ns())}}))


async def run(kubeconfig: Path, rate: float, seconds: float, objects: int) -> None:
    """Changes one object after the other, `rate` a second."""
    late: list[float] = []
    async with connected(kubeconfig) as cluster:
        begun = time.monotonic()
        async with TaskScope("load") as scope:
            changes = [
                scope.spawn(change(cluster, await _due(number, begun, rate, late) % objects), name=f"change-{number}")
                for number in range(round(rate * seconds))
            ]
            for one in changes:
                await one
        took = time.monotonic() - begun
    emit("result", changes=len(changes), seconds=took, late=late)


async def _due(number: int, begun: float, rate: float, late: list[float]) -> int:
    """Waits until it is this change's turn; its number."""
    due = begun + number / rate
    await asyncio.sleep(max(0.0, due - time.monotonic()))
    late.append(time.monotonic() - due)
    return number


def main() -> None:
    """Parses and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--objects", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(run(options.kubeconfig, options.rate, options.seconds, options.objects))


if __name__ == "__main__":
    main()
