"""Flags of the commands that read a cluster, without imports: `kaito --help` does not load the client."""

import argparse
from pathlib import Path


def add_cluster_arguments(command: argparse.ArgumentParser, *, all_namespaces: bool = False) -> None:
    """Adds the flags that select the cluster and the namespace."""
    command.add_argument("-n", "--namespace", default="", help="namespace (default: that of the kubeconfig)")
    if all_namespaces:
        command.add_argument("-A", "--all-namespaces", action="store_true", help="Workspaces of all namespaces")
    command.add_argument("--kubeconfig", type=Path, help="kubeconfig (default: KUBECONFIG, then ~/.kube/config)")
    command.add_argument("--context", default="", help="context of the kubeconfig (default: its current context)")
