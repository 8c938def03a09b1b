"""`python -m hack.cluster`: the command line of a real node on this machine."""

import argparse
import os
import sys
from pathlib import Path

from hack.cluster import Cluster, CommandFailed, Gpus, Unavailable, binaries, gpus, prerequisites, runtime
from hack.cluster.layout import REGISTRY, Layout
from hack.cluster.processes import StartFailed


def report(line: str) -> None:
    """Prints a line of progress to standard error."""
    print(line, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = argparse.ArgumentParser(prog="python -m hack.cluster", description=__doc__)
    result.add_argument(
        "--name",
        default=Layout.name,
        help="name of the cluster, its node and its network namespace (default: %(default)s)",
    )
    commands = result.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check", help="print in one line what this machine lacks to run a cluster, and fail; nothing if it can"
    )
    check.add_argument("--tests", action="store_true", help="check what the tests on the cluster need, too")
    commands.add_parser("build", help="build the programs that are missing")
    commands.add_parser("up", help="start what does not run and wait until the node is Ready")
    down = commands.add_parser("down", help="stop everything and remove its state; images are kept")
    down.add_argument("--purge", action="store_true", help="remove the images and the blobs of the registry too")
    within = commands.add_parser("in", help="run a command in the cluster's network, with KUBECONFIG set")
    within.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="for example: kubectl get pods -A")
    load = commands.add_parser("load", help="import image archives into containerd")
    load.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE", help="OCI or docker archive")
    gpu = commands.add_parser("gpu", help="let the node advertise GPUs that it does not have")
    gpu.add_argument("--count", type=int, default=Gpus.count, help="number of GPUs (default: %(default)s)")
    gpu.add_argument("--product", default=Gpus.product, help="product name (default: %(default)s)")
    gpu.add_argument(
        "--memory", type=int, default=Gpus.memory_mib, help="memory of each GPU, MiB (default: %(default)s)"
    )
    commands.add_parser("status", help="print processes, addresses and images")
    return result


def print_status(cluster: Cluster) -> None:
    """Prints what runs."""
    running = cluster.processes.running()
    if not running:
        print("down")
        return
    print("processes   " + " ".join(f"{name}={pid}" for name, pid in running.items()))
    print(f"registry    {REGISTRY}")
    print(f"kubeconfig  {cluster.layout.kubeconfig}")
    print(f"logs        {cluster.layout.logs}")
    if "kube-apiserver" in running:
        print(cluster.kubectl("get", "nodes", "-o", "wide"), end="")
    if "containerd" in running:
        print("\n".join(name for name in runtime.images(cluster.layout) if "sha256:" not in name))


def run(options: argparse.Namespace) -> int:
    """Runs one command and returns the exit code."""
    cluster = Cluster(options.name, report)
    match options.command:
        case "check":
            prerequisites.check(tests=options.tests)
        case "build":
            binaries.build(report)
        case "up":
            cluster.up()
            print(
                f"export KUBECONFIG={cluster.layout.kubeconfig}  # reachable with: python -m hack.cluster in kubectl …"
            )
        case "down":
            cluster.down(purge=options.purge)
        case "load":
            cluster.load(*options.archives)
        case "gpu":
            gpus.advertise(cluster, cluster.layout.name, Gpus(options.count, options.product, options.memory))
        case "status":
            print_status(cluster)
        case _:
            command = cluster.command(*options.words)
            os.execvpe(command[0], command, cluster.environment)  # noqa: S606
    return 0


def main() -> int:
    """Parses the arguments; errors are one line."""
    try:
        return run(parser().parse_args())
    except (Unavailable, StartFailed, CommandFailed, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
