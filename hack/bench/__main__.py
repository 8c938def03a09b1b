"""Runs one benchmark by name, or all of them in turn."""

import argparse
import importlib
import sys

BENCHMARKS = {
    "workspaces": ("hack.bench.workspaces", "Workspaces created at once on a real API server, until InferenceReady"),
    "framework": ("hack.bench.framework", "the ConfigMap controller on ours, controller-runtime and kopf"),
    "store": ("hack.bench.framework.store", "what a cached object costs: text, models or dictionaries"),
    "informer": ("hack.bench.framework.informer", "first fill and a stream of changes, without a network"),
}


def main() -> None:
    """Dispatch to the benchmark's own `main`, with the rest of the command line."""
    described = "\n".join(f"  {name:<12} {text}" for name, (_, text) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench",
        epilog=f"benchmarks:\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="which one; all of them by default")
    chosen, rest = parser.parse_known_args()
    for name in [chosen.name] if chosen.name else BENCHMARKS:
        sys.stderr.write(f"== {name}: {BENCHMARKS[name][1]}\n")
        importlib.import_module(BENCHMARKS[name][0]).main(rest)


main()
