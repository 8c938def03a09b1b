"""A release: its images and their requirements exist, its check sums can be checked."""

import hashlib
from pathlib import Path

from hack.images.catalog import IMAGES
from hack.release import write_check_sums

ROOT = Path(__file__).resolve().parents[3]


def test_each_image_has_its_dockerfile_which_installs_the_requirements_of_its_bill_of_materials() -> None:
    for image in IMAGES:
        dockerfile = (ROOT / image.dockerfile).read_text()
        name = Path(image.requirements).name
        assert (ROOT / image.requirements).is_file()
        assert name in dockerfile.replace("${EXTRA}", "tuning")


def test_check_sums_cover_every_file_but_their_own(tmp_path: Path) -> None:
    (tmp_path / "sbom").mkdir()
    (tmp_path / "a.whl").write_bytes(b"wheel")
    (tmp_path / "sbom" / "b.json").write_bytes(b"bill")
    (tmp_path / ".gitignore").write_bytes(b"*")
    write_check_sums(tmp_path)
    sums = write_check_sums(tmp_path).read_text()
    expected = {"a.whl": b"wheel", "sbom/b.json": b"bill"}
    assert sums == "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in expected.items())
