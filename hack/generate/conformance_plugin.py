"""Pytest plugin that selects tests marked `conformance(<id>)` and writes their outcomes as JSON.

Used by `hack/generate/conformance.py`:
`python -m pytest -p hack.generate.conformance_plugin --conformance-json out.json`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

MEMORY, VIRTUAL, REAL = "memory", "virtual time", "real API server"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option for the output file."""
    parser.addoption("--conformance-json", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Starts recording."""
    config.pluginmanager.register(_Recorder(config.getoption("--conformance-json")))


class _Recorder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        selected: list[pytest.Item] = []
        for item in items:
            ids = sorted({str(mark.args[0]) for mark in item.iter_markers("conformance")})
            if ids:
                selected.append(item)
                self._tests[item.nodeid] = {"ids": ids, "where": _where(item), "outcome": "not run"}
        config.hook.pytest_deselected(items=[item for item in items if item not in set(selected)])
        items[:] = selected

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Records the worst outcome of setup, call and teardown."""
        test = self._tests[report.nodeid]
        if report.when == "call" or report.outcome != "passed":
            test["outcome"] = report.outcome if test["outcome"] != "failed" else "failed"

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(json.dumps(self._tests))


def _where(item: pytest.Item) -> str:
    if item.get_closest_marker("real") is not None:
        return REAL
    is_virtual = "world" in getattr(item, "fixturenames", ()) or any(
        item.get_closest_marker(name) is not None for name in ("virtual_time", "seeds")
    )
    return VIRTUAL if is_virtual else MEMORY
