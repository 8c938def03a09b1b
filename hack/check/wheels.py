"""Requires a wheel of every locked package of the images on both architectures, so that no build compiles anything.

`make lock` runs it after it has resolved the requirements; it needs the package index. Prints what is missing and
exits 1.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hack.images.catalog import IMAGES, ROOT

UV = ROOT / ".tools" / "bin" / "uv"
PYTHON = "3.12"
"""Version of Python in the default base image."""
PLATFORMS = ("x86_64-manylinux_2_36", "aarch64-manylinux_2_36")
"""Debian bookworm has glibc 2.36."""


def missing(requirements: str, platform: str, uv: Path = UV) -> list[str]:
    """Returns what the resolver reports for one lock file on one platform; empty if every package has a wheel."""
    with tempfile.TemporaryDirectory() as target:
        command = [
            str(uv), "pip", "install", "--dry-run", "--quiet", "--require-hashes", "--only-binary", ":all:",
            "--python-version", PYTHON, "--python-platform", platform, "--target", target, "-r", requirements,
        ]  # fmt: skip
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return []
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    return [f"{requirements} on {platform}: {line}" for line in lines] or [f"{requirements} on {platform}: uv failed"]


def main(uv: Path = UV) -> int:
    """Checks every image; returns the exit code."""
    files: Sequence[str] = [*(image.requirements for image in IMAGES), "requirements/build.txt"]
    found = [line for name in files for platform in PLATFORMS for line in missing(name, platform, uv)]
    print("\n".join(found) or f"wheels: {len(files)} lock files install on {' and '.join(PLATFORMS)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
