"""Builds, pushes and exports the container images of the repository.

python -m hack.images build [IMAGE…]                     with Docker, or with Buildah as root
python -m hack.images push [IMAGE…] --registry REGISTRY  as REGISTRY/IMAGE:VERSION and REGISTRY/IMAGE:COMMIT
python -m hack.images export [IMAGE…] --output FOLDER    archives for `ctr images import` and `docker load`
python -m hack.images export IMAGE --output -            the archive of one image on standard output
python -m hack.images base                               a base image from a Debian mirror, for --base-image

Without names, a command applies to every image. docs/guides/private-images.md describes the build arguments.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hack.images.base import BaseImageError, make_base_image
from hack.images.catalog import (
    DEFAULT_REGISTRY,
    ROOT,
    Image,
    Source,
    UnknownImage,
    commit_tag,
    full_name,
    read_source,
    select,
)
from hack.images.engine import Buildah, BuildOptions, Engine, EngineMissing, choose_engine

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaito" / "images"


def run(*command: str) -> float:
    """Prints a command, runs it in the root of the repository, and returns the seconds that it took.

    Raises:
        CalledProcessError: it failed.
    """
    print("+", " ".join(command), flush=True)
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True)
    return time.monotonic() - started


def build_images(
    engine: Engine, images: Sequence[Image], source: Source, options: BuildOptions, registry: str = DEFAULT_REGISTRY
) -> None:
    """Builds images, tags each with the version, and prints sizes and times.

    Raises:
        CalledProcessError: a build failed.
    """
    labels = source.build_arguments()
    options = BuildOptions(
        arguments=labels | dict(options.arguments),
        ca_file=options.ca_file,
        netrc_file=options.netrc_file,
        uv_cache=options.uv_cache,
        platform=options.platform,
    )
    lines: list[str] = []
    for image in images:
        name = full_name(registry, image, source.version)
        seconds = run(*engine.build(image.dockerfile, name, options))
        lines.append(f"{name}  {engine.size_of(name)}  built in {seconds:.0f} s")
    print("\n".join(lines))


def push_images(
    engine: Engine, images: Sequence[Image], source: Source, target: str, *, plain_http: bool, compress: bool
) -> None:
    """Pushes images that were built before as `target`/NAME, with the version and the commit of the build as tags.

    Raises:
        CalledProcessError: a push failed, or an image was not built.
    """
    for image in images:
        name = full_name(DEFAULT_REGISTRY, image, source.version)
        _require_built(engine, image, name)
        commit = commit_tag(engine.revision_of(name))
        for tag in [source.version, *([commit] if commit else [])]:
            pushed = full_name(target, image, tag)
            commands = engine.push(name, pushed, plain_http=plain_http, compress=compress)
            seconds = sum(run(*command) for command in commands)
            print(f"{pushed}  pushed in {seconds:.0f} s")


def export_images(engine: Engine, images: Sequence[Image], source: Source, output: str) -> None:
    """Writes one archive for each image into the folder `output`, or that of a single image to standard output (`-`).

    Raises:
        CalledProcessError: an export failed.
        EngineMissing: an image was not built.
        ValueError: several images for standard output.
    """
    if output == "-" and len(images) != 1:
        raise ValueError("--output -: standard output takes one image; name it")
    for image in images:
        name = full_name(DEFAULT_REGISTRY, image, source.version)
        _require_built(engine, image, name)
        if output == "-":
            subprocess.run(engine.export(name, None), cwd=ROOT, check=True)
            continue
        archive = Path(output).resolve() / f"{image.name}.tar"
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.unlink(missing_ok=True)  # Buildah does not replace an archive
        seconds = run(*engine.export(name, archive))
        print(f"{archive}  {archive.stat().st_size / 1e6:.0f} MB  written in {seconds:.0f} s")


def _require_built(engine: Engine, image: Image, name: str) -> None:
    if not engine.size_of(name):
        raise EngineMissing(f"{name} does not exist in the store of {engine.name}: make images IMAGES={image.name}")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    root = argparse.ArgumentParser(
        prog="python -m hack.images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    engine = argparse.ArgumentParser(add_help=False)
    engine.add_argument("--engine", choices=["auto", "docker", "buildah"], default="auto", help="default: auto")
    engine.add_argument("--storage", type=Path, metavar="FOLDER", help="directory of images and containers (Buildah)")
    engine.add_argument("--isolation", default="chroot", help="isolation of RUN (Buildah; default: chroot)")
    images = argparse.ArgumentParser(add_help=False, parents=[engine])
    images.add_argument("images", nargs="*", metavar="IMAGE", help="default: all")
    commands = root.add_subparsers(dest="command", required=True)

    build = commands.add_parser("build", parents=[images], help="build images")
    build.add_argument("--base-image", metavar="IMAGE", help="Debian with Python 3.11 or newer and pip")
    build.add_argument("--index-url", metavar="URL", help="package index in place of PyPI")
    build.add_argument("--ca-file", type=Path, metavar="FILE", help="certificate authorities of the package index")
    build.add_argument("--netrc-file", type=Path, metavar="FILE", help="credentials of the package index")
    build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="further build argument")
    build.add_argument("--platform", help="such as linux/arm64")
    build.add_argument(
        "--uv-cache", type=Path, metavar="FOLDER", help="use this cache of uv, such as ~/.cache/uv (Buildah)"
    )

    push = commands.add_parser("push", parents=[images], help="push images that were built before")
    push.add_argument("--registry", required=True, help="such as registry.example.com/kaito")
    push.add_argument("--plain-http", action="store_true", help="registry without TLS (Buildah)")
    push.add_argument("--no-compression", action="store_true", help="push layers as they are (Buildah)")

    export = commands.add_parser("export", parents=[images], help="write archives of images that were built before")
    export.add_argument(
        "--output", required=True, metavar="FOLDER", help="where IMAGE.tar is written; - for standard output"
    )

    base = commands.add_parser("base", parents=[engine], help="make a base image from a Debian mirror")
    base.add_argument("--suite", default="bookworm", help="release of Debian (default: bookworm)")
    base.add_argument("--mirror", default="http://deb.debian.org/debian", help="Debian mirror")
    base.add_argument("--renew", action="store_true", help="make an existing base image again, with current packages")
    base.add_argument("--folder", type=Path, default=CACHE, help=f"where the file system is kept (default: {CACHE})")
    return root


def build_options(arguments: argparse.Namespace) -> BuildOptions:
    """Translates the flags of `build`.

    Raises:
        ValueError: --build-arg is not NAME=VALUE, or a file does not exist.
    """
    values: dict[str, str] = {}
    for word in arguments.build_arg:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ValueError(f"--build-arg: {word!r} is not NAME=VALUE")
        values[name] = value
    if arguments.base_image:
        values["BASE_IMAGE"] = arguments.base_image
    if arguments.index_url:
        values |= {"PIP_INDEX_URL": arguments.index_url, "UV_DEFAULT_INDEX": arguments.index_url}
    for flag, path in (("--ca-file", arguments.ca_file), ("--netrc-file", arguments.netrc_file)):
        if path is not None and not path.is_file():
            raise ValueError(f"{flag}: {path} does not exist or is not a file")
    uv_cache = arguments.uv_cache.expanduser().resolve() if arguments.uv_cache else None
    if uv_cache is not None:
        uv_cache.mkdir(parents=True, exist_ok=True)
    return BuildOptions(
        arguments=values,
        ca_file=arguments.ca_file,
        netrc_file=arguments.netrc_file,
        uv_cache=uv_cache,
        platform=arguments.platform,
    )


def main(words: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    arguments = parser().parse_args(words)
    try:
        if arguments.command == "base":
            engine = Buildah(arguments.storage, arguments.isolation)
            name = make_base_image(engine, arguments.folder, arguments.suite, arguments.mirror, renew=arguments.renew)
            print(f'{name}  {engine.size_of(name)}; use it with: make images ARGS="--base-image {name}"')
            return 0
        images, source = select(arguments.images), read_source()
        chosen = choose_engine(arguments.engine, arguments.storage, arguments.isolation)
        if arguments.command == "build":
            build_images(chosen, images, source, build_options(arguments))
        elif arguments.command == "push":
            push_images(
                chosen, images, source, arguments.registry,
                plain_http=arguments.plain_http, compress=not arguments.no_compression,
            )  # fmt: skip
        else:
            export_images(chosen, images, source, arguments.output)
    except (BaseImageError, EngineMissing, UnknownImage, ValueError) as error:
        print(f"hack.images: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"hack.images: exit code {error.returncode}: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    return 0
