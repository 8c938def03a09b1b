"""Measures unary requests of the transport: `kaito.runtime.client.http1` beside aiohttp, which it used before.

Ten tasks read one ConfigMap of 1 KB of a real API server over TLS as fast as they can. Both clients are the framework's
`HttpTransport`, with its deadlines, credentials and errors; each turn is a separate process. CPU is that of the client.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hack.bench.framework.cluster import CONFIG_MAPS, connected, name_of
from hack.bench.framework.peers import peer
from hack.bench.framework.protocol import emit
from hack.bench.report import Column, Figures, Report, in_turn, medians
from hack.envtest import ControlPlane

DIRECT, AIOHTTP = "http1", "aiohttp"
TASKS = 10
WARM_UP = 100

COLUMNS = (
    Column("cpu_us", "CPU of a request", "{:.0f} µs"),
    Column("per_second", "requests", "{:,.0f}/s"),
)


async def read(kubeconfig: Path, client: str, seconds: float) -> dict[str, float]:
    """Requests a second, and the CPU time of one."""
    from kaito.runtime.client import http
    from kaito.runtime.client.connect import find_cluster_config

    http.DIRECT = client == DIRECT
    transport = http.HttpTransport(await find_cluster_config(kubeconfig))
    target, headers = f"{CONFIG_MAPS}/{name_of(0)}", {"accept": "application/json", "user-agent": "bench"}
    count = 0

    async def work(until: float) -> None:
        nonlocal count
        while time.perf_counter() < until:
            reply = await transport.request("GET", target, headers=headers)
            if reply.status != 200:
                raise RuntimeError(f"HTTP {reply.status}")
            count += 1

    for _ in range(WARM_UP):
        await transport.request("GET", target, headers=headers)
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(started + seconds) for _ in range(TASKS)))
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    await transport.close()
    return {"per_second": count / wall, "cpu_us": used / count * 1e6}


async def measure(seconds: float, runs: int) -> Report:
    """Runs both clients in turn and reports the medians."""
    with ControlPlane() as control_plane, TemporaryDirectory() as folder:
        async with connected(control_plane.kubeconfig) as cluster:
            await cluster.create(1)

        async def turn(name: str, _: int) -> Figures:
            started = [sys.executable, "-m", "hack.bench.framework.requests", str(control_plane.kubeconfig), name]
            async with peer(name, [*started, str(seconds)], log=Path(folder, f"{name}.log")) as running:
                event = await running.until("result")
            return {key: event[key] for key in ("cpu_us", "per_second")}

        turns = await in_turn((DIRECT, AIOHTTP), runs, turn)
    return Report(
        name="requests",
        about=f"unary requests over TLS, {TASKS} at a time for {seconds:g} s; medians of {runs}",
        settings={"seconds": seconds, "runs": runs, "tasks": TASKS},
        columns=COLUMNS,
        rows=medians(turns),
        turns=turns,
    )


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs the benchmark with command-line options; returns its reports."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench requests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    return [asyncio.run(measure(options.seconds, options.runs))]


if __name__ == "__main__":
    emit("result", **asyncio.run(read(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))))
