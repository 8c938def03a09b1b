"""Reads the facts of a model from its OCI artifact: config.json, the index, and the sizes of the files.

The pods load the files of the artifact, so that its facts are right also where Hugging Face cannot be reached. Weights
are not transferred. The client of registries is synchronous, and an index may have megabytes: a thread reads both.
"""

import asyncio
from typing import Final

from kaito_config.image_references import ImageReference
from kaito_oci.credentials import parse_credentials
from kaito_oci.errors import CredentialsRejected, NotAModel, RegistryError
from kaito_oci.model_documents import ModelDocuments, read_documents

from kaito.api import conditions
from kaito.models.facts.derive import ModelFacts, Source, derive_facts
from kaito.models.facts.documents import parse_config
from kaito.models.facts.errors import FactsError, NotAModel as NotAModelDirectory
from kaito.models.facts.reference import ModelReference
from kaito.models.facts.weight_files import (
    CONFIG,
    INDEX,
    MISTRAL_CONFIG,
    MISTRAL_INDEX,
    QUANTIZATION,
    index_of,
    indexed_files,
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
            return await asyncio.to_thread(_read, artifact, query)
    except CredentialsRejected as error:
        message = f"{error}: name a Secret with its credentials in presetOptions.imagePullSecrets"
        raise ModelUnavailable(conditions.MODEL_GATED, message, is_transient=True) from error
    except NotAModel as error:
        raise ModelUnavailable(conditions.MODEL_INVALID, str(error)) from error
    except (RegistryError, TimeoutError) as error:
        cause = str(error) or f"{artifact}: no answer within {READ_LIMIT_SECONDS:.0f} s"
        message = f"{cause}: check the artifact and the registry"
        raise ModelUnavailable(conditions.MODEL_UNREACHABLE, message, is_transient=True) from error
    except FactsError as error:
        raise ModelUnavailable(error.reason, f"{artifact} {error}") from error


def artifact_facts(
    found: ModelDocuments, reference: ModelReference | None = None, *, trust_remote_code: bool
) -> ModelFacts:
    """Returns the facts of what was read of an artifact.

    Args:
        found: documents and sizes.
        reference: the model that it should contain, and its commit if it is pinned; None for any. An artifact does not
            contain the names of branches and tags.
        trust_remote_code: whether code of the repository may run in the pod.

    Raises:
        FactsError: it is another model, or the engine does not serve it.
    """
    model = reference.model if reference is not None else ""
    if model and "/" in found.name and found.name.lower() != model.lower():
        raise NotAModelDirectory(f"contains {found.name}, not {model}: name the artifact of that model")
    if reference is not None and reference.is_pinned and found.revision not in {"", reference.revision}:
        expected = reference.revision[:12]
        raise NotAModelDirectory(f"contains commit {found.revision[:12]}, not {expected}: pack that commit")
    index = index_of(found.sizes)
    weights = select_weights(found.sizes, indexed_files(found.documents.get(index, b""), index) if index else ())
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


def _read(artifact: ImageReference, query: ModelQuery) -> ModelFacts:
    known = [parse_credentials(artifact, document) for document in query.docker_configs]
    found = read_documents(artifact, DOCUMENTS, credentials=[each for each in known if each is not None])
    return artifact_facts(found, query.reference, trust_remote_code=query.trust_remote_code)
