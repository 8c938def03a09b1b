"""Checks the framework's types from outside: every public symbol of `kaito.runtime` has a known type, or exit 1.

`make check` runs it. Pyright's `--verifytypes` checks an installed package only, never the working tree: a scratch
environment in a temporary folder gets a copy of `kaito/` (with its `py.typed`) and borrows this interpreter's
libraries. Prints each symbol whose type an importing project would have to guess.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import NotRequired, TypedDict, cast

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "kaito.runtime"
SECONDS = 300
"""Pyright needs about 10 s, on a busy machine ten times that."""


class Diagnostic(TypedDict):
    """A diagnostic of pyright about a symbol."""

    severity: str
    message: str


class Symbol(TypedDict):
    """One symbol of the report."""

    name: str
    isTypeKnown: bool
    isTypeAmbiguous: bool
    diagnostics: NotRequired[list[Diagnostic]]


class Completeness(TypedDict):
    """The part of the report that is read here."""

    completenessScore: float
    symbols: list[Symbol]


class Report(TypedDict):
    """Pyright's JSON; without `typeCompleteness` when it found no package to look at."""

    typeCompleteness: NotRequired[Completeness]


def scratch(folder: Path) -> Path:
    """Creates an environment with the package in the folder; returns its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    shutil.copytree(ROOT / "kaito", packages / "kaito", ignore=shutil.ignore_patterns("__pycache__"))
    # Search order follows the lines of .pth files, and theirs come last: the copy wins over the working tree.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def verify(python: Path) -> Report:
    """Pyright's report on the package as that interpreter finds it.

    Raises:
        RuntimeError: pyright did not return a report.
    """
    pyright = Path(sys.executable).parent / "pyright"
    command = [str(pyright), "--verifytypes", PACKAGE, "--ignoreexternal", "--outputjson"]
    # `--verifytypes` uses the first python in PATH only, and ignores `--pythonpath`.
    path = {"PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    # Run in the environment's folder, which contains neither the working tree's settings nor its kaito/.
    done = subprocess.run(
        command,
        cwd=python.parent,
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    try:
        return cast("Report", json.loads(done.stdout))
    except json.JSONDecodeError as error:
        message = f"pyright exited {done.returncode} without a report: {(done.stderr or done.stdout).strip()[-2000:]}"
        raise RuntimeError(message) from error


def offenders(completeness: Completeness) -> list[str]:
    """One line for each symbol whose type is not known, with the first reason."""
    found: list[str] = []
    for symbol in completeness["symbols"]:
        if symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]:
            continue
        reasons = [each["message"].splitlines()[0] for each in symbol.get("diagnostics", [])]
        found.append(f"{symbol['name']}: {reasons[0] if reasons else 'type unknown'}")
    return sorted(found)


def main() -> int:
    """Builds, verifies and prints."""
    with tempfile.TemporaryDirectory(prefix="kaito-verifytypes-") as folder:
        completeness = verify(scratch(Path(folder))).get("typeCompleteness")
    if completeness is None or not completeness["symbols"]:
        print(f"verifytypes: pyright found no symbols in {PACKAGE}")
        return 1
    found = offenders(completeness)
    score = completeness["completenessScore"]
    print("\n".join([*found, f"verifytypes: {score:.2%} of {PACKAGE}'s public symbols have a known type"]))
    return 1 if found or score < 1 else 0


if __name__ == "__main__":
    sys.exit(main())
