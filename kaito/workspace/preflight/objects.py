"""Checks that every Secret and ConfigMap that a pod of the workload uses exists and has the key that is read.

A pod that mounts an absent Secret waits for it on a paid node, and only its events say so.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, final

from kaito.api import Workspace, conditions as words
from kaito.api.raw import json_list, json_object
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.workspace.preflight.examination import Examination, Unknown
from kaito.workspace.preflight.finding import Finding

DOCKER_CONFIG: Final = ".dockerconfigjson"
TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the key's name, not a token

_REMEDY: Final = "create it with kubectl create secret docker-registry"


@final
@dataclass(frozen=True, slots=True)
class Use:
    """One use of an object by a pod."""

    field: str
    kind: Literal["Secret", "ConfigMap"]
    name: str
    key: str = ""
    """The key that is read; empty for all of them."""
    credentials: bool = False
    """Whether the key has to hold registry credentials."""


async def used(examination: Examination) -> Iterable[Finding]:
    """Each object that the pods use exists and has the key."""
    found: dict[tuple[str, str], Secret | ConfigMap | None] = {}
    problems: list[Finding] = []
    unknown: set[tuple[str, str]] = set()
    for use in dict.fromkeys(uses(examination.workspace)):
        identity = (use.kind, use.name)
        if identity not in found and identity not in unknown:
            cluster = examination.cluster
            reading = cluster.secret(use.name) if use.kind == "Secret" else cluster.config_map(use.name)
            try:
                found[identity] = await reading
            except Unknown:
                unknown.add(identity)
        if identity in unknown:
            continue
        problems.extend(_problem(use, found[identity], examination.workspace))
    return problems


def uses(workspace: Workspace) -> Iterator[Use]:
    """Every required use, by the field in which the user names the object."""
    inference, tuning = workspace.inference, workspace.tuning
    preset = inference.preset if inference else tuning.preset if tuning else None
    path = "inference.preset" if inference else "tuning.preset"
    if preset is not None:
        options = preset.preset_options
        if options.model_access_secret:
            yield Use(f"{path}.presetOptions.modelAccessSecret", "Secret", options.model_access_secret, TOKEN)
        yield from _pulls(f"{path}.presetOptions.imagePullSecrets", options.image_pull_secrets)
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
            yield Use("tuning.output.imagePushSecret", "Secret", tuning.output.image_push_secret, DOCKER_CONFIG, True)  # noqa: FBT003


def _pulls(field: str, names: Iterable[str]) -> Iterator[Use]:
    for index, name in enumerate(names):
        yield Use(f"{field}[{index}]", "Secret", name, DOCKER_CONFIG, credentials=True)


def _of_template(spec: dict[str, Any]) -> Iterator[Use]:
    """What the user's own pod template uses."""
    path = "inference.template.spec"
    for index, reference in enumerate(json_list(spec.get("imagePullSecrets"))):
        yield from _use(f"{path}.imagePullSecrets[{index}].name", "Secret", json_object(reference).get("name"))
    for index, volume in enumerate(json_list(spec.get("volumes"))):
        yield from _volume(f"{path}.volumes[{index}]", json_object(volume))
    for part in ("initContainers", "containers"):
        for index, container in enumerate(json_list(spec.get(part))):
            yield from _environment(f"{path}.{part}[{index}]", json_object(container))


def _environment(path: str, container: dict[str, Any]) -> Iterator[Use]:
    for index, variable in enumerate(json_list(container.get("env"))):
        source = json_object(json_object(variable).get("valueFrom"))
        for name, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            reference = json_object(source.get(name))
            yield from _reference(f"{path}.env[{index}].valueFrom.{name}", kind, reference, "name")
    for index, source in enumerate(json_list(container.get("envFrom"))):
        for name, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
            reference = json_object(json_object(source).get(name))
            yield from _reference(f"{path}.envFrom[{index}].{name}", kind, reference, "name")


def _volume(path: str, volume: dict[str, Any] | None) -> Iterator[Use]:
    source = json_object(volume)
    yield from _reference(f"{path}.secret", "Secret", json_object(source.get("secret")), "secretName")
    yield from _reference(f"{path}.configMap", "ConfigMap", json_object(source.get("configMap")), "name")
    projected = json_object(source.get("projected"))
    for index, each in enumerate(json_list(projected.get("sources"))):
        part = json_object(each)
        where = f"{path}.projected.sources[{index}]"
        yield from _reference(f"{where}.secret", "Secret", json_object(part.get("secret")), "name")
        yield from _reference(f"{where}.configMap", "ConfigMap", json_object(part.get("configMap")), "name")


def _reference(path: str, kind: str, reference: dict[str, Any], name: str) -> Iterator[Use]:
    """A reference with optional keys; an optional reference is no need."""
    if not reference or reference.get("optional") is True:
        return
    keys = [json_object(item).get("key") for item in json_list(reference.get("items"))] or [reference.get("key")]
    for key in keys:
        yield from _use(f"{path}.{name}", kind, reference.get(name), key)


def _use(field: str, kind: str, name: Any, key: Any = "") -> Iterator[Use]:
    if isinstance(name, str) and name:
        yield Use(field, "Secret" if kind == "Secret" else "ConfigMap", name, key if isinstance(key, str) else "")


def _problem(use: Use, found: Secret | ConfigMap | None, workspace: Workspace) -> Iterator[Finding]:
    if found is None:
        message = f"{use.kind} {use.name!r} does not exist in namespace {workspace.namespace}"
        reason = words.SECRET_NOT_FOUND if use.kind == "Secret" else words.CONFIG_NOT_FOUND
        yield Finding(reason, use.field, message, cure="polled")
        return
    keys = {*found.data, *(found.binary_data if isinstance(found, ConfigMap) else ())}
    if use.key and use.key not in keys:
        message = f"{use.kind} {use.name!r} has no key {use.key!r}"
        if use.key == DOCKER_CONFIG:
            message += f": {_REMEDY}"
        reason = words.SECRET_INVALID if use.kind == "Secret" else words.CONFIG_NOT_FOUND
        yield Finding(reason, use.field, message, cure="polled")
    elif use.credentials and isinstance(found, Secret) and (problem := _not_credentials(found.data[use.key])):
        message = (
            f"key {use.key!r} of Secret {use.name!r} {problem}: create it with kubectl create secret docker-registry"
        )
        yield Finding(words.SECRET_INVALID, use.field, message, cure="polled")


def _not_credentials(encoded: str) -> str:
    """Why a value is no Docker configuration; empty when it is one. The value itself is never shown."""
    try:
        document = json.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return "is not JSON"
    if not isinstance(document, dict):
        return "is not a JSON object"
    credentials = json_object(cast("object", document))
    return "" if isinstance(credentials.get("auths", {}), dict) else "has no object auths"
