"""Arguments of `kaito simulate`; the command itself is in the distribution `kaito-simulation`."""

import argparse
from importlib.util import find_spec
from pathlib import Path


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    command.add_argument("--seeds", type=int, default=20, help="number of seeds to run (default: 20)")
    command.add_argument("--jobs", type=int, default=1, help="processes that run the seeds (default: 1)")
    command.add_argument("--first", type=int, default=0, help="first seed (default: 0)")
    command.add_argument(
        "--record", type=Path, help="file to which the result of each seed is appended; seeds in it are not run again"
    )
    command.add_argument(
        "--summary", type=Path, nargs="+", metavar="FILE", help="print the sums of these records instead of running"
    )
    command.add_argument("--seed", type=int, help="run this seed only, and print what happened")
    command.add_argument("--scenario", type=Path, help="file with a scenario as JSON, instead of a seed")
    command.add_argument(
        "--short",
        action="store_true",
        help="ten minutes of trouble for one or two Workspaces, in a fraction of the time",
    )
    command.add_argument("--explain", action="store_true", help="also print every write of both controllers")
    command.add_argument(
        "--minimize", action="store_true", help="find fewer steps that violate the same invariant, and print a test"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        LookupError: the simulation is not installed.
    """
    if find_spec("kaito.simulation") is None:
        message = "the simulation is not installed: pip install 'kaito[simulation]'"
        raise LookupError(message)
    from kaito.simulation import command

    return command.run(arguments)
