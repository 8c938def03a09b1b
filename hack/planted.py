"""Plants the bugs of `test/unit/simulation/planted_bugs.toml` one at a time, and simulates until one is found.

    python -m hack.planted --seeds 30            # all bugs; prints a table for docs/reliability.md
    python -m hack.planted --only surplus-kept

Each bug is planted in a child process that has everything imported already: the code of the changed functions is
replaced. The child simulates until an invariant is violated.
"""

import argparse
import gc
import os
import select
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

from kaito.runtime.testing.simulate import Report, Scenario, Step, simulate
from kaito.simulation.command import run_scenario
from kaito.simulation.simulation import KaitoSimulation

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "test" / "unit" / "simulation" / "planted_bugs.toml"


class Found(NamedTuple):
    """How a bug was found: `by` is its scenario, or the number of seeds; empty if it was not found."""

    by: str
    invariant: str
    message: str


def bugs() -> list[dict[str, str]]:
    """Returns the bugs of the table."""
    return list(tomllib.loads(TABLE.read_text())["bug"])


def run_named(name: str) -> Report:
    """Runs a scenario of the table."""
    (found,) = [each for each in tomllib.loads(TABLE.read_text())["scenario"] if each["name"] == name]
    steps = tuple(Step(float(at), kind, arguments) for at, kind, arguments in found["steps"])
    return simulate(KaitoSimulation(trouble_seconds=float(found["seconds"])), Scenario(1, steps))


def problem(bug: dict[str, str]) -> str:
    """Why the bug cannot be planted; empty if it can."""
    count = (ROOT / bug["file"]).read_text().count(bug["old"])
    return "" if count == 1 else f"{bug['name']}: the text occurs {count} times in {bug['file']}"


def plant(bug: dict[str, str]) -> int:
    """Replaces the code of the functions of the bug's module; returns how many have changed."""
    path = ROOT / bug["file"]
    module = bug["file"].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    before = _functions(compile(path.read_text(), str(path), "exec"))
    after = _functions(compile(path.read_text().replace(bug["old"], bug["new"]), str(path), "exec"))
    changed = {name for name, code in after.items() if before.get(name) != code}
    count = 0
    gc.unfreeze()  # frozen objects are not listed
    for found in gc.get_objects():
        if isinstance(found, FunctionType) and found.__module__ == module and found.__code__.co_qualname in changed:
            found.__code__ = after[found.__code__.co_qualname]
            count += 1
    return count


def _functions(code: CodeType) -> dict[str, CodeType]:
    found: dict[str, CodeType] = {}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found[constant.co_qualname] = constant
            found |= _functions(constant)
    return found


def search(bug: dict[str, str], first: int, seeds: int) -> Found:
    """Simulates the bug's scenario, and then seeds, until one violates an invariant."""
    if not plant(bug):
        return Found("", "", "no function has changed")
    runs: list[tuple[str, Callable[[], Report]]] = [(f"`{bug['scenario']}`", partial(run_named, bug["scenario"]))]
    runs += [(str(number), partial(run_scenario, seed)) for number, seed in enumerate(range(first, first + seeds), 1)]
    for name, run in runs:
        try:
            report = run()
        except Exception as error:  # noqa: BLE001 - a bug may break the run in any way
            return Found(name, "the run fails", f"{type(error).__name__}: {str(error)[:200]}")
        if report.violation is not None:
            return Found(name, report.violation.invariant, report.violation.text[:200])
    return Found("", "", f"not with its scenario and {seeds} seeds")


def in_child(bug: dict[str, str], first: int, seeds: int, seconds: float) -> Found:
    """Searches in a child process, which is killed after a time."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, "\t".join(map(str, search(bug, first, seeds))).encode())
        os._exit(0)
    os.close(writer)
    deadline, data = time.monotonic() + seconds, b""
    while time.monotonic() < deadline:
        if select.select([reader], [], [], 1.0)[0]:
            data = os.read(reader, 4096)
            break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    parts = data.decode().split("\t")
    return Found(*parts) if len(parts) == 3 else Found("", "", f"not within {seconds:.0f} s")


def main() -> None:
    """Runs the command."""
    flags = argparse.ArgumentParser(prog="python -m hack.planted", description="Count the seeds until a bug is found.")
    flags.add_argument("--seeds", type=int, default=30, help="seeds after the scenario of a bug (default: 30)")
    flags.add_argument("--first", type=int, default=0, help="first seed (default: 0)")
    flags.add_argument("--only", nargs="*", default=None, help="names of bugs")
    flags.add_argument("--seconds", type=float, default=600.0, help="time limit for each bug")
    arguments = flags.parse_args()
    chosen = [bug for bug in bugs() if arguments.only is None or bug["name"] in arguments.only]
    problems = [text for bug in chosen if (text := problem(bug))]
    if problems:
        sys.exit("\n".join(problems))
    run_named("scale")  # imports everything
    print("| planted bug | found by | violated invariant |\n|---|---|---|", flush=True)
    for bug in chosen:
        found = in_child(bug, arguments.first, arguments.seeds, arguments.seconds)
        print(f"| {bug['text']} | {found.by or 'not found'} | {found.invariant} |", flush=True)
        print(f"{bug['name']}: {found.by} {found.message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
