"""Merges `podOptions` of a Workspace with the defaults of the installation."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import yaml
from pydantic import ValidationError

from kaito.api import Workspace
from kaito.api.json_values import json_object, without_nulls
from kaito.api.violation import Violation
from kaito.api.workspace import PodOptions
from kaito.api.workspace.validation.pod_options import check_pod_options
from kaito.runtime.meta import Model
from kaito.workspace.weights import preset_spec

DEFAULTS: Final = "--pod-defaults"
"""Flag of the file with the defaults: their path in messages."""

NO_OPTIONS: Final = PodOptions()

T = TypeVar("T")


def pod_options(workspace: Workspace, defaults: PodOptions) -> PodOptions:
    """Returns the options of the Workspace's pods: its own over the defaults; the defaults for a pod template."""
    found = preset_spec(workspace)
    return defaults if found is None else merge_options(defaults, found[0].pod_options)


def pull_secrets(workspace: Workspace, defaults: PodOptions) -> tuple[str, ...]:
    """Returns the pull secrets of the Workspace's pods: for their images, and for everything that they pull."""
    found = preset_spec(workspace)
    own = found[0].preset_options.image_pull_secrets if found is not None else ()
    return tuple(dict.fromkeys((*own, *pod_options(workspace, defaults).image_pull_secrets)))


def merge_options(defaults: PodOptions, own: PodOptions) -> PodOptions:
    """Returns both options. Where both set the same name, key or directory, `own` takes precedence."""
    return PodOptions(
        image_pull_secrets=[*dict.fromkeys((*own.image_pull_secrets, *defaults.image_pull_secrets))],
        resources=defaults.resources.evolve(
            requests={**defaults.resources.requests, **own.resources.requests},
            limits={**defaults.resources.limits, **own.resources.limits},
        ),
        env=_by(lambda variable: variable.name, defaults.env, own.env),
        service_account_name=own.service_account_name or defaults.service_account_name,
        tolerations=_by(lambda toleration: repr(toleration.to_dict()), defaults.tolerations, own.tolerations),
        node_selector={**defaults.node_selector, **own.node_selector},
        pod_security_context=_merged(defaults.pod_security_context, own.pod_security_context),
        security_context=_merged(defaults.security_context, own.security_context),
        volumes=_by(lambda volume: str(volume.get("name")), defaults.volumes, own.volumes),
        volume_mounts=_by(lambda mount: str(mount.get("mountPath")), defaults.volume_mounts, own.volume_mounts),
        priority_class_name=own.priority_class_name or defaults.priority_class_name,
        runtime_class_name=own.runtime_class_name or defaults.runtime_class_name,
        labels={**defaults.labels, **own.labels},
        annotations={**defaults.annotations, **own.annotations},
    )


def read_defaults(file: Path) -> PodOptions:
    """Reads the defaults of the installation from a YAML file.

    Raises:
        ValueError: the file cannot be read, or contains something that is not an option; with the field and the remedy.
    """
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{DEFAULTS}: {file} cannot be read: {error}") from error
    if document is None:
        return PodOptions()
    if not isinstance(document, dict):
        message = f"{DEFAULTS}: {file} does not contain podOptions: it must be a YAML mapping"
        raise ValueError(message)  # noqa: TRY004 - the content of a file is a value
    given: dict[str, Any] = without_nulls(cast("dict[str, Any]", document))
    unknown = sorted(str(name) for name in given if name not in _FIELDS)
    if unknown:
        raise ValueError(
            f"{DEFAULTS}: {file}: {unknown[0]} is not a field of podOptions: use {', '.join(sorted(_FIELDS))}"
        )
    try:
        options = PodOptions.model_validate(given)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in detail["loc"])
        raise ValueError(f"{DEFAULTS}: {file}: {where}: {detail['msg']}") from error
    extra = next(_unknown_fields(options, ""), "")
    if extra:
        raise ValueError(f"{DEFAULTS}: {file}: {extra.removeprefix('.')} is not a field: remove it")
    violation = next(check_pod_options(options, ""), None) or next(mount_problems(options, ""), None)
    if violation is not None:
        raise ValueError(f"{DEFAULTS}: {file}: {violation.field.removeprefix('.')}: {violation.message}")
    return options


def mount_problems(options: PodOptions, path: str, defaults: PodOptions = NO_OPTIONS) -> Iterator[Violation]:
    """Returns the mounts whose volume does not exist. Mounts may name volumes of the installation's defaults."""
    volumes = {volume.get("name") for volume in (*defaults.volumes, *options.volumes)}
    for index, mount in enumerate(options.volume_mounts):
        if mount.get("name") not in volumes:
            message = f"{mount.get('name')!r} is not a volume of podOptions: add it to volumes"
            yield Violation(f"{path}.volumeMounts[{index}].name", message)


def _unknown_fields(model: Model, path: str) -> Iterator[str]:
    """Returns the paths of fields that the model and the models in it do not have."""
    yield from (f"{path}.{name}" for name in model.model_extra or {})
    for name, value in model:
        values: Iterable[object] = cast("list[object]", value) if isinstance(value, list) else [value]
        for each in values:
            if isinstance(each, Model):
                yield from _unknown_fields(each, f"{path}.{name}")


_FIELDS: Final = frozenset(field.alias or name for name, field in PodOptions.model_fields.items())


def _by(key: Callable[[T], Hashable], defaults: Iterable[T], own: Iterable[T]) -> list[T]:
    """Returns both lists without duplicates by key; an element of `own` takes the place of the default."""
    return [*{key(each): each for each in (*defaults, *own)}.values()]


def _merged(defaults: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> dict[str, Any] | None:
    both = {**json_object(defaults), **json_object(own)}
    return both or None
