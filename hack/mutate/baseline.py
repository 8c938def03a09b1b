"""Run the tests once under coverage, to find which test runs which line, and the duration of each."""

import functools
import gc
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest

from hack.mutate.target import Target

PYTEST_OPTIONS = (
    "-q",
    "-s",
    "--no-header",
    "--no-summary",
    "-p",
    "no:cacheprovider",
    "-o",
    "timeout=0",
)
"""pytest-timeout is disabled, because it uses the same alarm signal as the limits of this tool."""


@dataclass(slots=True)
class Baseline:
    """The result of one run of the unchanged code."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])
    """CPU time of every passing test by node id; unlike wall time, it does not depend on the load of the machine."""

    failed: list[str] = field(default_factory=list[str])
    """Tests that fail without a mutant; they are excluded."""

    reached: dict[str, dict[int, list[str]]] = field(default_factory=dict[str, dict[int, list[str]]])
    """By file and line, the tests that run it."""

    imported: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """By file, the lines that run on import or collection."""

    modules: list[str] = field(default_factory=list[str])
    """Every module that was loaded, in order."""

    def tests_of_lines(self, file: str, first: int, last: int) -> set[str]:
        """The tests that run one of these lines."""
        lines = self.reached.get(file, {})
        return {test for line in range(first, last + 1) for test in lines.get(line, ())}


def clear_caches(prefixes: tuple[str, ...]) -> None:
    """Clears every `functools.cache` of the tested modules, so that cached results are computed by the mutant."""
    kind = type(functools.cache(str))
    for found in gc.get_objects():
        if isinstance(found, kind) and (found.__module__ or "").startswith(prefixes):
            found.cache_clear()


class _Contexts:
    """Switches coverage's context, and attributes the lines of a cached function to every test that uses its result.

    Otherwise the lines of a cached loader would be attributed to the first test only.
    """

    def __init__(self, cover: coverage.Coverage, prefixes: tuple[str, ...]) -> None:
        self._cover = cover
        self._prefixes = prefixes
        self._context = ""
        self._original = functools.lru_cache
        self.users: dict[str, set[str]] = {}
        """By context of a cached function, the contexts that called it."""

    def switch(self, context: str) -> str:
        """Enters a context and returns the one before."""
        before, self._context = self._context, context
        self._cover.switch_context(context)
        return before

    def watch_caches(self) -> None:
        """Gives each cached function of tested modules that are imported from now on a separate context."""

        def lru_cache(maxsize: object = 128, typed: bool = False) -> object:  # as in functools
            if callable(maxsize):
                return self._watched(maxsize, 128, typed)

            def decorate(function: Callable[..., object]) -> object:
                return self._watched(function, maxsize, typed)

            return decorate

        functools.lru_cache = lru_cache  # type: ignore[assignment]

    def _watched(self, function: Callable[..., object], maxsize: object, typed: object) -> object:
        if not function.__module__.startswith(self._prefixes):
            return self._original(maxsize, typed)(function)  # type: ignore[call-overload]
        context = f"cache {function.__module__}.{function.__qualname__}"
        users = self.users.setdefault(context, set())

        @functools.wraps(function)
        def fill(*args: object, **kwargs: object) -> object:
            before = self.switch(context)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch(before)

        original: Callable[..., Any] = self._original
        cached: Any = original(maxsize, typed)(fill)

        @functools.wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            users.add(self._context)
            return cached(*args, **kwargs)

        for name in ("cache_clear", "cache_info", "cache_parameters"):
            setattr(call, name, getattr(cached, name))
        return call

    def tests(self, context: str, seen: frozenset[str] = frozenset()) -> set[str]:
        """Returns the tests, and "" for import, in which this context was entered."""
        if context not in self.users:
            return {context}
        return {test for user in self.users[context] - seen for test in self.tests(user, seen | {context})}


class _Recorder:
    """Pytest plugin that switches to a coverage context for each test."""

    def __init__(self, contexts: _Contexts, baseline: Baseline) -> None:
        self._contexts = contexts
        self._baseline = baseline

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._contexts.switch(item.nodeid)
        started = time.process_time()
        yield
        self._contexts.switch("")
        if item.nodeid not in self._baseline.failed:
            self._baseline.seconds[item.nodeid] = time.process_time() - started

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._baseline.failed.append(report.nodeid)
            if report.failed:
                print(f"left out, fails without a mutant: {report.nodeid}\n{report.longreprtext}", file=sys.stderr)


def _measure(target: Target, output: Path) -> None:
    """Runs the tests in this process, a fork that ends afterwards, and writes the baseline."""
    baseline = Baseline()
    cover = coverage.Coverage(data_file=None, config_file=False, include=[str(file) for file in target.sources])
    contexts = _Contexts(cover, target.prefixes)
    contexts.watch_caches()
    cover.start()
    code = pytest.main([*PYTEST_OPTIONS, *target.pytest_arguments], plugins=[_Recorder(contexts, baseline)])
    cover.stop()
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        os._exit(2)
    data = cover.get_data()
    for path in data.measured_files():
        name = str(Path(path).relative_to(target.root))
        for line, found in data.contexts_by_lineno(path).items():
            tests = {test for context in found for test in contexts.tests(context)}
            if "" in tests:
                baseline.imported.setdefault(name, []).append(line)
            if passed := sorted(tests & baseline.seconds.keys()):
                baseline.reached.setdefault(name, {})[line] = passed
    baseline.modules = list(sys.modules)
    output.write_text(json.dumps(asdict(baseline)))


def _fingerprint(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


def measure(target: Target, folder: Path) -> Baseline:
    """Returns the baseline of these sources and tests; it is stored until one of them changes."""
    fingerprint = _fingerprint([*target.sources, *target.test_files()])
    path = folder / f"baseline-{fingerprint}.json"
    if not path.exists():
        print(f"running the tests of {target.name} once under coverage", flush=True)
        for old in folder.glob("baseline-*.json"):
            old.unlink()
        pid = os.fork()
        if pid == 0:
            try:
                _measure(target, path)
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(pid, 0)
    if not path.exists():
        sys.exit("the tests could not be collected")
    data = json.loads(path.read_text())
    data["reached"] = {
        file: {int(line): tests for line, tests in lines.items()} for file, lines in data["reached"].items()
    }
    return Baseline(**data)
