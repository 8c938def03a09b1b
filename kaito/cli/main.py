"""The `kaito` command: a cluster on this machine, and a demonstration on it.

Called by the console script. Exit codes: 0 done, 1 something failed (said in one line), 2 wrong usage, 130 interrupted.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def parser() -> argparse.ArgumentParser:
    """Every command and flag."""
    root = argparse.ArgumentParser(
        prog="kaito", description="Kaito on one machine: AI inference on Kubernetes, to try."
    )
    root.add_argument("--version", action="version", version=f"kaito {version('kaito')}")
    commands = root.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="run a cluster with Kaito in it until interrupted")
    show = commands.add_parser("demo", help="run one Workspace from manifest to answer, then leave")
    show.add_argument("--sample", type=Path, help="another Workspace manifest to apply")
    for command in (up, show):
        command.add_argument("--folder", type=Path, default=Path(".kaito"), help="kubeconfig, logs and files")
        command.add_argument("--control-plane", choices=("memory", "real"), default="memory", help="API server to run")
        command.add_argument("--node-api", choices=("machine", "nodeclaim"), default="machine", help="claims to use")
        command.add_argument("--speed", type=float, default=60.0, help="how fast the simulated cloud's time runs")
        command.add_argument("--presets", type=Path, help="environment with the serving software installed")
    return root


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script.

    Raises:
        SystemExit: always, with the exit code.
    """
    arguments = parser().parse_args(argv)
    try:
        asyncio.run(_run(arguments))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    except Exception as error:  # noqa: BLE001  # the outermost edge: one readable line instead of a traceback
        sys.stderr.write(f"kaito: {error}\n")
        sys.exit(1)


async def _run(arguments: argparse.Namespace) -> None:
    if find_spec("kaito.local") is None:
        message = "the local cluster is not installed: pip install 'kaito[local]'"
        raise LookupError(message)
    from kaito.local.demo import demo
    from kaito.local.options import Options
    from kaito.local.up import up
    from kaito.local.view import View
    from kaito.runtime.logging import configure

    options = Options(
        folder=arguments.folder,
        control_plane=arguments.control_plane,
        node_api=arguments.node_api,
        speed=arguments.speed,
        presets=arguments.presets,
    )
    configure("console", "warning")
    _cancel_on_signals()
    await (demo(options, View(), arguments.sample) if arguments.command == "demo" else up(options, View()))


def _cancel_on_signals() -> None:
    task: asyncio.Task[Any] | None = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancel() if task else None)
