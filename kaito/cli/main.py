"""The `kaito` command: a local cluster, demonstrations, plans and diagnoses of Workspaces, a chat, and model files.

Called by the console scripts `kaito` and `kubectl-kaito`.
Exit codes: 0 done, 1 failure (reported in one line), 2 wrong usage, 130 interrupted.
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

from kaito.cli import chat_arguments, console_arguments, log_lines, model, simulate_arguments
from kaito.cli.explain import arguments as explain_arguments
from kaito.cli.fleet import arguments as fleet_arguments
from kaito.cli.plan import arguments as plan_arguments


def parser() -> argparse.ArgumentParser:
    """Every command and flag."""
    root = argparse.ArgumentParser(
        prog="kubectl kaito" if Path(sys.argv[0]).name.startswith("kubectl-kaito") else "kaito",
        description="Try Kaito on a single machine, plan and explain Workspaces, chat with their models, and pack "
        "model files. As kubectl-kaito in the PATH it is a plug-in: kubectl kaito explain NAME.",
    )
    root.add_argument("--version", action="version", version=f"kaito {version('kaito')}")
    commands = root.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="run a local cluster with Kaito until interrupted")
    show = commands.add_parser("demo", help="apply one Workspace, query it, delete it and exit")
    show.add_argument("--tuning", action="store_true", help="tune an adapter, serve it, and compare the answers")
    show.add_argument("--sample", type=Path, help="Workspace manifest to apply (default: the phi-3 sample)")
    for command in (up, show):
        command.add_argument("--folder", type=Path, default=Path(".kaito"), help="folder of kubeconfig, logs and files")
        command.add_argument(
            "--control-plane",
            choices=("memory", "real"),
            default="memory",
            help="in-memory API server, or a real kube-apiserver",
        )
        command.add_argument(
            "--node-api", choices=("machine", "nodeclaim"), default="machine", help="kind of node request to create"
        )
        command.add_argument("--speed", type=float, default=60.0, help="simulated seconds per real second of the cloud")
        command.add_argument(
            "--tracing-endpoint",
            default="",
            metavar="URL",
            help="collector that managers and pods send spans to by OTLP over HTTP, such as http://127.0.0.1:4318",
        )
        command.add_argument("--presets", type=Path, help="environment with the serving software")
        command.add_argument(
            "--model", default="", help="directory of the model that pods serve, or 'tiny' for random weights"
        )
    up.add_argument("--console-port", type=int, default=8585, help="port of the console; another one if it is in use")
    chat_arguments.add_arguments(commands.add_parser("chat", help="talk to the model of a Workspace, in any cluster"))
    model.add_arguments(commands.add_parser("model", help="pack, push, inspect and pull model files as OCI artifacts"))
    console_arguments.add_arguments(
        commands.add_parser("console", help="serve a web application that shows the Workspaces of a cluster")
    )
    simulate_arguments.add_arguments(
        commands.add_parser("simulate", help="run Kaito in a simulated cluster in which everything fails at times")
    )
    planned = commands.add_parser("plan", help="print what the controller would do about Workspaces")
    plan_arguments.add_arguments(planned)
    explained = commands.add_parser("explain", help="print why a Workspace is not ready, and what can be done")
    explain_arguments.add_arguments(explained)
    cost = commands.add_parser("cost", help="print what Workspaces cost, and which nodes do nothing useful")
    fleet_arguments.add_cost_arguments(cost)
    top = commands.add_parser("top", help="watch state, copies, nodes, price and requests of Workspaces")
    fleet_arguments.add_top_arguments(top)
    return root


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script.

    Raises:
        SystemExit: always, with the exit code.
    """
    arguments = parser().parse_args(argv)
    log_lines.configure()
    try:
        if arguments.command == "model":
            sys.exit(model.run(arguments))
        if arguments.command == "simulate":
            sys.exit(simulate_arguments.run(arguments))
        if arguments.command == "console":
            sys.exit(console_arguments.run(arguments))
        if arguments.command == "chat":
            from kaito.cli import chat

            sys.exit(chat.run(arguments))
        if arguments.command == "plan":
            from kaito.cli.plan import command

            sys.exit(command.run(arguments))
        if arguments.command == "explain":
            from kaito.cli.explain import command as explain_command

            sys.exit(explain_command.run(arguments))
        if arguments.command in {"cost", "top"}:
            from kaito.cli.fleet import command as fleet_command

            sys.exit(fleet_command.run(arguments))
        asyncio.run(_run(arguments))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    except Exception as error:  # noqa: BLE001  # the outermost edge: one readable line instead of a traceback
        sys.stderr.write(f"kaito: {str(error) or type(error).__name__}\n")
        sys.exit(1)


async def _run(arguments: argparse.Namespace) -> None:
    if find_spec("kaito.local") is None:
        message = "the local cluster is not installed: pip install 'kaito[local]'"
        raise LookupError(message)
    from kaito.local.demo import demo
    from kaito.local.options import Options
    from kaito.local.tuning_demo import tuning_demo
    from kaito.local.up import up
    from kaito.local.view import View

    options = Options(
        folder=arguments.folder,
        control_plane=arguments.control_plane,
        node_api=arguments.node_api,
        speed=arguments.speed,
        presets=arguments.presets,
        model=arguments.model,
        console_port=getattr(arguments, "console_port", 0),
        tracing_endpoint=arguments.tracing_endpoint,
    )
    _cancel_on_signals()
    if arguments.command == "up":
        await up(options, View())
    elif arguments.tuning:
        await tuning_demo(options, View())
    else:
        await demo(options, View(), arguments.sample)


def _cancel_on_signals() -> None:
    task: asyncio.Task[Any] | None = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancel() if task else None)
