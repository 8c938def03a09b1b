"""Reads the facts of a model from its OCI artifact: config.json, the index, and the sizes of the files.

The pods load the files of the artifact, so that its facts are right also where Hugging Face cannot be reached. Weights
are not transferred. The client of registries is synchronous, and runs in a thread.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from kaito_config.image_references import ImageReference
from kaito_oci.credentials import parse_credentials
from kaito_oci.errors import CredentialsRejected, NotAModel, RegistryError
from kaito_oci.model_documents import ModelDocuments, read_documents

from kaito.api import conditions
from kaito.api.json_values import json_object
from kaito.models.facts.derive import ModelFacts, Source, derive_facts
from kaito.models.facts.documents import parse_config
from kaito.models.facts.errors import FactsError, NotAModel as NotAModelDirectory
from kaito.models.facts.weight_files import (
    CONFIG,
    INDEX,
    MISTRAL_CONFIG,
    MISTRAL_INDEX,
    QUANTIZATION,
    index_of,
    select_weights,
)
from kaito.workspace.hub.errors import ModelUnavailable
from kaito.workspace.hub.query import ModelQuery

DOCUMENTS: Final = frozenset({CONFIG, MISTRAL_CONFIG, INDEX, MISTRAL_INDEX, QUANTIZATION})
READ_LIMIT_SECONDS: Final = 120.0


async def read_artifact(query: ModelQuery) -> ModelFacts:
    """Returns the facts of the artifact of a query.

    Raises:
        ModelUnavailable: the artifact cannot be read, is another model, or the engine does not serve it.
    """
    artifact = query.artifact
    if artifact is None:
        raise ModelUnavailable(conditions.MODEL_UNREACHABLE, f"{query.reference} has no artifact")
    try:
        async with asyncio.timeout(READ_LIMIT_SECONDS):
            found = await asyncio.to_thread(_read, artifact, query)
    except CredentialsRejected as error:
        message = f"{error}: name a Secret with its credentials in presetOptions.imagePullSecrets"
        raise ModelUnavailable(conditions.MODEL_GATED, message, is_transient=True) from error
    except NotAModel as error:
        raise ModelUnavailable(conditions.MODEL_INVALID, str(error)) from error
    except (RegistryError, TimeoutError) as error:
        cause = str(error) or f"{artifact}: no answer within {READ_LIMIT_SECONDS:.0f} s"
        message = f"{cause}: check the artifact and the registry"
        raise ModelUnavailable(conditions.MODEL_UNREACHABLE, message, is_transient=True) from error
    try:
        return artifact_facts(
            found, query.reference.model, query.reference.revision, trust_remote_code=query.trust_remote_code
        )
    except FactsError as error:
        raise ModelUnavailable(error.reason, f"{artifact} {error}") from error


def artifact_facts(found: ModelDocuments, model: str, revision: str = "", *, trust_remote_code: bool) -> ModelFacts:
    """Returns the facts of what was read of an artifact.

    Args:
        found: documents and sizes.
        model: the model that it should contain; empty for any.
        revision: commit that it should contain; empty for any.
        trust_remote_code: whether code of the repository may run in the pod.

    Raises:
        FactsError: it is another model, or the engine does not serve it.
    """
    is_other = model and "/" in found.name and found.name.lower() != model.lower()
    if is_other:
        raise NotAModelDirectory(f"contains {found.name}, not {model}: name the artifact of that model")
    if len(revision) == COMMIT_CHARACTERS and found.revision and found.revision != revision:
        raise NotAModelDirectory(f"contains commit {found.revision[:12]}, not {revision[:12]}: pack that commit")
    index = index_of(found.sizes)
    weights = select_weights(found.sizes, _indexed(found.documents.get(index, b""), index) if index else ())
    name = MISTRAL_CONFIG if weights.is_mistral_format else CONFIG
    config = parse_config(found.documents.get(name, b""))
    quantization = found.documents.get(QUANTIZATION)
    return derive_facts(
        Source(
            model=model or found.name or str(config.get("_name_or_path") or "model"),
            config=config,
            weights=weights,
            revision=found.revision,
            quantization=parse_config(quantization) if quantization else {},
            license=found.license[:128],
        ),
        trust_remote_code=trust_remote_code,
    )


COMMIT_CHARACTERS: Final = 40
"""Characters of a commit; shorter revisions are names of branches and tags, which an artifact does not contain."""


def _read(artifact: ImageReference, query: ModelQuery) -> ModelDocuments:
    known = [parse_credentials(artifact, document) for document in query.docker_configs]
    return read_documents(artifact, DOCUMENTS, credentials=[each for each in known if each is not None])


def _indexed(content: bytes, name: str) -> list[str]:
    """Returns the names of the files in an index.

    Raises:
        NotAModelDirectory: it is not one.
    """
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotAModelDirectory(f"has a {name} that is not JSON") from error
    named: Mapping[str, Any] = json_object(json_object(document).get("weight_map"))
    return sorted({str(file) for file in named.values()})
