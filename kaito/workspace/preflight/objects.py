"""Checks that every object that a pod of the workload uses exists and has the key that is read.

A pod that mounts a missing Secret waits for it on a GPU node that costs money, and only Events report the cause.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, final

from kaito.api import Workspace, conditions
from kaito.api.json_values import json_list, json_object
from kaito.api.references import matches_registry, registry_of
from kaito.api.workspace import PodOptions
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.meta import Resource
from kaito.workspace.classes import BUILT_IN
from kaito.workspace.ownership import name_conflict_message
from kaito.workspace.pod_options import DEFAULTS
from kaito.workspace.preflight.context import ClusterReader, LookupUnavailable, PreflightContext
from kaito.workspace.preflight.finding import Finding

DOCKER_CONFIG: Final = ".dockerconfigjson"
TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the key's name, not a token

Kind = Literal["Secret", "ConfigMap", "PersistentVolumeClaim", "ServiceAccount", "PriorityClass", "RuntimeClass"]

_REASONS: Final[dict[Kind, str]] = {"Secret": conditions.SECRET_NOT_FOUND, "ConfigMap": conditions.CONFIG_NOT_FOUND}
"""Reason of a missing object by kind; WorkloadRefused for other kinds."""

_KEY_REFERENCES: Final[dict[str, Kind]] = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}
_REFERENCES: Final[dict[str, Kind]] = {"secretRef": "Secret", "configMapRef": "ConfigMap"}

_DRIVER_SECRETS: Final = ("secretRef", "nodePublishSecretRef", "nodeStageSecretRef")
"""Fields of volume sources that name a Secret: those of csi, cephfs, flexVolume, iscsi, rbd, scaleIO and storageos."""

_REMEDY: Final = "create it with kubectl create secret docker-registry"


@final
@dataclass(frozen=True, slots=True)
class Use:
    """A reference of a pod to another object."""

    field: str
    kind: Kind
    name: str
    key: str = ""
    """The key that is read; empty for all of them."""
    credentials: bool = False
    """Whether the key must contain registry credentials."""
    image: str = ""
    """The image that the credentials push; empty if they only pull."""


async def used(ctx: PreflightContext) -> Iterable[Finding]:
    """Checks that each object that the pods use exists and has the key."""
    found: dict[tuple[str, str], Resource | None] = {}
    problems: list[Finding] = []
    unknown: set[tuple[str, str]] = set()
    for use in dict.fromkeys(uses(ctx.workspace, ctx.settings.pod_defaults)):
        identity = (use.kind, use.name)
        if identity not in found and identity not in unknown:
            try:
                found[identity] = await _read(ctx.cluster, use)
            except LookupUnavailable:
                unknown.add(identity)
        if identity in unknown:
            continue
        problems.extend(_problem(use, found[identity], ctx.workspace))
    return problems


async def _read(cluster: ClusterReader, use: Use) -> Resource | None:
    """Reads the object.

    Raises:
        LookupUnavailable: it cannot be looked up.
    """
    match use.kind:
        case "Secret":
            return await cluster.secret(use.name)
        case "ConfigMap":
            return await cluster.config_map(use.name)
        case "PersistentVolumeClaim":
            return await cluster.volume_claim(use.name)
        case "ServiceAccount":
            return await cluster.service_account(use.name)
        case "PriorityClass" | "RuntimeClass":
            return await cluster.named_class(use.kind, use.name)


def uses(workspace: Workspace, defaults: PodOptions) -> Iterator[Use]:
    """Returns every required use, with the field or flag in which the object is named."""
    inference, tuning = workspace.inference, workspace.tuning
    preset = inference.preset if inference else tuning.preset if tuning else None
    path = "inference.preset" if inference else "tuning.preset"
    if preset is not None:
        options = preset.preset_options
        yield from _use(f"{path}.presetOptions.modelFacts", "ConfigMap", options.model_facts)
        if options.model_access_secret:
            yield Use(f"{path}.presetOptions.modelAccessSecret", "Secret", options.model_access_secret, TOKEN)
        yield from _pulls(f"{path}.presetOptions.imagePullSecrets", options.image_pull_secrets)
        claim = options.weights.cache_claim
        yield from _use(f"{path}.presetOptions.weights.cacheClaim", "PersistentVolumeClaim", claim)
        yield from _of_options(preset.pod_options, f"{path}.podOptions")
        yield from _of_options(defaults, DEFAULTS)
    if inference is not None:
        for index, adapter in enumerate(inference.adapters):
            source = f"inference.adapters[{index}].source"
            yield from _pulls(f"{source}.imagePullSecrets", adapter.source.image_pull_secrets)
            yield from _volume(f"{source}.volumeSource", adapter.source.volume_source)
        yield from _of_template(json_object(json_object(inference.template).get("spec")))
    if tuning is not None:
        yield from _pulls("tuning.input.imagePullSecrets", tuning.input.image_pull_secrets)
        yield from _volume("tuning.input.volumeSource", tuning.input.volume_source)
        yield from _volume("tuning.output.volumeSource", tuning.output.volume_source)
        if tuning.output.image_push_secret:
            field, name = "tuning.output.imagePushSecret", tuning.output.image_push_secret
            yield Use(field, "Secret", name, DOCKER_CONFIG, credentials=True, image=tuning.output.image)


def _pulls(field: str, names: Iterable[str]) -> Iterator[Use]:
    for index, name in enumerate(names):
        yield Use(f"{field}[{index}]", "Secret", name, DOCKER_CONFIG, credentials=True)


def _of_template(spec: dict[str, Any]) -> Iterator[Use]:
    """Returns what a pod template uses."""
    path = "inference.template.spec"
    for index, reference in enumerate(json_list(spec.get("imagePullSecrets"))):
        yield from _use(f"{path}.imagePullSecrets[{index}].name", "Secret", json_object(reference).get("name"))
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account != "default":
        yield from _use(f"{path}.serviceAccountName", "ServiceAccount", account)
    yield from _classes(path, spec.get("priorityClassName"), spec.get("runtimeClassName"))
    for index, volume in enumerate(json_list(spec.get("volumes"))):
        yield from _volume(f"{path}.volumes[{index}]", json_object(volume))
    for part in ("initContainers", "containers"):
        for index, container in enumerate(json_list(spec.get(part))):
            yield from _environment(f"{path}.{part}[{index}]", json_object(container))


def _of_options(options: PodOptions, path: str) -> Iterator[Use]:
    """Returns what the options of a preset's pods use."""
    yield from _pulls(f"{path}.imagePullSecrets", options.image_pull_secrets)
    if options.service_account_name != "default":
        yield from _use(f"{path}.serviceAccountName", "ServiceAccount", options.service_account_name)
    yield from _classes(path, options.priority_class_name, options.runtime_class_name)
    for index, volume in enumerate(options.volumes):
        yield from _volume(f"{path}.volumes[{index}]", volume)
    yield from _environment(path, {"env": [variable.to_dict() for variable in options.env]})


