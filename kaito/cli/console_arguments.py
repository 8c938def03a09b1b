"""Arguments of `kaito console`; the command itself is in the distribution `kaito-console`."""

import argparse
from importlib.util import find_spec
from pathlib import Path


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    command.add_argument("--kubeconfig", type=Path, help="kubeconfig (default: KUBECONFIG, then ~/.kube/config)")
    command.add_argument("--context", default="", help="context of the kubeconfig (default: its current context)")
    command.add_argument(
        "-n", "--namespace", action="append", default=[], help="show this namespace only; may be repeated"
    )
    command.add_argument("--address", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    command.add_argument("--port", type=int, default=8585, help="port to listen on; 0 selects a free one")
    command.add_argument(
        "--host",
        action="append",
        default=[],
        help="further accepted Host header of a proxy, such as console.example.com",
    )
    command.add_argument(
        "--trace-url", default="", metavar="URL", help="address of a trace in a trace store, with {trace_id}; linked"
    )
    command.add_argument("--dashboard-url", default="", metavar="URL", help="address of the dashboard; linked")
    command.add_argument("--alerts-url", default="", metavar="URL", help="address of the alerts; linked")
    command.add_argument(
        "--in-cluster",
        action="store_true",
        help="identify users by the bearer tokens that a proxy sends, and apply their rights (in a pod)",
    )
    command.add_argument(
        "--allow-writes", action="store_true", help="allow to create, scale and delete Workspaces in the console"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        LookupError: the console is not installed.
    """
    if find_spec("kaito.console") is None:
        message = "the console is not installed: pip install 'kaito[console]'"
        raise LookupError(message)
    from kaito.console import command

    return command.run(arguments)
