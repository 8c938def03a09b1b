"""Checks the structure of pod templates and volume sources: types, misspelled fields, fields that are not allowed.

The API server checks the complete types in a dry run. These checks also run without a server.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from kaito.api import Workspace, conditions
from kaito.api.json_values import json_list, json_object, without_nulls
from kaito.api.workspace import PodOptions
from kaito.runtime.kinds import (
    Container,
    ContainerPort,
    PodSecurityContext,
    PodSpec,
    PodTemplateSpec,
    Probe,
    SecurityContext,
    Volume,
    VolumeMount,
)
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.preflight.pod_rules import pod_rules
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.weights import preset_spec

_TEMPLATE: Final = "inference.template"

_CUTOFF: Final = 0.8
"""Similarity (difflib's ratio) from which an unknown field is reported as misspelled. The dry run reports others."""

MAX_VALUES: Final = 10_000
"""Maximum number of values in a pod template, so that checks of a huge one do not block the controller."""

_MAX_NAMES: Final = 50
"""Number of unknown fields of one object that are compared with the known ones."""


def structure(workspace: Workspace, settings: WorkspaceSettings) -> Iterator[Finding]:  # noqa: ARG001 - a check's signature
    """Checks that the pod template and the volume sources have the structure of their types."""
    inference, tuning = workspace.inference, workspace.tuning
    if inference is not None and inference.template is not None:
        yield from _template(without_nulls(inference.template))
    for index, adapter in enumerate(inference.adapters if inference else ()):
        yield from _volume(f"inference.adapters[{index}].source.volumeSource", adapter.source.volume_source)
    found = preset_spec(workspace)
    if found is not None:
        spec, path = found
        yield from _pod_options(spec.pod_options, f"{path}.podOptions")
    if tuning is not None:
        yield from _volume("tuning.input.volumeSource", tuning.input.volume_source)
        yield from _volume("tuning.output.volumeSource", tuning.output.volume_source)


def _template(template: Mapping[str, Any]) -> Iterator[Finding]:
    if _has_more_values(template, MAX_VALUES):
        message = f"has more than {MAX_VALUES} values: remove some, or put them into a ConfigMap"
        yield Finding(conditions.WORKLOAD_REFUSED, _TEMPLATE, message)
        return
    wrong = [*_types(PodTemplateSpec, template, _TEMPLATE)]
    yield from wrong
    if wrong:
        return
    spec = json_object(template.get("spec"))
    path = f"{_TEMPLATE}.spec"
    yield from _names(spec, _fields(PodSpec), path)
    if spec.get("restartPolicy", "Always") != "Always":
        message = f"{spec['restartPolicy']!r} is not allowed: pods of a StatefulSet always restart, remove it"
        yield Finding(conditions.WORKLOAD_REFUSED, f"{path}.restartPolicy", message)
    for part in ("initContainers", "containers"):
        for index, container in enumerate(json_list(spec.get(part))):
            yield from _container(json_object(container), f"{path}.{part}[{index}]")
    for index, volume in enumerate(json_list(spec.get("volumes"))):
        yield from _names(json_object(volume), _fields(Volume), f"{path}.volumes[{index}]")
    yield from pod_rules(template, _TEMPLATE)


def _container(container: Mapping[str, Any], path: str) -> Iterator[Finding]:
    yield from _names(container, _fields(Container), path)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield from _names(json_object(container.get(probe)), _fields(Probe), f"{path}.{probe}")
    for index, port in enumerate(json_list(container.get("ports"))):
        yield from _names(json_object(port), _fields(ContainerPort), f"{path}.ports[{index}]")
    if not container.get("image"):
        yield Finding(
            conditions.WORKLOAD_REFUSED, f"{path}.image", "is missing: name the image that the container runs"
        )


def _pod_options(options: PodOptions, path: str) -> Iterator[Finding]:
    """Checks the types of the objects in `podOptions`; its own fields have a schema."""
    for index, volume in enumerate(options.volumes):
        source = {name: value for name, value in volume.items() if name != "name"}
        if source:
            yield from _volume(f"{path}.volumes[{index}]", source)
    for index, mount in enumerate(options.volume_mounts):
        yield from _types(VolumeMount, without_nulls(mount), f"{path}.volumeMounts[{index}]")
    for field, model, given in (
        ("podSecurityContext", PodSecurityContext, options.pod_security_context),
        ("securityContext", SecurityContext, options.security_context),
    ):
        yield from _types(model, without_nulls(given or {}), f"{path}.{field}")


def _volume(path: str, source: Mapping[str, Any] | None) -> Iterator[Finding]:
    if not source:
        return
    source = without_nulls(source)
    if not source:
        yield Finding(conditions.WORKLOAD_REFUSED, path, "has no source: set one, for example persistentVolumeClaim")
        return
    kinds = _fields(Volume) - {"name"}
    if "name" in source:
        yield Finding(conditions.WORKLOAD_REFUSED, f"{path}.name", "is set by the controller: remove it")
    yield from _types(Volume, {**source, "name": "volume"}, path)
    yield from _names(source, _fields(Volume), path)
    known = [kind for kind in source if kind in kinds]
    if len(known) > 1:
        yield Finding(
            conditions.WORKLOAD_REFUSED, path, f"has {' and '.join(known)}: a volume has one source, remove the others"
        )


def _types(model: type[BaseModel], value: Mapping[str, Any], path: str) -> Iterator[Finding]:
    """Reports values of the wrong type, by the typed models of the Kubernetes kinds."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False)[:5]:
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
            message = detail["msg"].replace("Input should be", "should be").split(" or instance of ")[0]
            found = repr(detail["input"])
            message = f"{message}, found {found if len(found) <= 60 else found[:57] + '...'}"
            if detail["type"] == "missing":
                message = "is missing"
            yield Finding(conditions.WORKLOAD_REFUSED, f"{path}{where}", message)


def _names(value: Mapping[str, Any], known: frozenset[str], path: str) -> Iterator[Finding]:
    """Reports unknown names that are similar to a field."""
    for name in islice((name for name in value if name not in known), _MAX_NAMES):
        near = get_close_matches(name, known, n=1, cutoff=_CUTOFF)
        if near:
            yield Finding(conditions.WORKLOAD_REFUSED, f"{path}.{name}", f"is not a field, did you mean {near[0]}?")


def _has_more_values(value: object, limit: int) -> bool:
    """Whether a JSON value contains more than `limit` values."""
    waiting, count = [value], 0
    while waiting and count <= limit:
        found = waiting.pop()
        inner = list(json_object(found).values()) or json_list(found)
        count += len(inner)
        waiting += inner
    return count > limit


def _fields(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in model.model_fields.items())
