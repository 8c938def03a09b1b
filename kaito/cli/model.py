"""`kaito model`: packs, pushes, inspects and pulls model files, and names the images of a preset.

The work is done by `kaito_oci`, which is loaded only for it; `image` needs the catalog only.
"""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaito.models import catalog
from kaito.workspace.images import runtime_image
from kaito.workspace.settings import WorkspaceSettings

if TYPE_CHECKING:
    from kaito_oci.model_commands import Access

IMAGE_REGISTRY = WorkspaceSettings().image_registry


def add_arguments(model: argparse.ArgumentParser) -> None:
    """Adds the actions and their flags to the parser of the command."""
    actions = model.add_subparsers(dest="action", required=True)

    pack = actions.add_parser("pack", help="pack a model directory, or a model of Hugging Face")
    pack.add_argument("source", help="model directory, or a model id of the form organization/name")
    pack.add_argument("reference", help="image reference: registry/repository:tag")
    pack.add_argument("--push", action="store_true", help="push to the registry without a local copy")
    pack.add_argument("--revision", default="", help="branch, tag or commit of the model id (default: main)")
    pack.add_argument("--token", help="token of Hugging Face (default: HF_TOKEN)")
    pack.add_argument("--endpoint", help="address of Hugging Face or of a mirror (default: HF_ENDPOINT)")
    pack.add_argument("--download-dir", type=Path, help="folder of the downloaded files (default: in ~/.cache/kaito)")
    pack.add_argument("--name", default="", help="name of the model (default: from config.json)")
    pack.add_argument("--license", default="", help="SPDX identifier (default: that of the model card)")
    pack.add_argument("--annotation", action="append", default=[], metavar="KEY=VALUE", help="further annotation")

    push = actions.add_parser("push", help="push a packed model")
    push.add_argument("reference", help="image reference that was packed")

    inspect = actions.add_parser("inspect", help="print what is known of a model: facts, annotations, files")
    inspect.add_argument("source", help="image reference, model directory, or model id organization/name[@revision]")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.add_argument(
        "--facts", metavar="NAME", default="", help="print a ConfigMap of that name for presetOptions.modelFacts"
    )

    check = actions.add_parser("catalog", help="list the catalog, or compare it with the files of its models")
    check.add_argument("presets", nargs="*", help="names of presets (default: all)")
    check.add_argument("--check", action="store_true", help="compare; exit with 1 if a figure differs")
    check.add_argument("--directory", type=Path, help="models or descriptions in files, instead of the hub")
    for action in (inspect, check):
        action.add_argument("--token", default="", help="token of Hugging Face (default: HF_TOKEN)")
        action.add_argument(
            "--endpoint", default="", help="address of Hugging Face or of a mirror (default: HF_ENDPOINT)"
        )

    pull = actions.add_parser("pull", help="pull the files of a model into a directory")
    pull.add_argument("reference", help="image reference: registry/repository:tag")
    pull.add_argument("directory", type=Path, help="target directory")
    pull.add_argument("--cache", type=Path, help="folder that several directories share")
    pull.add_argument("--parallel", type=int, default=4, help="layers at once (default: 4)")

    for action in (pack, push, inspect):
        action.add_argument(
            "--store", type=Path, help="image layout of packed models (default: in ~/.local/share/kaito)"
        )
    for action in (pack, push, inspect, pull):
        action.add_argument(
            "--docker-config", type=Path, action="append", default=[], help="Docker's config.json with credentials"
        )
        action.add_argument("--plain-http", action="store_true", help="use HTTP without TLS (always on for loopback)")

    image = actions.add_parser("image", help="print the artifact and the serving images of a preset")
    image.add_argument("preset", help="name of a preset")
    image.add_argument(
        "--model-registry", default="", help="registry of the packed models (--model-registry of the controller)"
    )
    image.add_argument(
        "--image-registry", default=IMAGE_REGISTRY, help="registry of the serving images (default: kaito)"
    )
    image.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code.

    Raises:
        LookupError: the preset does not exist, or the model cannot be read.
    """
    if arguments.action == "image":
        _print(images(arguments.preset, arguments.model_registry, arguments.image_registry, as_json=arguments.json))
        return 0
    if arguments.action == "catalog":
        return _catalog(arguments)
    if arguments.action == "inspect":
        from kaito.cli import model_facts

        if arguments.facts or model_facts.is_model(arguments.source):
            _print(_facts(arguments))
            return 0
    from kaito_oci.errors import ProgramError

    logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stderr)
    try:
        _print(_transfer(arguments))
    except ProgramError as error:
        sys.stderr.write(f"kaito: {error}\n")
        return error.exit_code
    return 0


def _catalog(arguments: argparse.Namespace) -> int:
    if not arguments.check:
        _print("\n".join(f"{preset.name:<42} {preset.repository}" for preset in catalog.presets()))
        return 0
    from kaito.cli import model_facts

    report, wrong = model_facts.check_catalog(
        arguments.presets, arguments.directory, endpoint=arguments.endpoint, token=arguments.token
    )
    _print(report)
    return 1 if wrong else 0


def _facts(arguments: argparse.Namespace) -> str:
    """Returns the facts of a model directory, of an artifact, or of a Hugging Face ID."""
    from kaito.cli import model_facts

    if model_facts.is_artifact(arguments.source):
        facts = model_facts.facts_of_artifact(
            arguments.source, docker_configs=arguments.docker_config, plain_http=arguments.plain_http
        )
    else:
        facts = model_facts.facts_of(arguments.source, endpoint=arguments.endpoint, token=arguments.token)
    if arguments.facts:
        return model_facts.config_map(facts, arguments.facts).rstrip("\n")
    return facts.model_dump_json(indent=2) if arguments.json else "\n".join(model_facts.lines(facts))


def _transfer(arguments: argparse.Namespace) -> str:
    from kaito_oci import model_commands
    from kaito_oci.layout import default_store

    access = model_commands.Access(arguments.docker_config, plain_http=arguments.plain_http)
    if arguments.action == "pull":
        return model_commands.pull(
            arguments.reference, arguments.directory, access, cache=arguments.cache, parallel=arguments.parallel
        )
    store = arguments.store or default_store()
    if arguments.action == "push":
        return model_commands.push(arguments.reference, store, access)
    if arguments.action == "inspect":
        return model_commands.inspect(arguments.source, access, store=store, as_json=arguments.json)
    return _pack(arguments, store, access)


def _pack(arguments: argparse.Namespace, store: Path, access: "Access") -> str:
    from kaito_oci.errors import ConfigurationError
    from kaito_oci.hub import Hub
    from kaito_oci.model_commands import PackOptions, pack

    annotations = dict(text.partition("=")[::2] for text in arguments.annotation)
    if any("=" not in text for text in arguments.annotation):
        message = f"--annotation {', '.join(arguments.annotation)}: expected KEY=VALUE"
        raise ConfigurationError(message)
    configured = Hub.from_environment()
    options = PackOptions(
        push=arguments.push,
        store=store,
        revision=arguments.revision,
        name=arguments.name,
        license=arguments.license,
        annotations=annotations,
        hub=Hub(arguments.endpoint or configured.endpoint, arguments.token or configured.token),
        download_dir=arguments.download_dir,
    )
    return pack(arguments.source, arguments.reference, options, access)


def images(name: str, model_registry: str = "", image_registry: str = IMAGE_REGISTRY, *, as_json: bool = False) -> str:
    """Returns the model artifact and the serving images of a preset.

    Raises:
        LookupError: the catalog has no such preset.
    """
    preset = catalog.get(name)
    settings = WorkspaceSettings(image_registry=image_registry)
    vllm, transformers = runtime_image("vllm", settings), runtime_image("transformers", settings)
    found: dict[str, Any] = {
        "preset": preset.name,
        "repository": preset.repository,
        "revision": preset.revision,
        "artifact": preset.artifact(model_registry) if model_registry else preset.upstream_artifact,
        "vllm": vllm if preset.vllm is not None else "",
        "transformers": transformers if preset.transformers is not None else "",
        "tuning": transformers if preset.tuning is not None else "",
    }
    if as_json:
        return json.dumps(found, indent=2)
    if not found["artifact"]:
        found["artifact"] = "none published: pack it with `kaito model pack`, and set --model-registry"
    return "\n".join(f"{key + ':':<14} {value}" for key, value in found.items() if value)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
