"""Facts of a model for `kaito model inspect` and `kaito model catalog`: from a directory, an artifact, or the hub."""

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from kaito.api.json_values import json_object
from kaito.models import catalog
from kaito.models.facts.compare import differences
from kaito.models.facts.derive import ModelFacts, Source, derive_facts
from kaito.models.facts.documents import parse_config
from kaito.models.facts.errors import FactsError
from kaito.models.facts.reference import InvalidReference, ModelReference
from kaito.models.facts.weight_files import (
    CONFIG,
    MISTRAL_CONFIG,
    QUANTIZATION,
    count_tensors,
    index_of,
    indexed_files,
    select_weights,
)
from kaito.models.preset import Preset
from kaito.models.sizing import gib
from kaito.workspace.hub.client import HubClient
from kaito.workspace.hub.errors import ModelUnavailable
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.record import FACTS_KEY, FactsRecord, to_json
from kaito.workspace.settings import DEFAULT_HUB

_REGISTRY: Final = re.compile(r"[^/]*[.:][^/]*/|localhost/")
"""Beginning of an image reference: the name of a registry has a dot or a port."""

MAX_HEADER_BYTES: Final = 100_000_000


def is_model(source: str) -> bool:
    """Whether a source is a Hugging Face ID, and not a directory or an image reference."""
    if Path(source).exists() or _REGISTRY.match(source) or ":" in source:
        return False
    try:
        ModelReference.parse(source)
    except InvalidReference:
        return False
    return True


def is_artifact(source: str) -> bool:
    """Whether a source is an image reference, and neither a directory nor a Hugging Face ID."""
    return not Path(source).exists() and not is_model(source)


def facts_of_artifact(reference: str, *, docker_configs: Sequence[Path] = (), plain_http: bool = False) -> ModelFacts:
    """Returns the facts of an OCI artifact in a registry.

    Raises:
        LookupError: it cannot be read, or the engine does not serve the model.
    """
    from kaito_oci.errors import ProgramError
    from kaito_oci.model_documents import read_documents
    from kaito_oci.reference import parse_reference

    from kaito.workspace.hub.artifact import DOCUMENTS, artifact_facts

    try:
        found = read_documents(
            parse_reference(reference), DOCUMENTS, docker_configs=docker_configs, plain_http=plain_http
        )
        return artifact_facts(found, trust_remote_code=True)
    except ProgramError as error:
        raise LookupError(str(error)) from error
    except FactsError as error:
        raise LookupError(f"{reference} {error}") from error


def facts_of(source: str, *, endpoint: str = "", token: str = "", trust_remote_code: bool = True) -> ModelFacts:
    """Returns the facts of a directory or of a Hugging Face ID.

    Raises:
        LookupError: they cannot be read, or the engine does not serve the model; the message contains the remedy.
    """
    try:
        if Path(source).is_dir():
            return facts_of_directory(Path(source), trust_remote_code=trust_remote_code)
        client = HubClient(endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_HUB)
        query = ModelQuery(ModelReference.parse(source), token or os.environ.get("HF_TOKEN", ""), trust_remote_code)
        return asyncio.run(client.read(query))
    except FactsError as error:
        raise LookupError(f"{source} {error}") from error
    except InvalidReference as error:
        raise LookupError(f"{source!r} {error}") from error
    except ModelUnavailable as error:
        raise LookupError(str(error)) from error


def facts_of_directory(directory: Path, *, trust_remote_code: bool = True) -> ModelFacts:
    """Returns the facts of a model directory.

    Raises:
        FactsError: the engine does not serve it.
    """
    sizes = {path.name: path.stat().st_size for path in directory.iterdir() if path.is_file()}
    index = index_of(sizes)
    weights = select_weights(sizes, indexed_files((directory / index).read_bytes(), index) if index else ())
    config = parse_config((directory / (MISTRAL_CONFIG if weights.is_mistral_format else CONFIG)).read_bytes())
    counts: Counter[str] = Counter()
    for name in weights.names:
        counts.update(_header_counts(directory / name))
    quantization = parse_config((directory / QUANTIZATION).read_bytes()) if QUANTIZATION in sizes else {}
    source = Source(
        model=str(config.get("_name_or_path") or directory.resolve().name),
        config=config,
        weights=weights,
        tensors=counts,
        quantization=quantization,
    )
    return derive_facts(source, trust_remote_code=trust_remote_code)


