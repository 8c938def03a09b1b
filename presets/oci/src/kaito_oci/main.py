"""`kaito-push-adapter` and `kaito-pull-adapter`: commands that push and pull adapter images.

Init containers run `kaito-pull-adapter`. The exit codes are listed in `kaito_oci.errors`.
"""

import logging
import sys
from pathlib import Path

from kaito_oci.adapter_image import pull_image, push_adapter
from kaito_oci.command_line import Parser, fail
from kaito_oci.errors import ConfigurationError, ProgramError
from kaito_oci.reference import parse_reference


def push() -> int:
    """Runs the `kaito-push-adapter` command; returns the exit code."""
    parser = Parser("kaito-push-adapter", "Pack an adapter directory as an image and push it.")
    parser.add_argument("directory", type=Path, help="directory with adapter_config.json and adapter_model.safetensors")
    parser.add_argument("reference", help="image reference: registry/repository:tag")
    parser.registry_flags()
    parser.flag("annotation", action="extend", nargs="+", default=[], help="annotation of the manifest, KEY=VALUE")
    try:
        options = parser.parse_args(sys.argv[1:])
        annotations = dict(_pair(text) for text in options.annotation)
        reference = parse_reference(options.reference)
        digest = push_adapter(
            options.directory,
            reference,
            docker_configs=options.docker_config,
            plain_http=options.plain_http,
            annotations=annotations,
        )
    except ProgramError as error:
        return fail("kaito-push-adapter", error)
    print(f"{reference}@{digest}")  # noqa: T201 - the result of the command
    return 0


def pull() -> int:
    """Runs the `kaito-pull-adapter` command; returns the exit code."""
    logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stderr)
    parser = Parser("kaito-pull-adapter", "Pull an image and write the files below one of its paths.")
    parser.add_argument("reference", help="image reference: registry/repository:tag")
    parser.add_argument("directory", type=Path, help="target directory")
    parser.registry_flags()
    parser.flag("path", default="/data", help="path inside the image (default: /data)")
    parser.flag("digest-file", type=Path, help="file for the digest of the image, written last")
    try:
        options = parser.parse_args(sys.argv[1:])
        names = pull_image(
            parse_reference(options.reference),
            options.directory,
            docker_configs=options.docker_config,
            plain_http=options.plain_http,
            path=options.path,
            digest_file=options.digest_file,
        )
    except ProgramError as error:
        return fail("kaito-pull-adapter", error)
    print(f"{options.directory}: {', '.join(names)}")  # noqa: T201 - the result of the command
    return 0


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--annotation {text!r}: expected KEY=VALUE")
    return key, value
