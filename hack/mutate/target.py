"""Resolves `PACKAGE` to source files, their tests, and the folder in which the tests run."""

import fnmatch
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

MORE_TESTS = {"api": ("test/contract/test_kaito_crds.py",)}
"""Additional tests: CRDs are tested on the in-memory API server; a real API server is not used."""

LEFT_OUT = ("real", "slow")
"""Markers of the tests that are not run, where the configuration has them: pytest rejects unknown ones."""

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Target:
    """The files to change and the tests that should fail."""

    name: str
    root: Path
    """The repository."""

    workdir: Path
    """Where pytest runs: it takes its configuration from there."""

    import_root: Path
    """The folder on `sys.path` below which the sources lie."""

    sources: tuple[Path, ...]
    tests: tuple[Path, ...]
    """Files and folders to give to pytest."""

    prefixes: tuple[str, ...]
    """Prefixes of the names of the tested modules."""

    @property
    def configuration(self) -> tuple[str, ...]:
        """Options of pytest: the configuration of the folder, also for tests outside it, without slow tests.

        Identifiers of tests begin with the path in the repository.
        """
        path = self.workdir / "pyproject.toml"
        markers: list[str] = tomllib.loads(path.read_text())["tool"]["pytest"]["ini_options"]["markers"]
        left_out = [name for name in LEFT_OUT if any(marker.startswith(name) for marker in markers)]
        return ("-c", str(path), "--rootdir", str(self.root), "-m", " and ".join(f"not {name}" for name in left_out))

    @property
    def pytest_arguments(self) -> tuple[str, ...]:
        """The configuration and the tests."""
        return (*self.configuration, *map(str, self.tests))

    def module_name(self, file: str) -> str:
        """Name under which a source file is imported."""
        path = (self.root / file).relative_to(self.import_root).with_suffix("")
        parts = path.parts[:-1] if path.name == "__init__" else path.parts
        return ".".join(parts)

    def test_files(self) -> list[Path]:
        """Every Python file of the tests, with the fixtures beside and above them."""
        found = {file for path in self.tests for file in ([path] if path.is_file() else path.rglob("*.py"))}
        for path in self.tests:
            above = path.parent
            while above != self.root.parent:
                found.update(above.glob("conftest.py"))
                above = above.parent
        return sorted(found)


def _sources(folder: Path, patterns: list[str], exclude: list[str]) -> tuple[Path, ...]:
    if folder.with_suffix(".py").is_file():
        return (folder.with_suffix(".py"),)
    if not folder.is_dir():
        sys.exit(f"{folder.relative_to(ROOT)} is neither a package nor a module: set PACKAGE as in PACKAGE=models")
    files = [file for file in sorted(folder.rglob("*.py")) if "__pycache__" not in file.parts]

    def matches(file: Path, wanted: list[str]) -> bool:
        return any(fnmatch.fnmatch(str(file.relative_to(folder)), pattern) for pattern in wanted)

    found = tuple(file for file in files if (not patterns or matches(file, patterns)) and not matches(file, exclude))
    if not found:
        sys.exit(f"no file of {folder.relative_to(ROOT)} matches FILE={' '.join(patterns)}")
    return found


def _nearest_tests(folder: Path, package: str) -> Path:
    """The folder of tests named like the package, or like the nearest package above it."""
    parts = Path(package).parts
    for length in range(len(parts), 0, -1):
        found = folder.joinpath(*parts[:length])
        if found.is_dir():
            return found
    return folder


DISTRIBUTIONS = {"config": "kaito_config", "oci": "kaito_oci"}
"""Packages of the model images that are distributions of their own, by their folder in presets/."""


def _presets_package(inside: str) -> tuple[Path, Path]:
    """Returns the import root and the folder of a package of the model images."""
    first, _, rest = inside.partition("/")
    if first in DISTRIBUTIONS:
        import_root = ROOT / "presets" / first / "src"
        return import_root, import_root / DISTRIBUTIONS[first] / rest
    import_root = ROOT / "presets" / "src"
    return import_root, import_root / "kaito_presets" / inside


def find(package: str, *, files: list[str], exclude: list[str], tests: list[str]) -> Target:
    """The target of `PACKAGE=package`: `models` is kaito/models, `presets/oci` the package oci of the model images."""
    package = package.strip("/")
    inside = package.removeprefix("presets").strip("/") if package.split("/")[0] == "presets" else None
    if inside is None:
        workdir, import_root = ROOT, ROOT
        folder, test_root = ROOT / "kaito" / package, ROOT / "test" / "unit"
        nearest = _nearest_tests(test_root, package)
    else:
        workdir, test_root = ROOT / "presets", ROOT / "presets" / "test"
        import_root, folder = _presets_package(inside)
        nearest = _nearest_tests(test_root, inside)
    more = [ROOT / test for test in MORE_TESTS.get(package.split("/")[0], ())]
    chosen = tuple((ROOT / test).resolve() for test in tests) or (nearest, *more)
    missing = [str(path) for path in chosen if not path.exists()]
    if missing:
        sys.exit(f"no such tests: {' '.join(missing)}")
    return Target(
        package,
        ROOT,
        workdir,
        import_root,
        _sources(folder, files, exclude),
        chosen,
        ("kaito.", "kaito_presets", "kaito_config", "kaito_oci"),
    )
