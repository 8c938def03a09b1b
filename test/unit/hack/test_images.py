"""`hack.images`: names and tags, the commands of each engine, and the messages for what is missing."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hack.images import base
from hack.images.catalog import IMAGES, ROOT, Source, UnknownImage, commit_tag, full_name, read_source, select
from hack.images.command import main
from hack.images.engine import Buildah, BuildOptions, Docker, EngineMissing, choose_engine

VERSION = (ROOT / "VERSION").read_text().strip()

Install = Callable[[str, str], Path]
"""Puts a program of this name, whose body is a shell script, on the search path; returns the log of its calls."""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A search path with git and the shell only, for engines that record how they are called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "calls"
    log.touch()
    for name in ("git", "sh"):
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))

    def add(name: str, body: str) -> Path:
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{body}\n')
        script.chmod(0o755)
        return log

    return add


def git(folder: Path, *words: str) -> None:
    settings = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True)


def test_images_are_selected_by_name_in_the_order_of_the_catalog() -> None:
    assert [image.name for image in select([])] == [image.name for image in IMAGES]
    assert [image.name for image in select(["kaito-vllm", "workspace-controller"])] == [
        "workspace-controller",
        "kaito-vllm",
    ]
    with pytest.raises(UnknownImage, match=r"kaito-base: not an image .* choose from workspace-controller, "):
        select(["kaito-base"])


def test_the_tag_of_a_commit_exists_only_without_changes(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("1.2.3\n")
    assert read_source(tmp_path).version == "1.2.3"
    assert read_source(tmp_path).revision == "unknown", "no checkout"
    assert commit_tag("unknown") is commit_tag("") is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first", "--date", "2026-01-02T03:04:05Z")
    source = read_source(tmp_path)
    assert commit_tag(source.revision) == source.revision[:12]
    assert len(source.revision) == 40
    assert source.created.endswith("Z")
    (tmp_path / "untracked").touch()
    assert read_source(tmp_path) == source
    (tmp_path / "VERSION").write_text("1.2.4\n")
    changed = read_source(tmp_path)
    assert changed.revision == f"{source.revision}-dirty"
    assert commit_tag(changed.revision) is None, "the commit does not contain these files"


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        ("kaito", "docker.io/kaito/gpu-provisioner:1"),
        ("registry.example.com/kaito", "registry.example.com/kaito/gpu-provisioner:1"),
        ("localhost:5000", "localhost:5000/gpu-provisioner:1"),
        ("localhost/team", "localhost/team/gpu-provisioner:1"),
    ],
)
def test_a_registry_without_a_host_is_below_docker_io(registry: str, expected: str) -> None:
    assert full_name(registry, select(["gpu-provisioner"])[0], "1") == expected


def test_secrets_and_the_cache_are_flags_of_the_build(tmp_path: Path) -> None:
    options = BuildOptions(
        arguments={"BASE_IMAGE": "example.com/python:3.12"},
        ca_file=tmp_path / "ca.pem",
        netrc_file=tmp_path / "netrc",
        uv_cache=tmp_path / "uv",
        platform="linux/arm64",
    )
    docker = Docker().build("Dockerfile.workspace", "a:1", options)
    assert docker == [
        "docker", "build", "--file", "Dockerfile.workspace", "--platform", "linux/arm64",
        "--build-arg", "BASE_IMAGE=example.com/python:3.12",
        "--build-arg", "PIP_CERT=/run/secrets/ca", "--build-arg", "SSL_CERT_FILE=/run/secrets/ca",
        "--secret", f"id=ca,src={tmp_path}/ca.pem", "--secret", f"id=netrc,src={tmp_path}/netrc",
        "--tag", "a:1", ".",
    ]  # fmt: skip
    buildah = Buildah(tmp_path / "store").build("Dockerfile.workspace", "a:1", options)
    root = ["buildah", "--root", f"{tmp_path}/store/storage", "--runroot", f"{tmp_path}/store/run"]
    assert buildah[: len(root)] == root
    assert ["--volume", f"{tmp_path}/uv:/run/uv-cache:rw", "--build-arg", "UV_CACHE_DIR=/run/uv-cache"] == buildah[
        -7:-3
    ]


def test_buildah_pushes_to_registries_without_tls() -> None:
    assert Buildah().push("a:1", "r:5000/a:1", plain_http=True, compress=False) == [
        ["buildah", "push", "--tls-verify=false", "--disable-compression", "a:1", "docker://r:5000/a:1"]
    ]
    assert Docker().push("a:1", "r/a:1", plain_http=False, compress=True) == [
        ["docker", "tag", "a:1", "r/a:1"],
        ["docker", "push", "r/a:1"],
    ]


def test_docker_is_used_only_if_its_engine_answers(install: Install) -> None:
    with pytest.raises(EngineMissing, match="docker is not installed, and buildah is not installed"):
        choose_engine()
    install("docker", "exit 1")
    with pytest.raises(EngineMissing, match="docker is installed, but no Docker engine answers, and buildah"):
        choose_engine()
    install("buildah", "")
    assert choose_engine() == Buildah()
    assert choose_engine(storage=Path("/store")) == Buildah(Path("/store"))
    with pytest.raises(EngineMissing, match=r"here: docker is installed, but no Docker engine answers$"):
        choose_engine("docker")
    install("docker", "echo 29.0")
    assert choose_engine() == Docker()
    assert choose_engine("buildah") == Buildah()


def test_build_push_and_export_with_docker(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hack.images.command.read_source", lambda: Source("1.2.3", "a" * 40, "2026-01-01T00:00:00Z"))
    inspect = f'[ "${{4%%index*}}" = "$4" ] && echo 202000000 || echo {"b" * 40}'
    body = f'case "$1" in info) echo 29;; image) {inspect};; save) echo archive > "$3";; esac'
    log = install("docker", body)
    assert main(["build", "gpu-provisioner", "--index-url", "https://mirror.example.com/simple"]) == 0
    assert main(["push", "gpu-provisioner", "--registry", "registry.example.com/kaito"]) == 0
    assert main(["export", "gpu-provisioner", "--output", str(tmp_path / "out")]) == 0
    calls = [line for line in log.read_text().splitlines() if not line.startswith(("docker info", "docker image"))]
    build, *rest = calls
    assert build.startswith("docker build --file Dockerfile.provisioner --build-arg VERSION=1.2.3")
    assert "--build-arg PIP_INDEX_URL=https://mirror.example.com/simple" in build
    assert "--build-arg UV_DEFAULT_INDEX=https://mirror.example.com/simple" in build
    name = "docker.io/kaito/gpu-provisioner:1.2.3"
    assert build.endswith(f"--tag {name} .")
    pushed = "registry.example.com/kaito/gpu-provisioner"
    assert rest == [
        f"docker tag {name} {pushed}:1.2.3",
        f"docker push {pushed}:1.2.3",
        f"docker tag {name} {pushed}:{'b' * 12}",
        f"docker push {pushed}:{'b' * 12}",
        f"docker save --output {tmp_path}/out/gpu-provisioner.tar {name}",
    ]
    assert f"{name}  202 MB  built in " in capsys.readouterr().out


def test_an_archive_on_standard_output_is_only_the_archive(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("docker", 'case "$1" in info) echo 29;; image) echo 1;; save) echo "archive of $2";; esac')
    assert main(["export", "gpu-provisioner", "--output", "-"]) == 0
    assert capfd.readouterr().out == f"archive of docker.io/kaito/gpu-provisioner:{VERSION}\n"
    command = Buildah().export("a:1", None)
    assert command == ["buildah", "push", "a:1", "docker-archive:/dev/stdout:a:1"]


def test_the_size_and_the_commit_of_an_image_of_buildah(install: Install) -> None:
    install("buildah", f"echo '{json.dumps([{'size': '202 MB'}])}'")
    assert Buildah().size_of("a:1") == "202 MB"
    install("buildah", "echo abc")
    assert Buildah().revision_of("a:1") == "abc"
    install("buildah", "exit 125")
    assert Buildah().size_of("a:1") == ""
    assert Buildah().revision_of("a:1") == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build", "kaito-base"], "kaito-base: not an image of this repository"),
        (["build", "--build-arg", "EXTRA"], "--build-arg: 'EXTRA' is not NAME=VALUE"),
        (["build", "--ca-file", "/absent/ca.pem"], "--ca-file: /absent/ca.pem does not exist"),
        (["push", "gpu-provisioner", "--registry", "r.example.com"], "make images IMAGES=gpu-provisioner"),
        (["export", "gpu-provisioner", "--output", "OUT"], "does not exist in the store of buildah"),
        (["export", "--output", "-"], "--output -: standard output takes one image; name it"),
    ],
)
def test_a_wrong_call_ends_with_one_line(
    install: Install, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install("buildah", "exit 125")
    assert main([word.replace("OUT", str(tmp_path)) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_failed_build_names_its_command(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("buildah", "exit 125")
    assert main(["build", "gpu-provisioner"]) == 1
    assert "hack.images: exit code 125: buildah build" in capsys.readouterr().err


def test_the_base_image_needs_root_and_its_programs(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("buildah", "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["base", "--folder", str(tmp_path)]) == 2
    assert "debootstrap needs root" in capsys.readouterr().err
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["base", "--folder", str(tmp_path)]) == 2
    assert "not installed: debootstrap (apt-get install debootstrap)" in capsys.readouterr().err


def test_the_base_image_is_bootstrapped_once(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = " ".join(
        f"$4/{name}" for name in ("usr/lib/python3.11", "usr/local/bin", "etc/ssl/certs", "var/lib/apt/lists/x")
    )
    install("debootstrap", f"/bin/mkdir -p {made}; : > $4/usr/lib/python3.11/EXTERNALLY-MANAGED")
    listed = json.dumps([{"size": "151 MB"}])
    found = f"[ ! -e {tmp_path}/committed ] || echo '{listed}'"
    script = f'case "$1" in from) echo container-1;; commit) : > {tmp_path}/committed;; images) {found};; esac'
    log = install("buildah", script)
    folder, mirror = tmp_path / "base", "http://mirror.example.com/debian"

    def count() -> tuple[int, int]:
        programs = [" ".join(call.split()[:2]) for call in log.read_text().splitlines()]
        return programs.count("debootstrap --variant=minbase"), programs.count("buildah commit")

    for _ in range(2):
        assert base.make_base_image(Buildah(), folder, "bookworm", mirror) == "localhost/kaito-base:bookworm"
    assert count() == (1, 1)
    assert log.read_text().splitlines()[-2] == "buildah rm container-1"
    (tmp_path / "committed").unlink()  # another storage: the root file system is used again
    base.make_base_image(Buildah(), folder, "bookworm", mirror)
    assert count() == (1, 2)
    base.make_base_image(Buildah(), folder, "bookworm", mirror, renew=True)
    assert count() == (2, 3)
    root = folder / "base-bookworm"
    assert not (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").exists()
    assert (root / "usr/local/bin/python").readlink() == Path("/usr/bin/python3")
    assert not (root / "var/lib/apt/lists/x").exists()
