"""Floors of the coverage: each package has one, and it only rises."""

from hack.check.coverage_floors import Count, below, counts, package_of, raised


def entry(covered: int, statements: int, covered_branches: int = 0, branches: int = 0) -> dict[str, dict[str, int]]:
    return {
        "summary": {
            "covered_lines": covered,
            "num_statements": statements,
            "covered_branches": covered_branches,
            "num_branches": branches,
        }
    }


def test_a_file_counts_for_its_package_and_in_the_framework_for_the_folder_inside() -> None:
    assert package_of("kaito/workspace/steps/claims.py") == "kaito/workspace"
    assert package_of("kaito/runtime/cache/reflector/watch.py") == "kaito/runtime/cache"
    assert package_of("kaito/runtime/tasks.py") == "kaito/runtime"


def test_statements_and_branches_of_a_package_are_added_up() -> None:
    report = {
        "files": {
            "kaito/workspace/plan.py": entry(8, 10, 3, 6),
            "kaito/workspace/steps/claims.py": entry(9, 10, 2, 4),
            "kaito/api/labels.py": entry(5, 5),
        }
    }
    assert counts(report) == {"kaito/workspace": Count(22, 30), "kaito/api": Count(5, 5)}


def test_a_package_below_its_floor_or_without_one_fails() -> None:
    packages = {"kaito/api": Count(96, 100), "kaito/new": Count(50, 100), "kaito/workspace": Count(897, 1000)}
    assert below(packages, {"kaito/api": 96, "kaito/workspace": 90}) == [
        "kaito/new: 50.0 % and no floor: run `make coverage ARGS=--update`",
        "kaito/workspace: 89.7 %, floor 90 %: test what is new",
    ]


def test_an_update_raises_floors_and_lowers_none() -> None:
    packages = {"kaito/api": Count(979, 1000), "kaito/cloud": Count(80, 100), "kaito/new": Count(0, 0)}
    floors = {"kaito/api": 90, "kaito/cloud": 85, "kaito/deleted": 99}
    assert raised(packages, floors) == {"kaito/api": 97, "kaito/cloud": 85, "kaito/new": 100}
