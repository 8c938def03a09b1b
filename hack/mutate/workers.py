"""Run the tests of one mutant in a fork of a process that has already imported the modules and collected the tests.

There are two kinds of forks:

- A change inside a function: the process is forked after pytest has collected the tests. The fork replaces the code
  object of the function, wherever decorators, pydantic or a dataclass hold it, and runs the tests that cover the lines.
- A change of code that runs on import (constants, fields, defaults): the process is forked before it imports any module
  that depends on the changed one. An import hook supplies the changed module, and pytest starts in the fork.
"""

import ast
import gc
import importlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, FunctionType
from typing import Literal, NoReturn

import pytest

from hack.mutate.baseline import PYTEST_OPTIONS, Baseline, clear_caches
from hack.mutate.deadline import Deadline
from hack.mutate.mutants import Mutant
from hack.mutate.target import Target

Status = Literal["killed", "timeout", "survived", "unreached", "import", "error"]
"""`import`: the code object could not be replaced, so the mutant has to be imported. `error`: this tool failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of running the tests on one mutant."""

    status: Status
    test: str
    """The test that failed or ran out of time."""

    tests: int
    """Number of selected tests."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of one mutant."""

    test_seconds: float
    """Tests that take longer without a mutant are excluded."""

    mutant_seconds: float
    """CPU time of all tests selected for one mutant."""


@dataclass(slots=True)
class Choice:
    """Selects the tests of a mutant; those that killed other mutants of the file run first."""

    baseline: Baseline
    limits: Limits
    kills: Counter[tuple[str, str]]
    """Number of mutants of a file that a test killed."""

    def of_function(self, mutant: Mutant) -> list[str]:
        """Returns the tests that run the changed statement."""
        return self._within(self.baseline.tests_of_lines(mutant.file, mutant.first_line, mutant.last_line), mutant.file)

    def of_module(self, mutant: Mutant) -> list[str]:
        """Returns every test, because coverage does not show which lines depend on a constant."""
        return self._within(self.baseline.seconds, mutant.file)

    def runs_on_import(self, mutant: Mutant) -> bool:
        """Reports whether the changed statement runs on import."""
        lines = range(mutant.first_line, mutant.last_line + 1)
        return not mutant.scope or any(line in lines for line in self.baseline.imported.get(mutant.file, ()))

    def note(self, mutant: Mutant, test: str) -> None:
        """Counts a kill of the test."""
        if test:
            self.kills[mutant.file, test] += 1

    def _within(self, tests: Iterable[str], file: str) -> list[str]:
        seconds = self.baseline.seconds
        quick = [test for test in tests if seconds[test] <= self.limits.test_seconds]
        quick.sort(key=lambda test: (-self.kills[file, test], seconds[test], test))
        total, chosen = 0.0, list[str]()
        for test in quick:
            total += seconds[test]
            if total > self.limits.mutant_seconds:
                break
            chosen.append(test)
        return chosen


class Copy:
    """Runs a function in a fork of this process and reads its report."""

    def __init__(self, job: Callable[["Report"], None]) -> None:
        self._job = job

    def run(self) -> Outcome:
        """Fork, wait, and remove the fork's processes and temporary files."""
        started = time.perf_counter()
        temporary = tempfile.mkdtemp(prefix="mutant-")
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            self._in_copy(write, temporary)
        os.close(write)
        with os.fdopen(read) as lines:
            reports = [json.loads(line) for line in lines if line.endswith("\n")]
        _, status = os.waitpid(pid, 0)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)
        return self._outcome(reports, status, time.perf_counter() - started)

    def _in_copy(self, write: int, temporary: str) -> NoReturn:
        try:
            os.setsid()
            os.environ["PYTEST_DEBUG_TEMPROOT"] = temporary
            quiet = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            self._job(Report(write))
        except BaseException as error:  # noqa: BLE001
            Report(write).ended("error", repr(error)[:500])
        finally:
            os._exit(0)

    def _outcome(self, reports: Sequence[dict[str, object]], status: int, seconds: float) -> Outcome:
        test, tests = "", 0
        for report in reports:
            test = str(report.get("test", test))
            tests = int(str(report.get("tests", tests)))
            found = report.get("status")
            if found in ("killed", "survived", "import", "error"):
                return Outcome(found, test if found in ("killed", "error") else "", tests, seconds)
        exit_code = os.waitstatus_to_exitcode(status)
        ran_out = exit_code in (-signal.SIGPROF, -signal.SIGALRM, -signal.SIGXCPU)
        return Outcome("timeout" if ran_out else "killed", test, tests, seconds)


def _expect_survival(outcome: Outcome) -> None:
    """Exits if tests fail in a fork without a change, because every mutant would count as killed."""
    if outcome.status not in ("survived", "import"):
        sys.exit(f"tests fail in a fork of the process without a change: {outcome.status} {outcome.test}")