def _classes(path: str, priority: Any, runtime: Any) -> Iterator[Use]:
    """Returns the classes without which the API server rejects the pods."""
    if priority not in BUILT_IN:
        yield from _use(f"{path}.priorityClassName", "PriorityClass", priority)
    yield from _use(f"{path}.runtimeClassName", "RuntimeClass", runtime)


def _environment(path: str, container: dict[str, Any]) -> Iterator[Use]:
    for index, variable in enumerate(json_list(container.get("env"))):
        source = json_object(json_object(variable).get("valueFrom"))
        for name, kind in _KEY_REFERENCES.items():
            reference = json_object(source.get(name))
            yield from _reference(f"{path}.env[{index}].valueFrom.{name}", kind, reference, "name")
    for index, source in enumerate(json_list(container.get("envFrom"))):
        for name, kind in _REFERENCES.items():
            reference = json_object(json_object(source).get(name))
            yield from _reference(f"{path}.envFrom[{index}].{name}", kind, reference, "name")


def _volume(path: str, volume: dict[str, Any] | None) -> Iterator[Use]:
    source = json_object(volume)
    yield from _reference(f"{path}.secret", "Secret", json_object(source.get("secret")), "secretName")
    yield from _reference(f"{path}.configMap", "ConfigMap", json_object(source.get("configMap")), "name")
    claim = json_object(source.get("persistentVolumeClaim"))
    yield from _use(f"{path}.persistentVolumeClaim.claimName", "PersistentVolumeClaim", claim.get("claimName"))
    share = json_object(source.get("azureFile"))
    yield from _use(f"{path}.azureFile.secretName", "Secret", share.get("secretName"))
    for driver, raw in source.items():
        for name in _DRIVER_SECRETS:
            yield from _use(
                f"{path}.{driver}.{name}.name", "Secret", json_object(json_object(raw).get(name)).get("name")
            )
    projected = json_object(source.get("projected"))
    for index, each in enumerate(json_list(projected.get("sources"))):
        part = json_object(each)
        where = f"{path}.projected.sources[{index}]"
        yield from _reference(f"{where}.secret", "Secret", json_object(part.get("secret")), "name")
        yield from _reference(f"{where}.configMap", "ConfigMap", json_object(part.get("configMap")), "name")


