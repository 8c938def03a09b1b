"""Flags of `kaito explain`, in a module of its own: `kaito --help` does not load the diagnosis."""

import argparse

from kaito.cli.cluster_arguments import add_cluster_arguments


def add_arguments(explain: argparse.ArgumentParser) -> None:
    """Adds the flags to the parser of the command."""
    explain.add_argument(
        "workspace", help="name of the Workspace or InferenceSet, NAMESPACE/NAME, or inferenceset/NAME"
    )
    add_cluster_arguments(explain)
    explain.add_argument(
        "-o", "--output", choices=("text", "json", "yaml"), default="text", help="format of the output"
    )
