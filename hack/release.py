"""Build the artifacts of a release: wheels, bills of materials, checksums and, with Docker or Buildah, the images.

python -m hack.release              into `dist`; images only if Docker or Buildah can build here (`hack.images`)
python -m hack.release --no-images  wheels, bills of materials and check sums only

Nothing is published: RELEASE.md has the steps before and after.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from hack.images.catalog import IMAGES, ROOT, read_source
from hack.images.command import build_images
from hack.images.engine import BuildOptions, EngineMissing, choose_engine

DIST = ROOT / "dist"
CYCLONEDX = ROOT / ".venv-release" / "bin" / "cyclonedx-py"
UV = ROOT / ".tools" / "bin" / "uv"


def run(*command: str | Path) -> None:
    """Runs a command and prints it first.

    Raises:
        CalledProcessError: it failed.
    """
    words = [str(word) for word in command]
    print("+", " ".join(words), flush=True)
    subprocess.run(words, cwd=ROOT, check=True)


def build_wheels() -> None:
    """Builds the wheel of every distribution of the workspace."""
    run(UV, "build", "-q", "--all-packages", "--wheel", "--out-dir", DIST)


def write_bills_of_materials() -> None:
    """Writes one CycloneDX document for each image: its Python packages with versions and hashes."""
    folder = DIST / "sbom"
    folder.mkdir(parents=True, exist_ok=True)
    for image in IMAGES:
        output = folder / f"{image.name}.cdx.json"
        run(CYCLONEDX, "requirements", "--output-reproducible", "--of", "JSON", "-o", output, image.requirements)


def write_check_sums(folder: Path) -> Path:
    """Writes the SHA-256 sums of every file below the folder, in the format of `sha256sum --check`."""
    target = folder / "SHA256SUMS"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != target and path.name[0] != ".")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    target.write_text("".join(lines), encoding="utf-8")
    return target


def main() -> int:
    """Builds a release; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-images", action="store_true", help="build no images")
    arguments = parser.parse_args()
    shutil.rmtree(DIST, ignore_errors=True)
    build_wheels()
    write_bills_of_materials()
    print(f"wrote {write_check_sums(DIST).relative_to(ROOT)}")
    if not arguments.no_images:
        try:
            build_images(choose_engine(), IMAGES, read_source(), BuildOptions())
        except EngineMissing as reason:
            print(f"images were not built: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
