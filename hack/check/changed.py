"""Print the files that a branch changed since it left main, including uncommitted changes.

python hack/check/changed.py            the Python files
python hack/check/changed.py --text     the Python and Markdown files
python hack/check/changed.py --tests    the unit tests of the packages with a changed file

The tests of `kaito/runtime/cache/store.py` are those in `test/unit/runtime/cache`, or in the nearest folder above that
exists. For a changed test module, the module is printed; for a changed `conftest.py`, its folder. Tests further up the
import graph are not listed: `make test-unit` runs them all.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

UNIT_TESTS = Path("test", "unit")
BASES = ("origin/main", "main")


def git(*arguments: str) -> list[str]:
    """Returns the lines that a git command prints."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def base() -> str:
    """Returns the commit at which this branch left main."""
    for name in BASES:
        if git("branch", "--all", "--format=%(refname:short)", "--list", name):
            return git("merge-base", "HEAD", name)[0]
    return "HEAD"


def changed(root: Path) -> list[Path]:
    """Returns the files that differ from main and still exist, relative to the root."""
    names = {
        *git("diff", "--name-only", "--diff-filter=d", base()),
        *git("ls-files", "--others", "--exclude-standard"),
    }
    return [Path(name) for name in sorted(names) if (root / name).is_file()]


def unit_tests(files: Iterable[Path], root: Path) -> list[Path]:
    """Returns the test modules and folders to run for the files, without those that another one contains."""
    chosen: set[Path] = set()
    for file in files:
        if file.suffix != ".py":
            continue
        if file.is_relative_to(UNIT_TESTS):
            chosen.add(file if file.name.startswith("test_") else file.parent)
        elif file.parts[0] == "kaito":
            folder = UNIT_TESTS.joinpath(*file.parent.parts[1:])
            while not (root / folder).is_dir():
                folder = folder.parent
            if folder != UNIT_TESTS:
                chosen.add(folder)
        elif (root / UNIT_TESTS / file.parts[0]).is_dir():
            chosen.add(UNIT_TESTS / file.parts[0])
    return sorted(path for path in chosen if not any(other in path.parents for other in chosen))


def main() -> int:
    """Prints one path a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--text", action="store_true", help="Markdown files too")
    kind.add_argument("--tests", action="store_true", help="unit tests instead of files")
    arguments = parser.parse_args()
    root = Path(git("rev-parse", "--show-toplevel")[0])
    files = changed(root)
    if arguments.tests:
        found = unit_tests(files, root)
    else:
        suffixes = {".py", ".md"} if arguments.text else {".py"}
        found = [file for file in files if file.suffix in suffixes]
    for path in found:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
