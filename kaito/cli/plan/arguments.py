"""Flags of `kaito plan`, in a module of its own: `kaito --help` does not load the controller."""

import argparse
from pathlib import Path


def add_arguments(plan: argparse.ArgumentParser) -> None:
    """Adds the flags to the parser of the command."""
    plan.add_argument(
        "-f",
        "--filename",
        action="append",
        required=True,
        metavar="FILE",
        help="file or directory with Workspaces or InferenceSets, and the ConfigMaps, Secrets and Nodes that they use; "
        "- reads stdin",
    )
    plan.add_argument("-o", "--output", choices=("text", "json", "yaml"), default="text", help="format of the output")
    plan.add_argument("--cluster", action="store_true", help="compare with the cluster of the kubeconfig")
    plan.add_argument("--kubeconfig", type=Path, help="kubeconfig file (default: KUBECONFIG, else ~/.kube/config)")
    plan.add_argument("--context", default="", help="context of the kubeconfig (default: its current context)")
    plan.add_argument("--region", default="", help="region of the nodes, for prices (default: that of the cluster)")
    plan.add_argument(
        "--capacity-type",
        choices=("on-demand", "spot"),
        help="kind of price to print (default: that of resource.capacityType)",
    )
    plan.add_argument("--prices", type=Path, metavar="FILE", help="table of prices, which has precedence")
    plan.add_argument("--live-prices", action="store_true", help="read Azure's public price API, with a cache of a day")
    plan.add_argument("--currency", default="USD", help="currency of the price API (default: USD)")
    plan.add_argument("controller_flags", nargs="*", metavar="FLAG", help="after --: flags of the workspace-controller")
