"""Runs the simulator as a process: `python -m kaito.cloud.azure.simulator --port 7443 --kubeconfig … --speed 60`.

It prints one line with its URL once it listens. With a kubeconfig, the nodes of its agent pools join that cluster.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from kaito.cloud.azure.simulator.named_faults import NAMED, named
from kaito.cloud.azure.simulator.server import serve
from kaito.cloud.azure.simulator.settings import SimulatorSettings
from kaito.cloud.azure.simulator.simulator import Simulator
from kaito.runtime.client import connect

FIELD_MANAGER = "arm-simulator"


def parser() -> argparse.ArgumentParser:
    """Builds the parser with all flags."""
    defaults = SimulatorSettings()
    flags = argparse.ArgumentParser(
        prog="python -m kaito.cloud.azure.simulator",
        description="Simulate Azure Resource Manager for one AKS cluster.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument("--host", default="127.0.0.1", help="address to listen on; any token is accepted")
    flags.add_argument("--port", type=int, default=7443, help="port to listen on; 0 selects a free port")
    flags.add_argument("--kubeconfig", type=Path, default=None, help="cluster that nodes join; without it, none")
    flags.add_argument("--context", default="", help="context of the kubeconfig")
    flags.add_argument("--speed", type=float, default=defaults.speed, help="simulated seconds per real second")
    flags.add_argument("--subscription", default=defaults.subscription_id)
    flags.add_argument("--resource-group", default=defaults.resource_group)
    flags.add_argument("--cluster", default=defaults.cluster)
    flags.add_argument("--location", default=defaults.location)
    flags.add_argument("--kubernetes-version", default=defaults.kubernetes_version)
    flags.add_argument(
        "--provision-seconds",
        type=float,
        default=None,
        help="simulated seconds to create a pool; default: by instance type",
    )
    flags.add_argument(
        "--delete-seconds", type=float, default=defaults.delete_seconds, help="simulated seconds to delete a pool"
    )
    flags.add_argument(
        "--retry-after-seconds",
        type=float,
        default=None,
        help="Retry-After of operations in simulated seconds; default: none",
    )
    flags.add_argument(
        "--quota-refusal",
        choices=("aks", "compute", "pool"),
        default=defaults.quota_refusal,
        help="how a pool beyond the quota is rejected: by AKS (400), by Compute (409), or by a pool that fails",
    )
    flags.add_argument(
        "--mig-strategy",
        choices=("single", "mixed"),
        default=defaults.mig_strategy,
        help="how the device plugin advertises slices of GPUs",
    )
    flags.add_argument(
        "--request-limits",
        action=argparse.BooleanOptionalAction,
        default=defaults.request_limits,
        help="enforce the rate limits of AKS on the simulated clock",
    )
    flags.add_argument(
        "--quota", action="append", default=[], metavar="FAMILY=VCPUS", help="quota of a family; repeatable"
    )
    flags.add_argument(
        "--fault", action="append", default=[], choices=sorted(NAMED), help="fault to inject once; repeatable"
    )
    return flags


def parse_settings(args: argparse.Namespace) -> SimulatorSettings:
    """Converts parsed flags to settings."""
    return SimulatorSettings(
        subscription_id=args.subscription,
        resource_group=args.resource_group,
        cluster=args.cluster,
        location=args.location,
        kubernetes_version=args.kubernetes_version,
        speed=args.speed,
        provision_seconds=args.provision_seconds,
        delete_seconds=args.delete_seconds,
        retry_after_seconds=args.retry_after_seconds,
        quota_refusal=args.quota_refusal,
        mig_strategy=args.mig_strategy,
        request_limits=args.request_limits,
    )


async def run(args: argparse.Namespace) -> None:
    """Serves until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        nodes = None
        if args.kubeconfig is not None:
            connection = connect(args.kubeconfig, context=args.context, field_manager=FIELD_MANAGER)
            nodes = await stack.enter_async_context(connection)
        simulator = await stack.enter_async_context(Simulator(parse_settings(args), nodes=nodes))
        for entry in args.quota:
            family, _, limit = entry.partition("=")
            simulator.cluster.quota[family.lower()] = int(limit)
        for fault in args.fault:
            simulator.faults.add(named(fault))
        url = await stack.enter_async_context(serve(simulator, host=args.host, port=args.port))
        sys.stdout.write(f"arm simulator listening on {url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and runs the simulator."""
    asyncio.run(run(parser().parse_args(argv)))


if __name__ == "__main__":
    main()