def _reference(path: str, kind: Kind, reference: dict[str, Any], name: str) -> Iterator[Use]:
    """Returns the uses of a reference and its keys; none if the reference is optional."""
    if not reference or reference.get("optional") is True:
        return
    keys = [json_object(item).get("key") for item in json_list(reference.get("items"))] or [reference.get("key")]
    for key in keys:
        yield from _use(f"{path}.{name}", kind, reference.get(name), key)


def _use(field: str, kind: Kind, name: Any, key: Any = "") -> Iterator[Use]:
    if isinstance(name, str) and name:
        yield Use(field, kind, name, key if isinstance(key, str) else "")


def _problem(use: Use, found: Resource | None, workspace: Workspace) -> Iterator[Finding]:
    if found is None:
        message = f"{use.kind} {use.name!r} does not exist in namespace {workspace.namespace}"
        if use.kind in {"PriorityClass", "RuntimeClass"}:
            message = f"{use.kind} {use.name!r} does not exist in the cluster: create it, or name another one"
        yield Finding(_REASONS.get(use.kind, conditions.WORKLOAD_REFUSED), use.field, message, resolved_by="poll")
        return
    if not isinstance(found, Secret | ConfigMap):
        return
    keys = {*found.data, *(found.binary_data if isinstance(found, ConfigMap) else ())}
    if use.key and use.key not in keys:
        message = f"{use.kind} {use.name!r} has no key {use.key!r}"
        if use.key == DOCKER_CONFIG:
            message += f": {_REMEDY}"
        reason = conditions.SECRET_INVALID if use.kind == "Secret" else conditions.CONFIG_NOT_FOUND
        yield Finding(reason, use.field, message, resolved_by="poll")
    elif isinstance(found, Secret) and use.key and (problem := _not_usable(use, found.data[use.key])):
        message = f"key {use.key!r} of Secret {use.name!r} {problem}"
        yield Finding(conditions.SECRET_INVALID, use.field, message, resolved_by="poll")


def _not_usable(use: Use, encoded: str) -> str:
    """Explains why the value of a Secret's key cannot be used, with the remedy; empty if it can.

    The message never contains the value.
    """
    if use.credentials:
        problem = _not_credentials(encoded, use.image)
        return f"{problem}: {_REMEDY}" if problem else ""
    if use.key == TOKEN and not _decoded(encoded).strip():
        return "is empty: store the token of an account that has access to the model"
    if use.key == TOKEN and _decoded(encoded).strip().endswith(b"..."):
        return "is a placeholder: store the token of an account that has access to the model"
    return ""


async def name_conflict(ctx: PreflightContext, config_map: str) -> Finding | None:
    """Returns the problem of a ConfigMap that the controller would write, if one of another owner has its name."""
    found = await ctx.cluster.foreign_config_map(config_map)
    if found is None:
        return None
    return Finding(conditions.NAME_CONFLICT, "metadata.name", name_conflict_message(found), resolved_by="poll")


def token_of(secret: Secret) -> str:
    """Returns the Hugging Face token in a Secret; empty if it has none, or one that a header cannot contain."""
    text = _decoded(secret.data.get(TOKEN, "")).strip().decode("latin-1")
    return text if text.isascii() and text.isprintable() and " " not in text else ""


def docker_config_of(secret: Secret) -> str:
    """Returns the Docker configuration in a Secret; empty if it has none."""
    return _decoded(secret.data.get(DOCKER_CONFIG, "")).decode("utf-8", "replace")


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _not_credentials(encoded: str, image: str = "") -> str:
    """Explains why a value is not a Docker configuration for the registry of `image`; empty if it is one."""
    try:
        document = json.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return "is not JSON"
    if not isinstance(document, dict):
        return "is not a JSON object"
    auths = json_object(cast("object", document)).get("auths", {})
    if not isinstance(auths, dict):
        return "has no object 'auths'"
    entries = cast("dict[str, Any]", auths)
    broken = sorted(registry for registry, entry in entries.items() if not _is_entry(entry))
    if broken:
        return f"has no user name and password for registry {broken[0]!r}"
    if image and entries and not any(matches_registry(key, image) for key in entries):
        return f"has credentials only for {', '.join(sorted(entries))}, but the image is pushed to {registry_of(image)}"
    return ""


def _is_entry(entry: object) -> bool:
    """Whether an entry of `auths` has credentials: a token, a user name, or user and password in `auth`."""
    given = json_object(entry)
    if any(given.get(name) for name in ("identitytoken", "registrytoken", "username")):
        return True
    return b":" in _decoded(str(given.get("auth", "")))
