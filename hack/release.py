"""Build the artifacts of a release: wheels, bills of materials, checksums and, with Docker or Buildah, the images.

python -m hack.release              into `dist`; images only if Docker or Buildah can build here
python -m hack.release --no-images  wheels, bills of materials and check sums only

Nothing is published: RELEASE.md has the steps before and after.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
CYCLONEDX = ROOT / ".venv-release" / "bin" / "cyclonedx-py"
UV = ROOT / ".tools" / "bin" / "uv"


@dataclass(frozen=True)
class Image:
    """A container image and the exact requirements that it installs."""

    name: str
    dockerfile: str
    requirements: str


IMAGES = (
    Image("workspace-controller", "Dockerfile.workspace", "requirements/workspace.txt"),
    Image("gpu-provisioner", "Dockerfile.provisioner", "requirements/provisioner.txt"),
    Image("kaito-serving", "presets/images/Dockerfile.serving", "requirements/presets-tuning.txt"),
)


def run(*command: str | Path) -> None:
    """Run a command and print it first.

    Raises:
        CalledProcessError: it failed.
    """
    words = [str(word) for word in command]
    print("+", " ".join(words), flush=True)
    subprocess.run(words, cwd=ROOT, check=True)


def build_wheels() -> None:
    """Build the wheel of every distribution of the workspace."""
    run(UV, "build", "-q", "--all-packages", "--wheel", "--out-dir", DIST)


def write_bills_of_materials() -> None:
    """Write one CycloneDX document for each image: its Python packages with versions and hashes."""
    folder = DIST / "sbom"
    folder.mkdir(parents=True, exist_ok=True)
    for image in IMAGES:
        output = folder / f"{image.name}.cdx.json"
        run(CYCLONEDX, "requirements", "--output-reproducible", "--of", "JSON", "-o", output, image.requirements)


def builder() -> tuple[str, ...] | None:
    """Return the command that builds an image here; None if there is neither a Docker daemon nor Buildah."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return ("docker", "build")
    return ("buildah", "build") if shutil.which("buildah") else None


def build_images(version: str, command: Sequence[str]) -> None:
    """Build every image with the version as its tag."""
    for image in IMAGES:
        run(*command, "-f", image.dockerfile, "-t", f"kaito/{image.name}:{version}", ".")


def write_check_sums(folder: Path) -> Path:
    """Write the SHA-256 sums of every file below the folder, in the format of `sha256sum --check`."""
    target = folder / "SHA256SUMS"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != target and path.name[0] != ".")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    target.write_text("".join(lines), encoding="utf-8")
    return target


def main() -> int:
    """Build a release; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-images", action="store_true", help="build no images")
    arguments = parser.parse_args()
    version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    shutil.rmtree(DIST, ignore_errors=True)
    build_wheels()
    write_bills_of_materials()
    print(f"wrote {write_check_sums(DIST).relative_to(ROOT)}")
    command = None if arguments.no_images else builder()
    if command is not None:
        build_images(version, command)
    elif not arguments.no_images:
        print("images were not built: this machine has neither a running Docker daemon nor Buildah")
    return 0


if __name__ == "__main__":
    sys.exit(main())
