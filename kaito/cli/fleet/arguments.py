"""Flags of `kaito cost` and `kaito top`, in a module of its own: `kaito --help` does not load the client."""

import argparse
import re
from pathlib import Path
from typing import Final

from kaito.cli.cluster_arguments import add_cluster_arguments

COST_KEYS: Final = ("price", "idle", "total", "nodes", "age", "state", "name", "namespace")
TOP_KEYS: Final = ("waiting", "running", "price", "nodes", "state", "name", "namespace")

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(m|h|d)")
_SECONDS: Final = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def duration_seconds(text: str) -> float:
    """Reads a duration such as `30m`, `2h` or `1d`.

    Raises:
        ArgumentTypeError: it is not one.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: use for example 30m, 2h or 1d")
    return float(found[1]) * _SECONDS[found[2]]


def add_cost_arguments(cost: argparse.ArgumentParser) -> None:
    """Adds the flags of `kaito cost`."""
    _add_common(cost, COST_KEYS, "price")
    cost.add_argument("-o", "--output", choices=("text", "json", "yaml"), default="text", help="format of the output")
    cost.add_argument(
        "--idle-after",
        type=duration_seconds,
        default=7200.0,
        metavar="DURATION",
        help="report Workspaces without a request for this long (default: 2h)",
    )
    cost.add_argument("--no-requests", action="store_true", help="do not read the servers of the models")


def add_top_arguments(top: argparse.ArgumentParser) -> None:
    """Adds the flags of `kaito top`."""
    _add_common(top, TOP_KEYS, "waiting")
    top.add_argument(
        "--interval", type=float, default=2.0, metavar="SECONDS", help="time between refreshes (default: 2)"
    )
    top.add_argument("--once", action="store_true", help="print one table and exit, as without a terminal")


def _add_common(command: argparse.ArgumentParser, keys: tuple[str, ...], default: str) -> None:
    add_cluster_arguments(command, all_namespaces=True)
    command.add_argument(
        "--sort", choices=keys, default=default, help=f"order: amounts descending, names ascending (default: {default})"
    )
    command.add_argument("--reverse", action="store_true", help="reverse the order")
    command.add_argument("--region", default="", help="region of nodes whose labels do not name it, for prices")
    command.add_argument(
        "--prices", type=Path, metavar="FILE", help="table of prices for Workspaces without status.cost"
    )
