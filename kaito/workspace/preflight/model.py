"""Check of the model: it is in the catalog, or its facts are known. It fills in the preset.

Facts come from the first of these places: the ConfigMap in `presetOptions.modelFacts`, the ConfigMap that the
controller keeps for the Workspace, the artifact with the weights, and Hugging Face. The last two are read in the
background; until then the Workspace has no plan, so that no node is claimed.

An artifact is read only from the registry of `--model-registry`: the controller sends no requests to addresses that a
user of Workspaces chooses.
"""

from collections.abc import Iterable
from dataclasses import replace

from kaito_config.image_references import ImageReference, parse_image_reference

from kaito.api import conditions
from kaito.api.references import registry_of
from kaito.api.workspace import PresetSpec
from kaito.models import catalog
from kaito.models.admission import preset_of
from kaito.models.facts.presets import preset_of_facts
from kaito.models.facts.reference import ModelReference
from kaito.workspace.hub.errors import ModelUnavailable
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.record import FactsRecord, InvalidFacts, read_record, record_name
from kaito.workspace.pod_options import pull_secrets
from kaito.workspace.preflight.context import LookupUnavailable, PreflightContext
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.preflight.objects import docker_config_of, name_conflict, token_of
from kaito.workspace.weights import preset_spec


async def resolve(ctx: PreflightContext) -> Iterable[Finding]:
    """Looks the model up, or reads its facts.

    Raises:
        UnknownPreset: the name is neither in the catalog nor a Hugging Face ID.
    """
    found = preset_spec(ctx.workspace)
    if found is None:
        return ()
    spec, path = found
    reference = catalog.outside(spec.name, field=f"{path}.name")
    if reference is None:
        ctx.preset = preset_of(ctx.workspace)
        return tuple(_without_effect(spec, path))
    try:
        record = await _record(ctx, spec, reference, path)
    except LookupUnavailable:
        if given := spec.preset_options.model_facts:
            message = (
                f"ConfigMap {given!r} with the facts of {reference} is not among the files: add it, or compare with "
                "the cluster"
            )
            return (Finding(conditions.MODEL_PENDING, f"{path}.presetOptions.modelFacts", message),)
        message = f"the facts of {reference} are read only in a cluster: give them in presetOptions.modelFacts"
        return (Finding(conditions.MODEL_PENDING, f"{path}.name", message),)
    if isinstance(record, Finding):
        return (record,)
    facts = record.facts
    if facts.remote_code and not spec.preset_options.trust_remote_code:
        message = f"{reference} needs Python code of its repository: read it, and set trustRemoteCode to true"
        return (Finding(conditions.MODEL_NEEDS_REMOTE_CODE, f"{path}.presetOptions.trustRemoteCode", message),)
    ctx.facts = record
    ctx.preset = preset_of_facts(facts, reference, catalog.of_repository(reference.model))
    return ()


def _without_effect(spec: PresetSpec, path: str) -> Iterable[Finding]:
    options = spec.preset_options
    for name, given in (("modelFacts", options.model_facts), ("trustRemoteCode", options.trust_remote_code)):
        if given:
            message = f"has no effect, because {spec.name} is in the catalog: remove it"
            yield Finding(conditions.INVALID_SPEC, f"{path}.presetOptions.{name}", message)


async def _record(
    ctx: PreflightContext, spec: PresetSpec, reference: ModelReference, path: str
) -> FactsRecord | Finding:
    given = spec.preset_options.model_facts
    if given:
        return await _given(ctx, given, reference, f"{path}.presetOptions.modelFacts")
    query = ModelQuery(reference, "", spec.preset_options.trust_remote_code, _artifact(ctx, spec))
    kept = await ctx.cluster.kept_facts(query.name)
    if kept is not None:
        return kept
    if conflict := await name_conflict(ctx, record_name(ctx.workspace)):
        return conflict
    if query.artifact is not None:
        query = replace(query, docker_configs=await _docker_configs(ctx))
    secret = spec.preset_options.model_access_secret
    if secret:
        try:
            stored = await ctx.cluster.secret(secret)
        except LookupUnavailable:
            return await _read(ctx, query, path)
        if stored is None or not (token := token_of(stored)):
            problem = "does not exist" if stored is None else "has no key HF_TOKEN with a token"
            message = f"Secret {secret!r} {problem} in namespace {ctx.workspace.namespace}"
            reason = conditions.SECRET_NOT_FOUND if stored is None else conditions.SECRET_INVALID
            return Finding(reason, f"{path}.presetOptions.modelAccessSecret", message, resolved_by="poll")
        query = replace(query, token=token)
    return await _read(ctx, query, path)


def _artifact(ctx: PreflightContext, spec: PresetSpec) -> ImageReference | None:
    """Returns the artifact with the files of the model, if it is in the registry of `--model-registry`."""
    artifact, registry = spec.preset_options.weights.artifact, ctx.settings.model_registry
    if not artifact or not registry or registry_of(artifact) != registry_of(f"{registry}/model"):
        return None
    return parse_image_reference(artifact)


async def _docker_configs(ctx: PreflightContext) -> tuple[str, ...]:
    """Returns the contents of the pull secrets that exist; another check reports the others."""
    found: list[str] = []
    for name in pull_secrets(ctx.workspace, ctx.settings.pod_defaults):
        try:
            stored = await ctx.cluster.secret(name)
        except LookupUnavailable:
            continue
        if stored is not None and (text := docker_config_of(stored)):
            found.append(text)
    return tuple(found)


async def _read(ctx: PreflightContext, query: ModelQuery, path: str) -> FactsRecord | Finding:
    """Returns the facts from the artifact or from the hub."""
    try:
        found = await ctx.cluster.model_facts(query)
    except ModelUnavailable as error:
        return Finding(
            error.reason, f"{path}.name", error.message, resolved_by="poll" if error.is_transient else "edit"
        )
    if found is None:
        message = f"reading the facts of {query.reference} from {query.artifact or ctx.settings.hub_endpoint}"
        return Finding(conditions.MODEL_PENDING, f"{path}.name", message, resolved_by="watch")
    return found


async def _given(ctx: PreflightContext, name: str, reference: ModelReference, field: str) -> FactsRecord | Finding:
    """Returns the facts that the user gives."""
    found = await ctx.cluster.config_map(name)
    if found is None:
        message = f"ConfigMap {name!r} does not exist in namespace {ctx.workspace.namespace}"
        return Finding(conditions.CONFIG_NOT_FOUND, field, message, resolved_by="watch")
    try:
        record = read_record(found)
    except InvalidFacts as error:
        return Finding(conditions.CONFIG_INVALID, field, f"ConfigMap {name!r} {error}", resolved_by="watch")
    facts = record.facts
    if facts.model.lower() != reference.model.lower():
        message = f"ConfigMap {name!r} has the facts of {facts.model}, not of {reference.model}"
        return Finding(conditions.CONFIG_INVALID, field, message, resolved_by="watch")
    if reference.is_pinned and facts.revision not in {"", reference.revision}:
        message = f"ConfigMap {name!r} has the facts of revision {facts.revision}, not of {reference.revision}"
        return Finding(conditions.CONFIG_INVALID, field, message, resolved_by="watch")
    return record.model_copy(update={"reference": str(reference), "source": f"ConfigMap {name}"})
