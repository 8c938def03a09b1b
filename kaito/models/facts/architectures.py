"""What the engine supports: tables of a release of vLLM, written by `hack.models.engine_facts`."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from kaito.api.json_values import json_list, json_object
from kaito.models.facts.documents import ConfigDocument
from kaito.models.facts.errors import RemoteCodeRequired, UnsupportedArchitecture


@cache
def _tables() -> Mapping[str, Any]:
    text = resources.files("kaito.models").joinpath("data", "vllm_architectures.json").read_text(encoding="utf-8")
    return json_object(json.loads(text))


@cache
def _names(table: str) -> frozenset[str]:
    return frozenset(str(name) for name in json_list(_tables().get(table)))


def engine_release() -> str:
    """Returns name and version of the release that the tables are from."""
    return str(_tables().get("source", "")).partition(" from ")[0]


def generates_text(architecture: str) -> bool:
    """Whether the engine serves the architecture for text generation."""
    return architecture in _names("generation")


def is_in_transformers(architecture: str) -> bool:
    """Whether transformers has the architecture as a causal language model, so that its server can load it."""
    return architecture in _names("transformers")


def check_architecture(document: ConfigDocument) -> str:
    """Returns the architecture that the engine serves.

    Raises:
        UnsupportedArchitecture: there is none; the message contains the reason.
    """
    names = [str(name) for name in json_list(document.root.get("architectures"))]
    for name in names:
        if generates_text(name):
            return name
    if not names:
        raise UnsupportedArchitecture(
            "names no architecture in config.json: use a model in the format of transformers, or inference.template"
        )
    shown = " and ".join(names[:3])
    removed = json_object(_tables().get("removed"))
    for name in names:
        if name in removed:
            raise UnsupportedArchitecture(
                f"is a {shown}, which the engine supported until release {removed[name]} ({engine_release()} is used): "
                "choose another model, or use inference.template with an older image"
            )
    if any(name in _names("pooling") for name in names):
        raise UnsupportedArchitecture(
            f"is a {shown}, which computes embeddings or scores and generates no text: use inference.template"
        )
    raise UnsupportedArchitecture(
        f"is a {shown}, which {engine_release()} does not serve: choose another model, or use inference.template"
    )


def check_code(document: ConfigDocument, *, allowed: bool) -> bool:
    """Returns whether the engine runs code of the repository to read its configuration.

    Raises:
        RemoteCodeRequired: it has to, and the user has not allowed it.
    """
    code = json_object(document.root.get("auto_map"))
    if not code or document.root_type in _names("model_types"):
        return False
    if not allowed:
        files = sorted({str(value).rpartition("--")[2].partition(".")[0] + ".py" for value in code.values()})
        raise RemoteCodeRequired(
            f"needs Python code of its repository ({', '.join(files[:3])}), which would run in the pod: read it, and "
            "set presetOptions.trustRemoteCode to true"
        )
    return True


def check_quantization(method: str) -> None:
    """Checks that the engine loads weights of the quantization method.

    Raises:
        UnsupportedArchitecture: it does not.
    """
    if method and method not in _names("quantizations"):
        raise UnsupportedArchitecture(
            f"has {method} weights, which {engine_release()} does not load: choose a copy with one of the methods "
            "awq, compressed-tensors, fp8, gptq or mxfp4, or without quantization"
        )
