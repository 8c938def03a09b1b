"""The Dockerfiles: pinned inputs, the user, the labels, and exactly the packages that an image runs."""

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

from hack.images.catalog import IMAGES, Image
from test.support.dockerfiles import Dockerfile, context_files, parse

ROOT = Path(__file__).resolve().parents[3]

each_image = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)


def dockerfile(image: Image) -> Dockerfile:
    return parse((ROOT / image.dockerfile).read_text())


def locked(path: str) -> list[str]:
    """The requirements of a lock file, each with its hashes on one line."""
    text = "\n".join(line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#"))
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def test_the_dockerfiles_have_one_pinned_base_image() -> None:
    bases = {image.name: dockerfile(image).arguments["BASE_IMAGE"] for image in IMAGES}
    assert len(set(bases.values())) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases["kaito-serving"])
    for image in IMAGES:
        assert [stage.base for stage in dockerfile(image).stages] == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]


@each_image
def test_every_requirement_has_a_version_and_a_hash(image: Image) -> None:
    build = "requirements/build.txt"
    text = (ROOT / image.dockerfile).read_text().replace("${EXTRA}", "tuning")
    assert image.requirements in text
    assert build in text
    for path in (image.requirements, build):
        lines = locked(path)
        assert [line for line in lines if "==" not in line or "--hash=sha256:" not in line] == []
    installs = [run.rest for stage in dockerfile(image).stages for run in stage.all("RUN") if " -r " in run.rest]
    installs += [run.rest for stage in dockerfile(image).stages for run in stage.all("RUN") if "pip sync" in run.rest]
    assert [script for script in installs if "--require-hashes" not in script] == []


@each_image
def test_every_download_uses_the_mirror_the_secrets_and_a_cache(image: Image) -> None:
    for stage in dockerfile(image).stages:
        names = {word.partition("=")[0] for argument in stage.all("ARG") for word in argument.words}
        downloads = [
            run
            for run in stage.all("RUN")
            if re.search(r"\bpip (install|sync)\b|\buv build\b", run.rest) and "--no-index" not in run.rest
        ]
        for run in downloads:
            flags = " ".join(run.flags)
            assert {"PIP_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_CERT", "SSL_CERT_FILE", "UV_CACHE_DIR"} <= names
            assert "type=cache" in flags
            assert "--mount=type=secret,id=ca" in flags
            assert "--mount=type=secret,id=netrc,target=/root/.netrc" in flags
        assert not stage.base.endswith("build") or downloads


@each_image
def test_the_image_runs_as_a_user_without_rights_and_has_labels(image: Image) -> None:
    final = dockerfile(image).stages[-1]
    assert [user.rest for user in final.all("USER")] == ["65532:65532"]
    assert final.instructions.index(final.all("USER")[0]) > max(
        final.instructions.index(run) for run in final.all("RUN") + final.all("COPY")
    )
    (labels,) = final.all("LABEL")
    values = dict(word.split("=", 1) for word in labels.words)
    prefix = "org.opencontainers.image."
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert values.pop(f"{prefix}description")
    assert values == {
        f"{prefix}title": image.name,
        f"{prefix}source": project["urls"]["Documentation"],
        f"{prefix}licenses": project["license"],
        f"{prefix}version": "${VERSION}",
        f"{prefix}revision": "${REVISION}",
        f"{prefix}created": "${CREATED}",
    }
    variables = dict(word.split("=", 1) for env in final.all("ENV") for word in env.words)
    assert variables["HOME"] == "/tmp"
    caches = {name: value for name, value in variables.items() if re.search(r"CACHE|HF_HOME|CONFIG_ROOT", name)}
    assert [name for name, value in caches.items() if not value.startswith("/tmp/")] == []


@each_image
def test_every_copied_file_is_in_the_build_context(image: Image) -> None:
    files = context_files(ROOT / image.dockerfile)
    for stage in dockerfile(image).stages:
        for copy in stage.all("COPY"):
            if any(flag.startswith("--from") for flag in copy.flags):
                continue
            for name in copy.words[:-1]:
                pattern = re.escape(name.replace("${EXTRA}", "tuning")).replace(r"\*", "[^/]*")
                assert any(re.match(rf"{pattern}(/|$)", file) for file in files), f"COPY {name}"


SOURCES = {"kaito_config": "presets/config", "kaito_oci": "presets/oci"}
"""The folders of the packages outside of kaito/."""


@cache
def repository_imports(folder: str) -> frozenset[str]:
    """The folders of the repository whose packages the modules in one of them import."""
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        if {"testing", "simulator", ".venv"} & set(path.relative_to(ROOT).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {f"kaito/{name.split('.')[1]}" for name in names if name.startswith("kaito.")}
            found |= {SOURCES[name.split(".")[0]] for name in names if name.split(".")[0] in SOURCES}
    return frozenset(found)


@pytest.mark.parametrize("program", ["workspace", "provisioner"])
def test_a_controller_image_contains_the_packages_that_the_controller_imports(program: str) -> None:
    needed = {f"kaito/{program}"}
    while True:
        further = needed.union(*(repository_imports(folder) for folder in needed))
        if further == needed:
            break
        needed = further
    stage = parse((ROOT / f"Dockerfile.{program}").read_text()).stages[0]
    copied = {word for copy in stage.all("COPY") for word in copy.words[:-1] if word.startswith(("kaito/", "presets/"))}
    assert copied == needed
    (install,) = [run.rest for run in stage.all("RUN") if "pip install --python" in run.rest]
    separate = {f"./{folder}" for folder in needed if (ROOT / folder / "pyproject.toml").exists()}
    assert {word for word in install.partition("&&")[0].split() if word.startswith("./")} == separate


@pytest.mark.parametrize("name", ["kaito-serving", "kaito-vllm"])
def test_the_largest_layers_contain_cuda_and_torch(name: str) -> None:
    image = next(image for image in IMAGES if image.name == name)
    scripts = [run.rest for run in dockerfile(image).stages[0].all("RUN") if run.rest.startswith("awk")]
    assert scripts
    separate: list[str] = []
    for script in scripts:
        program = script.partition("'")[2].partition("'")[0]
        listed = subprocess.run(
            ["awk", program, str(ROOT / image.requirements)], check=True, capture_output=True, text=True
        ).stdout
        entries = [line for line in listed.replace("\\\n", " ").splitlines() if line.strip()]
        assert [line for line in entries if "--hash=" not in line] == []
        separate += [line.partition("==")[0] for line in entries]
    names = [line.partition("==")[0] for line in locked(image.requirements)]
    large = [each for each in names if each.startswith("nvidia-") or each in {"torch", "triton"}]
    assert len(large) > 10
    assert set(large) <= set(separate)
    assert len(separate) == len([each for each in names if each in set(separate)]), "a package is in two layers"


def test_the_lock_of_vllm_contains_the_version_that_its_source_names() -> None:
    (wanted,) = [line for line in (ROOT / "requirements/vllm.in").read_text().splitlines() if "vllm==" in line]
    assert wanted in [line.split()[0] for line in locked("requirements/vllm.txt")]
