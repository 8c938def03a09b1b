"""The command `kaito console`: serves the console for the cluster of a kubeconfig until it is interrupted."""

import argparse
import asyncio
import signal
import sys
from typing import Any
from urllib.parse import urlsplit

from kaito.console.console import running_console
from kaito.console.settings import ConsoleSettings
from kaito.runtime.client import HttpTransport, find_cluster_config
from kaito.runtime.logging import configure


def run(arguments: argparse.Namespace) -> int:
    """Runs the console; returns the exit code.

    Raises:
        ConfigurationError: there is no cluster configuration, or the address cannot be used.
    """
    # A person reads the output of a terminal, a collector that of a pod.
    configure(*(("json", "info") if arguments.in_cluster else ("console", "warning")))
    asyncio.run(_serve(arguments))
    return 0


async def _serve(arguments: argparse.Namespace) -> None:
    config = await find_cluster_config(arguments.kubeconfig, arguments.context)
    settings = ConsoleSettings(
        mode="cluster" if arguments.in_cluster else "kubeconfig",
        cluster=arguments.context or urlsplit(config.server).netloc,
        address=arguments.address,
        port=arguments.port,
        allow_writes=arguments.allow_writes,
        namespaces=tuple(arguments.namespace),
        hosts=tuple(arguments.host),
        trace_url=arguments.trace_url,
        dashboard_url=arguments.dashboard_url,
        alerts_url=arguments.alerts_url,
    )
    _cancel_on_signals()
    transport = HttpTransport(config)
    try:
        async with running_console(settings, transport, cluster=config if arguments.in_cluster else None) as console:
            writes = "" if settings.allow_writes else "; it changes nothing (--allow-writes)"
            sys.stdout.write(f"open {console.link}\nThe console shows {settings.cluster}{writes}. Ctrl-C ends it.\n")
            sys.stdout.flush()
            await asyncio.Event().wait()
    finally:
        await transport.close()


def _cancel_on_signals() -> None:
    task: asyncio.Task[Any] | None = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancel() if task else None)
