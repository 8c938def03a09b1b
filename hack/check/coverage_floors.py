"""Compare the branch coverage of every package with its floor, which may only rise.

python -m hack.check.coverage_floors REPORT             exit 1 if a package is below its floor
python -m hack.check.coverage_floors REPORT --update    raise the floors of packages above them, and add new packages

REPORT is the output of `coverage json`. Floors are whole percent, in `coverage_floors.json` beside this file. A package
is a folder below `kaito`, in the framework and the API server also the folders inside them. Floors stay when code and
its tests are deleted: a person lowers one by hand, with the reason in the commit.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

FLOORS = Path(__file__).with_suffix(".json")
DIVIDED = ("kaito/runtime", "kaito/apiserver")
"""Packages whose own packages have a floor each."""


@dataclass(frozen=True)
class Count:
    """Statements and branches, and how many of them ran."""

    covered: int = 0
    all: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.covered + other.covered, self.all + other.all)

    @property
    def percent(self) -> float:
        """The covered part; an empty package is covered."""
        return 100.0 * self.covered / self.all if self.all else 100.0


def package_of(file: str) -> str:
    """Returns the package whose floor counts for a file."""
    parent = PurePosixPath(file).parent
    depth = 3 if str(parent).startswith(tuple(f"{name}/" for name in DIVIDED)) else 2
    return "/".join(parent.parts[:depth])


def counts(report: Mapping[str, Any]) -> dict[str, Count]:
    """Returns the statements and branches of every package of a coverage report."""
    packages: dict[str, Count] = {}
    for file, entry in report["files"].items():
        summary = entry["summary"]
        covered = summary["covered_lines"] + summary["covered_branches"]
        count = Count(covered, summary["num_statements"] + summary["num_branches"])
        name = package_of(file.replace("\\", "/"))
        packages[name] = packages.get(name, Count()) + count
    return packages


def below(packages: Mapping[str, Count], floors: Mapping[str, int]) -> list[str]:
    """Returns one line for each package under its floor or without one."""
    found: list[str] = []
    for name, count in sorted(packages.items()):
        floor = floors.get(name)
        if floor is None:
            found.append(f"{name}: {count.percent:.1f} % and no floor: run `make coverage ARGS=--update`")
        elif count.percent < floor:
            found.append(f"{name}: {count.percent:.1f} %, floor {floor} %: test what is new")
    return found


def raised(packages: Mapping[str, Count], floors: Mapping[str, int]) -> dict[str, int]:
    """Returns the floors of the packages that exist, each as high as it was or as the coverage is now."""
    return {name: max(floors.get(name, 0), math.floor(count.percent)) for name, count in sorted(packages.items())}


def main() -> int:
    """Checks or updates; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="output of `coverage json`")
    parser.add_argument("--update", action="store_true", help="write the floors")
    arguments = parser.parse_args()
    packages = counts(json.loads(arguments.report.read_text(encoding="utf-8")))
    floors: dict[str, int] = json.loads(FLOORS.read_text(encoding="utf-8")) if FLOORS.exists() else {}
    found = below(packages, raised(packages, floors) if arguments.update else floors)
    if arguments.update:
        FLOORS.write_text(json.dumps(raised(packages, floors), indent=2) + "\n", encoding="utf-8")
    for name, count in sorted(packages.items()):
        print(f"{name:40} {count.percent:6.1f} %  floor {floors.get(name, 0):3} %")
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
