"""Change the code in small ways and see whether a test notices.

make mutate PACKAGE=models                      every mutant of kaito/models, with the tests of test/unit/models
make mutate PACKAGE=models SAMPLE=200 SEED=1    200 of them, chosen at random
make mutate PACKAGE=models FILE=sizing.py       those of one file (patterns relative to the package, by spaces)
make mutate PACKAGE=models ARGS=--survivors     what survived last time, after a test was added
make mutate PACKAGE=presets/oci                 a package of the model images, with presets' own environment

Outcomes are stored in .mutate/; the surviving mutants are written to .mutate/<package>/survivors.md as diffs.
docs/internals/mutation.md has the scores and how to read a survivor.
"""

import argparse
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from hack.mutate import results, target as targets
from hack.mutate.baseline import Baseline, measure
from hack.mutate.mutants import Module, Mutant
from hack.mutate.target import ROOT, Target
from hack.mutate.workers import Choice, FunctionMutants, ImportMutants, Limits, Outcome


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make mutate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", help="below kaito/, or presets/<package>")
    parser.add_argument("--file", default="", help="only files that match these patterns")
    parser.add_argument("--exclude", default="", help="no files that match these patterns")
    parser.add_argument("--tests", default="", help="run these tests instead of the package's own")
    parser.add_argument("--sample", type=int, help="try so many mutants, chosen at random")
    parser.add_argument("--seed", type=int, default=1, help="of the random choice")
    parser.add_argument("--jobs", type=int, default=1, help="processes that try mutants")
    parser.add_argument("--test-seconds", type=float, default=5.0, help="leave out tests that take longer")
    parser.add_argument("--mutant-seconds", type=float, default=20.0, help="most seconds of tests for one mutant")
    parser.add_argument("--at-least", type=float, help="exit 1 below this score in percent")
    parser.add_argument("--fresh", action="store_true", help="forget earlier outcomes")
    parser.add_argument("--survivors", action="store_true", help="try again only what survived last time")
    parser.add_argument("--timeouts", action="store_true", help="try again only what ran out of time last time")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    return parser.parse_args()


def choose(modules: Sequence[Module], sample: int | None, seed: int) -> list[Mutant]:
    """Returns every mutant of the modules, or a random sample, in source order."""
    places = [(module, site) for module in modules for site in module.sites]
    order = list(range(len(places)))
    if sample is not None:
        random.Random(seed).shuffle(order)  # noqa: S311  # a repeatable choice
    found: dict[str, tuple[int, Mutant]] = {}
    for index in order:
        module, site = places[index]
        mutant = module.render(site)
        if mutant is not None:
            found.setdefault(mutant.id, (index, mutant))
        if len(found) == sample:
            break
    return [mutant for _, mutant in sorted(found.values(), key=lambda pair: pair[0])]


def _in_processes(jobs: int, mutants: Sequence[Mutant], work: Callable[[Sequence[Mutant]], None]) -> None:
    """Divides the mutants among forked processes and waits for them."""
    pids = list[int]()
    for index in range(jobs):
        part = mutants[index::jobs]
        if not part:
            continue
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work(part)
                code = 0
            except BaseException:  # noqa: BLE001 -- os._exit below prints nothing
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)


class Run:
    """Tries the mutants that are not known from an earlier run."""

    def __init__(self, target: Target, cache: results.Cache, baseline: Baseline, limits: Limits, jobs: int) -> None:
        self._target = target
        self._cache = cache
        self._choice = Choice(baseline, limits, cache.kills())
        self._jobs = jobs

    def functions(self, mutants: Sequence[Mutant]) -> None:
        """Tries those that change the body of a function."""

        def work(part: Sequence[Mutant]) -> None:
            FunctionMutants(self._target, part, self._choice, self._put).run()

        _in_processes(self._jobs, mutants, work)

    def imports(self, mutants: Sequence[Mutant]) -> None:
        """Tries those that take effect on import, file by file."""
        for file in sorted({mutant.file for mutant in mutants}):

            def work(part: Sequence[Mutant], file: str = file) -> None:
                ImportMutants(self._target, file, self._choice).run(part, self._put)

            _in_processes(self._jobs, [mutant for mutant in mutants if mutant.file == file], work)

    def _put(self, mutant: Mutant, outcome: Outcome) -> None:
        if outcome.status != "error":
            self._cache.put(mutant, outcome)
        if outcome.status == "error":
            print(f"error {mutant.file}:{mutant.first_line}: {outcome.test}", flush=True)
        elif outcome.status in ("survived", "unreached"):
            place = f"{mutant.file}:{mutant.first_line}"
            print(f"{outcome.status:9} {place} {mutant.before[:90]}  =>  {mutant.after[:90]}", flush=True)