class Report:
    """Writes the fork's report to the pipe."""

    def __init__(self, write: int) -> None:
        self._write = write
        self._deadline = Deadline()

    def chosen(self, tests: int) -> None:
        """Reports how many tests will run."""
        self._line(tests=tests)

    def starts(self, test: str, seconds: float) -> None:
        """Reports the test and limits it to five times its CPU time and twenty times its CPU time on the wall clock."""
        self._line(test=test)
        self._deadline.start(processor_seconds=5 * seconds + 3, clock_seconds=20 * seconds + 30)

    def ended(self, status: Status, test: str = "") -> NoReturn:
        """Reports the outcome and exits immediately, without teardown."""
        self._line(status=status, **({"test": test} if test else {}))
        os._exit(0)

    def _line(self, **values: object) -> None:
        os.write(self._write, json.dumps(values).encode() + b"\n")


Sink = Callable[[Mutant, Outcome], None]


class _Failures:
    """Pytest plugin that ends the fork at the first failure."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._report.ended("killed", report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._report.ended("killed", f"collection of {report.nodeid}")


def _codes(code: CodeType, scope: str) -> Iterator[CodeType]:
    """Yields the code objects with that qualified name, in source order."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_qualname == scope:
                yield constant
            elif scope.startswith(constant.co_qualname + "."):
                yield from _codes(constant, scope)


def _with_nested(code: CodeType) -> Iterator[CodeType]:
    """Yields a code object and those of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_nested(constant)


def _function_code(source: str, path: str, scope: str, ordinal: int) -> CodeType | None:
    found = list(_codes(compile(source, path, "exec", dont_inherit=True), scope))
    return found[ordinal] if ordinal < len(found) else None


class FunctionMutants:
    """Pytest plugin that, instead of running the tests, runs every mutant in a fork of this process."""

    def __init__(self, target: Target, mutants: Sequence[Mutant], choice: Choice, sink: Sink) -> None:
        self._target = target
        self._mutants = mutants
        self._choice = choice
        self._sink = sink
        self._items: dict[str, pytest.Item] = {}
        self._live: dict[tuple[str, str, int], list[FunctionType]] = {}
        self._checked = False

    def run(self) -> None:
        """Collects the tests, then runs the mutants."""
        pytest.main([*PYTEST_OPTIONS, *self._target.pytest_arguments], plugins=[self])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        self._find_functions()
        gc.collect()
        gc.freeze()
        for mutant in self._mutants:
            tests = [test for test in self._choice.of_function(mutant) if test in self._items]
            if not tests:
                self._sink(
                    mutant, Outcome("import" if self._choice.runs_on_import(mutant) else "unreached", "", 0, 0.0)
                )
                continue
            self._check_copies(mutant, tests)
            outcome = Copy(lambda report, m=mutant, t=tests: self._try(report, m, t)).run()  # type: ignore[misc]
            if outcome.status == "survived" and self._choice.runs_on_import(mutant):
                outcome = Outcome("import", "", outcome.tests, outcome.seconds)
            self._choice.note(mutant, outcome.test)
            self._sink(mutant, outcome)
        return True

    def _check_copies(self, mutant: Mutant, tests: list[str]) -> None:
        """Checks once that the tests of a mutant pass in a fork without the mutant."""
        if not self._checked:
            same = replace(mutant, source=(self._target.root / mutant.file).read_text())
            _expect_survival(Copy(lambda report: self._try(report, same, tests)).run())
            self._checked = True

    def _find_functions(self) -> None:
        files = {str(self._target.root / mutant.file) for mutant in self._mutants}
        gc.unfreeze()  # frozen objects are not listed
        for found in gc.get_objects():
            if type(found) is FunctionType and found.__code__.co_filename in files:
                code = found.__code__
                self._live.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(found)

    def _exchange(self, mutant: Mutant) -> bool:
        path = self._target.root / mutant.file
        old = _function_code(path.read_text(), str(path), mutant.scope, mutant.ordinal)
        new = _function_code(mutant.source, str(path), mutant.scope, mutant.ordinal)
        if old is None or new is None or old.co_freevars != new.co_freevars:
            return False
        pairs = list(zip(_with_nested(old), _with_nested(new), strict=False))
        if any(before.co_qualname != after.co_qualname for before, after in pairs):
            pairs = [(old, new)]
        exchanged = 0
        for before, after in pairs:
            # Functions that this one created on import, such as the checks of a table of rules, have separate code
            # objects.
            for function in self._live.get((str(path), before.co_qualname, before.co_firstlineno), ()):
                if before.co_freevars == after.co_freevars:
                    function.__code__ = after
                    exchanged += 1
        return exchanged > 0

    def _try(self, report: Report, mutant: Mutant, tests: list[str]) -> None:
        if not self._exchange(mutant):
            report.ended("import")
        if self._choice.runs_on_import(mutant):
            clear_caches(self._target.prefixes)
        report.chosen(len(tests))
        items = [self._items[test] for test in tests]
        config = items[0].config
        config.pluginmanager.register(_Failures(report))
        for item, following in zip(items, [*items[1:], None], strict=True):
            report.starts(item.nodeid, self._choice.baseline.seconds[item.nodeid])
            config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        report.ended("survived")


class _MutantLoader(SourceFileLoader):
    """Loads the changed text instead of the file's."""

    source = ""

    def get_code(self, fullname: str) -> CodeType:
        """Returns the compiled changed module, never cached bytecode."""
        return compile(self.source, self.get_filename(fullname), "exec", dont_inherit=True)


