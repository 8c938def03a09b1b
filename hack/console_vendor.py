"""Vendors the browser libraries of the console from the npm registry, pinned by version and digest.

    python -m hack.console_vendor             write kaito/console/static/vendor from the registry
    python -m hack.console_vendor --check     compare the files on disk with the registry, and change nothing
    python -m hack.console_vendor --axe DIR   write axe.min.js, which only the browser tests use, into a folder

`npm pack` fetches each package; its digest must be the pinned one. The modules import each other by package name, which
a browser cannot resolve without an inline import map, and the Content-Security-Policy of the console forbids inline
scripts. The names are therefore replaced by relative paths. Nothing else changes except the reference to a source map,
which is removed. `SHA256SUMS` lists the result, and test/unit/console compares it without the network.
"""

import argparse
import base64
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
VENDOR: Final = ROOT / "kaito" / "console" / "static" / "vendor"
SUMS: Final = "SHA256SUMS"


class VendorError(RuntimeError):
    """A package cannot be fetched, or is not the pinned one; the message contains the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package of the npm registry and the files that are taken from it."""

    name: str
    version: str
    integrity: str
    """Digest of the archive in the notation of npm: `sha512-` and base64."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """Path inside the package -> name in the target folder."""


PACKAGES: Final = (
    Package(
        name="preact",
        version="11.2.0",
        integrity="sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
        files={"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js", "LICENSE": "LICENSE.preact"},
    ),
    Package(
        name="@preact/signals",
        version="2.11.4",
        integrity="sha512-Rb+5RPo9gWSaHtzJeauhHxiC8KP/IF2DEPkHPEOGOnuy2wnJzRqyeLRankUCYd6ADqtxS6GnWGv6Ie343d8aYw==",
        files={"dist/signals.mjs": "signals.js", "LICENSE": "LICENSE.signals"},
    ),
    Package(
        name="@preact/signals-core",
        version="1.14.5",
        integrity="sha512-vcRv7Ityz5JVmeiVqIluLFzT/PDS/AlhHUpw3/aUWqcVUs6bDGIPXE/6RSC4evBNWYvnniozg5Syfj33al3gkg==",
        files={"dist/signals-core.mjs": "signals-core.js", "LICENSE": "LICENSE.signals-core"},
    ),
    Package(
        name="htm",
        version="3.1.1",
        integrity="sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        files={"dist/htm.mjs": "htm.js", "LICENSE": "LICENSE.htm"},
    ),
)

AXE: Final = Package(
    name="axe-core",
    version="4.14.1",
    integrity="sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    files={"axe.min.js": "axe.min.js"},
)
"""The accessibility checker of the browser tests; it is not part of the distribution."""

IMPORTS: Final[Mapping[str, str]] = {
    "preact": "./preact.js",
    "preact/hooks": "./hooks.js",
    "@preact/signals-core": "./signals-core.js",
}
_IMPORT: Final = re.compile(rb'from"([^".][^"]*)"')
_SOURCE_MAP: Final = re.compile(rb"\n?//# sourceMappingURL=\S+\s*$")


def browser_module(source: bytes) -> bytes:
    """Returns a module with relative imports and without its source map.

    Raises:
        VendorError: it imports a package that is not vendored.
    """

    def relative(match: re.Match[bytes]) -> bytes:
        target = IMPORTS.get(match[1].decode())
        if target is None:
            raise VendorError(f"import of {match[1].decode()!r}: add the package to PACKAGES and IMPORTS")
        return f'from"{target}"'.encode()

    return _SOURCE_MAP.sub(b"", _IMPORT.sub(relative, source)).rstrip() + b"\n"


def fetch(package: Package, scratch: Path) -> dict[str, bytes]:
    """Returns name -> content of the files of a package, after its digest was compared.

    Raises:
        VendorError: npm is missing or fails, or the digest differs.
    """
    command = ["npm", "pack", "--silent", "--pack-destination", str(scratch), f"{package.name}@{package.version}"]
    environment = {**os.environ, "NPM_CONFIG_UPDATE_NOTIFIER": "false"}
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    except OSError as error:
        raise VendorError("npm is not installed: install Node.js with npm") from error
    if result.returncode != 0:
        raise VendorError(f"npm pack {package.name}@{package.version} failed: {result.stderr.strip()[-400:]}")
    archive = scratch / result.stdout.strip().splitlines()[-1]
    digest = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != package.integrity:
        raise VendorError(f"{package.name}@{package.version} has digest {digest}, pinned is {package.integrity}")
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for path, name in package.files.items():
            member = tar.extractfile(f"package/{path}")
            if member is None:
                raise VendorError(f"{package.name}@{package.version} contains no file {path}")
            found[name] = member.read()
    return found


def vendored() -> dict[str, bytes]:
    """Returns name -> content of every file of the vendor folder, as the registry's packages define it."""
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for package in PACKAGES:
            for name, content in fetch(package, Path(scratch)).items():
                files[name] = browser_module(content) if name.endswith(".js") else content
    versions = "".join(f"{package.name} {package.version} {package.integrity}\n" for package in PACKAGES)
    files["VERSIONS"] = versions.encode()
    files[SUMS] = sums(files).encode()
    return files


def sums(files: Mapping[str, bytes]) -> str:
    """Returns the lines of SHA256SUMS for name -> content."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files) if name != SUMS)


def write_axe(folder: Path) -> Path:
    """Writes axe.min.js into a folder unless the pinned version lies there already; returns its path."""
    target = folder / f"axe-{AXE.version}.min.js"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            partial = folder / f".axe.{os.getpid()}"
            partial.write_bytes(fetch(AXE, Path(scratch))["axe.min.js"])
            partial.replace(target)
    return target


def main() -> int:
    """Writes or compares the files and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.console_vendor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, change nothing")
    parser.add_argument("--axe", type=Path, metavar="DIR", help="write axe.min.js into this folder")
    options = parser.parse_args()
    try:
        if options.axe is not None:
            print(write_axe(options.axe))
            return 0
        files = vendored()
    except VendorError as error:
        print(error, file=sys.stderr)
        return 1
    present = {path.name: path.read_bytes() for path in VENDOR.iterdir()} if VENDOR.is_dir() else {}
    different = sorted(name for name in files.keys() | present.keys() if files.get(name) != present.get(name))
    if options.check:
        print("\n".join(f"differs: {name}" for name in different) or f"{len(files)} files as in the registry")
        return 1 if different else 0
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name in different:
        if name in files:
            (VENDOR / name).write_bytes(files[name])
        else:
            (VENDOR / name).unlink()
    print(f"{VENDOR.relative_to(ROOT)}: {len(files)} files, {len(different)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
