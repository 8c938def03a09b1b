"""Runs one benchmark by name, or all of them in turn; prints one JSON object each, and the tables at the end.

python -m hack.bench                  all of them, up to half an hour
python -m hack.bench --quick          all of them, small and once, to check that they run; the figures are not
meaningful python -m hack.bench latency --help   description and options of one benchmark
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from hack.bench.report import Report, this_machine


class Benchmark(NamedTuple):
    """A benchmark's module and its options for a quick run."""

    module: str
    about: str
    quick: str
    needs_node: bool = False
    """Whether it measures a running cluster of `hack.cluster`; it is then run only by name."""


BENCHMARKS = {
    "workspaces": Benchmark(
        "hack.bench.workspaces", "Workspaces created at once on a real API server, until InferenceReady", "--count 20"
    ),
    "provisioner": Benchmark(
        "hack.bench.provisioner",
        "NodeClaims created and deleted at once on the ARM simulator, beside an earlier commit",
        "--count 10 --runs 1",
    ),
    "start": Benchmark(
        "hack.bench.start", "both controllers from their start to /readyz, beside an earlier commit", "--runs 1"
    ),
    "framework": Benchmark(
        "hack.bench.framework.configmaps",
        "the ConfigMap controller on ours, controller-runtime and kopf",
        "--objects 200 --runs 1",
    ),
    "sync": Benchmark(
        "hack.bench.framework.sync",
        "from the start of a process to full caches, and what they hold",
        "--objects 500 --runs 1 --settle 1",
    ),
    "latency": Benchmark(
        "hack.bench.framework.latency", "from the sending of a change to its reconcile", "--seconds 3 --runs 1"
    ),
    "queue": Benchmark(
        "hack.bench.framework.queue_operations", "operations on the work queue", "--seconds 0.5 --runs 1"
    ),
    "requests": Benchmark(
        "hack.bench.framework.requests", "unary requests of the transport, beside aiohttp", "--seconds 0.5 --runs 1"
    ),
    "idle": Benchmark("hack.bench.framework.idle", "an operator with nothing to do", "--seconds 5 --runs 1"),
    "reads": Benchmark(
        "hack.bench.framework.reads", "reads of the cache, and reads right after writes", "--seconds 0.5 --runs 1"
    ),
    "weights": Benchmark(
        "hack.bench.weights", "a Workspace on a real node, by source of the weights", "--runs 1", needs_node=True
    ),
    "autoscaling": Benchmark(
        "hack.bench.autoscaling",
        "the autoscaler beside the formula of a HorizontalPodAutoscaler on the same traces, in simulated time",
        "--seeds 1 --traces sawtooth",
    ),
    "growth": Benchmark(
        "hack.bench.growth", "parts of the workspace controller's work by the number of Workspaces", "--count 50 100"
    ),
    "scale": Benchmark(
        "hack.bench.scale", "one workspace controller with up to 10,000 existing Workspaces", "--count 50 100"
    ),
    "console": Benchmark(
        "hack.bench.console", "the console's memory while Workspaces change, for an hour", "--count 20 --minutes 0.2"
    ),
    "store": Benchmark(
        "hack.bench.framework.store", "what a cached object costs: text, models or dictionaries", "--objects 500"
    ),
    "informer": Benchmark(
        "hack.bench.framework.informer", "first fill and a stream of changes, without a network", "--objects 500"
    ),
}


def run(name: str, arguments: Sequence[str]) -> list[Report]:
    """Runs one benchmark and prints its reports as JSON; returns them."""
    chosen = BENCHMARKS[name]
    print(f"== {name}: {chosen.about}", file=sys.stderr, flush=True)
    benchmark = cast("Callable[[Sequence[str]], list[Report]]", importlib.import_module(chosen.module).benchmark)
    machine = this_machine()
    reports = benchmark(arguments)
    for report in reports:
        print(report.as_json(machine), flush=True)
    return reports


def main() -> None:
    """Runs the named benchmark, or all, with the rest of the command line."""
    described = "\n".join(f"  {name:<12} {each.about}" for name, each in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench",
        description=__doc__,
        epilog=f"benchmarks:\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="which one; all of them by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run")
    parser.add_argument("-h", "--help", action="store_true")
    chosen, rest = parser.parse_known_args()
    if chosen.help and chosen.name is None:
        parser.print_help()
        return
    rest += ["--help"] if chosen.help else []
    reports = list[Report]()
    for name in [chosen.name] if chosen.name else [name for name, each in BENCHMARKS.items() if not each.needs_node]:
        reports += run(name, [*(BENCHMARKS[name].quick.split() if chosen.quick else ()), *rest])
    for report in reports:
        print(f"\n**{report.name}**: {report.about}\n\n{report.as_markdown()}")


main()