class _MutantFinder(MetaPathFinder):
    """Finds the changed module when it is imported."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name = name
        self._path = path
        self._loader = _MutantLoader(name, str(path))
        self._loader.source = source

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """Returns the spec of the changed module, None for other modules."""
        if fullname != self._name:
            return None
        inside = [str(self._path.parent)] if self._path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, self._path, loader=self._loader, submodule_search_locations=inside
        )


class _Chosen:
    """Pytest plugin that selects the chosen tests, and tests that exist only because of the mutant."""

    def __init__(self, report: Report, baseline: Baseline, tests: Sequence[str]) -> None:
        self._report = report
        self._seconds = baseline.seconds
        self._known = {*baseline.seconds, *baseline.failed}
        self._order = {test: index for index, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._order or item.nodeid not in self._known]
        items.sort(key=lambda item: self._order.get(item.nodeid, -1))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._report.starts(item.nodeid, self._seconds.get(item.nodeid, 1.0))


class ImportMutants:
    """Runs the mutants of one file that take effect on import."""

    def __init__(self, target: Target, file: str, choice: Choice) -> None:
        self._target = target
        self._path = target.root / file
        self._name = target.module_name(file)
        self._choice = choice

    def run(self, mutants: Sequence[Mutant], sink: Sink) -> None:
        """Imports the modules that do not depend on the file, then runs the mutants."""
        self._preload()
        gc.collect()
        gc.freeze()
        same = replace(mutants[0], source=self._path.read_text())
        _expect_survival(Copy(lambda report: self._try(report, same, self._choice.of_module(same))).run())
        for mutant in mutants:
            tests = self._choice.of_module(mutant)
            outcome = Copy(lambda report, m=mutant, t=tests: self._try(report, m, t)).run()  # type: ignore[misc]
            self._choice.note(mutant, outcome.test)
            sink(mutant, outcome)

    def _try(self, report: Report, mutant: Mutant, tests: list[str]) -> None:
        report.chosen(len(tests))
        report.starts("", 10.0)
        sys.meta_path.insert(0, _MutantFinder(self._name, self._path, mutant.source))
        files = list(dict.fromkeys(str(self._target.root / test.partition("::")[0]) for test in tests))
        for part in (files[:1], files[1:]):
            if part:
                plugins = [_Failures(report), _Chosen(report, self._choice.baseline, tests)]
                code = pytest.main([*PYTEST_OPTIONS, *self._target.configuration, *part], plugins=plugins)
                if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                    report.ended("killed")
        report.ended("survived")

    def _preload(self) -> None:
        dependents = _dependents(self._choice.baseline.modules, self._target, self._name)
        plugins = {"_pytest", *(point.module.partition(".")[0] for point in entry_points(group="pytest11"))}
        for module in self._choice.baseline.modules:
            first = module.partition(".")[0]
            if module in dependents or first in {"test", "conftest", "hack", "__main__"} or module in sys.modules:
                continue
            if first in plugins or "test" in module.rpartition(".")[2]:
                continue  # pytest rewrites its plugins when it imports them
            with suppress(Exception, SystemExit):
                importlib.import_module(module)


def _dependents(modules: Iterable[str], target: Target, changed: str) -> set[str]:
    """Returns the tested modules that import the changed one, directly or indirectly."""
    ours = [module for module in modules if f"{module}.".startswith(target.prefixes)]
    needs = {module: _imports(module) for module in ours}
    found = {changed, *(module for module in ours if module.startswith(f"{changed}."))}
    while True:
        more = {module for module, needed in needs.items() if module not in found and needed & found}
        if not more:
            return found
        found |= more


def _imports(module: str) -> set[str]:
    """Returns the names that a module imports, with their parent packages and its own."""
    with suppress(Exception):
        spec = importlib.util.find_spec(module.partition(".")[0])
        if spec is None:
            return set()
        path = _source_of(module)
        names: set[str] = {module.rpartition(".")[0]}
        for node in ast.walk(ast.parse(path.read_text())) if path else ():
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
        return {".".join(name.split(".")[:length]) for name in names for length in range(1, name.count(".") + 2)} - {""}
    return set()


def _source_of(module: str) -> Path | None:
    relative = Path(*module.split("."))
    for folder in sys.path:
        for candidate in (Path(folder) / relative.with_suffix(".py"), Path(folder) / relative / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
