"""`kaito-push-adapter` and `kaito-pull-adapter`: push and pull adapter images.

Called by init containers and by people. Exit codes are those of `errors`.
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
        description="holds adapter_config.json and adapter_model.safetensors", json_schema_extra=_POSITIONAL
    )
    reference: str = Field(description="host/path:tag", json_schema_extra=_POSITIONAL)
    docker_config: Path | None = Field(
        default=None, description="credentials: docker's config.json, or a directory with it"
    )
    plain_http: bool = Field(default=False, description="no TLS (loopback never has it)")
    annotation: tuple[str, ...] = Field(default=(), description="KEY=VALUE for the manifest")


class PullOptions(BaseModel, extra="forbid", frozen=True):
    """Pull an image and write the files below one of its paths."""

    reference: str = Field(description="host/path:tag", json_schema_extra=_POSITIONAL)
    directory: Path = Field(description="where to write", json_schema_extra=_POSITIONAL)
    docker_config: tuple[Path, ...] = Field(
        default=(), description="credentials to try in turn, before anonymous access"
    )
    plain_http: bool = Field(default=False, description="no TLS (loopback never has it)")
    path: str = Field(default="/data", description="the path inside the image")


def push() -> int:
    """The `kaito-push-adapter` command."""
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
    """The `kaito-pull-adapter` command."""
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
