"""`kaito-push-adapter` and `kaito-pull-adapter`: commands that push and pull adapter images.

Init containers run `kaito-pull-adapter`. The exit codes are listed in `kaito_presets.errors`.
"""

import logging
import sys
from pathlib import Path

from pydantic import BaseModel, Field
from pydantic.config import JsonDict

from kaito_presets.command_line import parse
from kaito_presets.errors import ConfigurationError, PresetError
from kaito_presets.oci.adapter_image import pull_image, push_adapter
from kaito_presets.oci.reference import parse_reference

_POSITIONAL: JsonDict = {"positional": True}


class PushOptions(BaseModel, extra="forbid", frozen=True):
    """Pack an adapter directory as an image and push it."""

    directory: Path = Field(
        description="directory with adapter_config.json and adapter_model.safetensors", json_schema_extra=_POSITIONAL
    )
    reference: str = Field(description="image reference: registry/repository:tag", json_schema_extra=_POSITIONAL)
    docker_config: Path | None = Field(
        default=None, description="Docker's config.json with credentials, or its directory"
    )
    plain_http: bool = Field(default=False, description="use HTTP without TLS (always on for loopback)")
    annotation: tuple[str, ...] = Field(default=(), description="annotation of the manifest, KEY=VALUE")


class PullOptions(BaseModel, extra="forbid", frozen=True):
    """Pull an image and write the files below one of its paths."""

    reference: str = Field(description="image reference: registry/repository:tag", json_schema_extra=_POSITIONAL)
    directory: Path = Field(description="target directory", json_schema_extra=_POSITIONAL)
    docker_config: tuple[Path, ...] = Field(
        default=(), description="files with credentials, tried in order before anonymous access"
    )
    plain_http: bool = Field(default=False, description="use HTTP without TLS (always on for loopback)")
    path: str = Field(default="/data", description="path inside the image")


def push() -> int:
    """Runs the `kaito-push-adapter` command; returns the exit code."""
    try:
        options = parse(PushOptions, sys.argv[1:], program="kaito-push-adapter")
        annotations = dict(_pair(text) for text in options.annotation)
        reference = parse_reference(options.reference)
        digest = push_adapter(
            options.directory,
            reference,
            docker_configs=[options.docker_config] if options.docker_config else [],
            plain_http=options.plain_http,
            annotations=annotations,
        )
    except PresetError as error:
        return _fail("kaito-push-adapter", error)
    print(f"{reference}@{digest}")  # noqa: T201 - the result of the command
    return 0


def pull() -> int:
    """Runs the `kaito-pull-adapter` command; returns the exit code."""
    logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        options = parse(PullOptions, sys.argv[1:], program="kaito-pull-adapter")
        names = pull_image(
            parse_reference(options.reference),
            options.directory,
            docker_configs=options.docker_config,
            plain_http=options.plain_http,
            path=options.path,
        )
    except PresetError as error:
        return _fail("kaito-pull-adapter", error)
    print(f"{options.directory}: {', '.join(names)}")  # noqa: T201 - the result of the command
    return 0


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--annotation {text!r}: expected KEY=VALUE")
    return key, value


def _fail(program: str, error: PresetError) -> int:
    print(f"{program}: {error}", file=sys.stderr)  # noqa: T201 - the last line is the reason
    return error.exit_code