def _statuses_to_retry(arguments: argparse.Namespace) -> frozenset[str]:
    """Returns the outcomes of the last run that are tried again; empty: everything that is not known."""
    survivors = {"survived", "unreached"} if arguments.survivors else set[str]()
    timeouts = {"timeout"} if arguments.timeouts else set[str]()
    return frozenset(survivors | timeouts)


def _try_all(target: Target, mutants: Sequence[Mutant], folder: Path, arguments: argparse.Namespace) -> results.Cache:
    cache = results.Cache(target, folder)
    if arguments.fresh:
        cache.clear()
    baseline = measure(target, folder)
    limits = Limits(arguments.test_seconds, arguments.mutant_seconds)
    run = Run(target, cache, baseline, limits, arguments.jobs)
    again = _statuses_to_retry(arguments)
    if again:
        pending = [m for m in mutants if (last := cache.last(m)) and last.status in again]
    else:
        pending = [mutant for mutant in mutants if cache.get(mutant) is None]
    print(f"{len(mutants)} mutants, {len(mutants) - len(pending)} known from earlier runs", flush=True)
    run.functions([mutant for mutant in pending if mutant.scope])
    cache = results.Cache(target, folder)
    rest = list[Mutant]()
    for mutant in pending:
        outcome = cache.get(mutant)
        if not mutant.scope or outcome is None or outcome.status == "import":
            rest.append(mutant)
    run.imports(rest)
    return results.Cache(target, folder)


def main() -> int:
    """Tries the mutants, prints the score, writes the report."""
    arguments = _arguments()
    started = time.perf_counter()
    target = targets.find(
        arguments.package,
        files=arguments.file.split(),
        exclude=arguments.exclude.split(),
        tests=arguments.tests.split(),
    )
    folder = ROOT / ".mutate" / target.name.replace("/", ".")
    folder.mkdir(parents=True, exist_ok=True)
    mutants = choose([Module(ROOT, file) for file in target.sources], arguments.sample, arguments.seed)
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant.file}:{mutant.first_line} {mutant.scope}\n  - {mutant.before}\n  + {mutant.after}")
        return 0
    os.chdir(target.workdir)
    cache = _try_all(target, mutants, folder, arguments)
    retried = bool(_statuses_to_retry(arguments))
    known = cache.last if retried else cache.get
    outcomes = {mutant: outcome for mutant in mutants if (outcome := known(mutant)) is not None}
    if len(outcomes) < len(mutants) and not retried:
        print(f"{len(mutants) - len(outcomes)} mutants have no outcome: run again, with JOBS=1 to see why")
    equivalents = results.Equivalent.load()
    result, survivors = results.score(outcomes, equivalents)
    path = folder / "survivors.md"
    path.write_text(results.report(target, outcomes, survivors, result))
    if arguments.sample is None:
        for entry in results.stale(equivalents, target, mutants):
            print(f"equivalent.toml: matches no mutant: {entry.file} {entry.scope}: {entry.before}  =>  {entry.after}")
    width = shutil.get_terminal_size().columns
    print("-" * min(width, 80))
    print(f"{target.name}: {results.summary(result)}, {time.perf_counter() - started:.0f} s")
    print(f"survivors: {path.relative_to(ROOT)}")
    return 1 if arguments.at_least is not None and result.percent < arguments.at_least else 0


if __name__ == "__main__":
    sys.exit(main())
