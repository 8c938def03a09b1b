"""Which tests `make test-unit` leaves out: `slow` names a fast test of the subject, `sample` keeps some variants."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from test.conftest import check_representative, spread

ROOT = Path(__file__).resolve().parents[3]


def fast() -> None: ...


@pytest.mark.slow("fast")
def slow() -> None: ...


@pytest.mark.slow("slow")
def of_a_slow_one() -> None: ...


@pytest.mark.slow("missing")
def of_a_missing_one() -> None: ...


@pytest.mark.slow
def of_none() -> None: ...


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [0]), (2, [0, 9]), (3, [0, 4, 9]), (4, [0, 3, 6, 9]), (10, [*range(10)]), (11, [*range(10)])],
)
def test_a_sample_is_spread_over_the_variants(count: int, expected: list[int]) -> None:
    assert spread(range(10), count) == expected


def test_a_slow_test_names_a_fast_one_of_its_module() -> None:
    check_representative(fast)
    check_representative(slow)
    for function, name in ((of_a_slow_one, "'slow'"), (of_a_missing_one, "'missing'"), (of_none, "''")):
        with pytest.raises(pytest.UsageError, match=rf"{function.__name__}: slow\({name}\) has to name a test"):
            check_representative(function)


def test_slow_tests_and_variants_beyond_the_sample_are_left_out(tmp_path: Path) -> None:
    shutil.copy(ROOT / "test" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        """
import pytest

def test_fast(): ...

@pytest.mark.slow("test_fast")
def test_slow(): ...

@pytest.mark.sample(2)
@pytest.mark.parametrize("number", range(5))
def test_many(number): ...

@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_some(number): ...
"""
    )
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--co", "-q"]
    command = [*pytest_, "-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    tests: list[str] = []
    for options, count in ((["-m", "not slow"], 4), ([], 9)):
        ended = subprocess.run(
            [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        tests = [line.rpartition("::")[2] for line in ended.stdout.splitlines() if "::" in line]
        assert len(tests) == count
        assert tests[:1] == ["test_fast"]
    assert tests == [
        "test_fast",
        "test_slow",
        *(f"test_many[{number}]" for number in range(5)),
        "test_some[1]",
        "test_some[2]",
    ]