def _header_counts(path: Path) -> Mapping[str, int]:
    """Returns the numbers by format in a safetensors file; empty if it is not one."""
    with path.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= MAX_HEADER_BYTES:
            return {}
        try:
            header = json_object(json.loads(opened.read(length)))
        except (ValueError, RecursionError):
            return {}
    return count_tensors(header)


def facts_of_description(document: Mapping[str, Any]) -> ModelFacts:
    """Returns the facts of a description: a JSON object with config.json and the sizes of the files.

    Raises:
        FactsError: the engine does not serve the model.
    """
    return derive_facts(
        Source(
            model=str(document.get("model")),
            config=json_object(document.get(CONFIG)) or json_object(document.get(MISTRAL_CONFIG)),
            weights=select_weights(json_object(document.get("files"))),
            tensors=json_object(document.get("tensors")),
            quantization=json_object(document.get(QUANTIZATION)),
        ),
        trust_remote_code=True,
    )


def lines(facts: ModelFacts) -> list[str]:
    """Formats facts for a terminal."""
    shape = f"{facts.layers} layers, {facts.heads} heads, {facts.kv_heads} key-value heads of {facts.head_dim}"
    kinds = [
        f"{facts.full_layers} with the whole context",
        f"{facts.window_layers} with a window of {facts.window} tokens" if facts.window_layers else "",
        f"{facts.state_layers} with a state of {facts.state_bytes_per_layer} bytes" if facts.state_layers else "",
    ]
    experts = facts.experts
    found = {
        "model": f"{facts.model}@{facts.revision}" if facts.revision else facts.model,
        "architecture": facts.architecture,
        "weights": f"{gib(facts.weights_bytes)} in {facts.weights_files} files, {facts.quantization or facts.dtype}",
        "parameters": f"{facts.parameters / 1e9:.3g} billion",
        "attention": f"{facts.attention}: {shape}",
        "layers": ", ".join(kind for kind in kinds if kind),
        "cache": f"{facts.growing_bytes_per_token:.0f} bytes per token at 16 bits",
        "context": f"{facts.context} tokens"
        + (f" (the engine uses {facts.default_context} by default)" if facts.default_context else ""),
        "experts": f"{experts.routed}, {experts.active} for each token, {experts.shared} shared" if experts else "",
        "license": facts.license + (", gated" if facts.gated else ""),
        "code": "of the repository: needs presetOptions.trustRemoteCode" if facts.remote_code else "",
        "runtimes": "vllm, transformers" if facts.in_transformers else "vllm",
    }
    return [f"{name + ':':<14} {value}" for name, value in found.items() if value]


def config_map(facts: ModelFacts, name: str) -> str:
    """Returns the manifest of a ConfigMap for `presetOptions.modelFacts`."""
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {FACTS_KEY: to_json(FactsRecord(facts=facts))},
    }
    return yaml.dump(document, Dumper=_BlockDumper, sort_keys=False)


class _BlockDumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that the facts can be read."""


def _block(dumper: Any, text: str) -> yaml.ScalarNode:
    node: yaml.ScalarNode = dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
    return node


_BlockDumper.add_representer(str, _block)


def check_catalog(names: list[str], directory: Path | None, *, endpoint: str = "", token: str = "") -> tuple[str, int]:
    """Compares entries of the catalog with their files; returns the report and the number of entries that differ.

    Raises:
        LookupError: the catalog has no such preset, or a model cannot be read.
    """
    wanted = [catalog.get(name) for name in names] or list(catalog.presets())
    report: list[str] = []
    wrong = 0
    for preset in wanted:
        facts = _facts_of_entry(preset, directory, endpoint, token)
        found = ["no files in the directory"] if facts is None else list(differences(preset, facts))
        wrong += bool(found)
        report += [f"{preset.name}: {each}" for each in found]
    report.append(f"{len(wanted)} presets compared, {wrong} differ")
    return "\n".join(report), wrong


def _facts_of_entry(preset: Preset, directory: Path | None, endpoint: str, token: str) -> ModelFacts | None:
    if directory is None:
        reference = f"{preset.repository}@{preset.revision}" if preset.revision else preset.repository
        return facts_of(reference, endpoint=endpoint, token=token)
    base = directory / preset.repository.replace("/", "--")
    if base.is_dir():
        return facts_of(str(base))
    description = base.with_name(f"{base.name}.json")
    return facts_of_description(json.loads(description.read_text())) if description.is_file() else None
