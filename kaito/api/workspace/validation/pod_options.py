"""Rules for `podOptions`: fields that the controller owns cannot be set, and mounts name volumes.

The API server checks the complete types in a dry run before a node is created.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kaito.api import labels
from kaito.api.json_values import json_object
from kaito.api.object_names import object_name_problem
from kaito.api.violation import Violation
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.pod_options import PodOptions, PodResources
from kaito.api.workspace.validation.policy import Rule
from kaito.runtime.meta import Quantity

OWN_VARIABLES: Final = frozenset({"DATA_URLS", "HF_HUB_CACHE", "HF_TOKEN"})
OWN_VARIABLE_PREFIX: Final = "KAITO_"

OWN_VOLUMES: Final = frozenset(
    {
        "adapter-list",
        "adapter-store",
        "adapter-volume",
        "config-volume",
        "data-volume",
        "docker-config",
        "dshm",
        "results-volume",
        "tmp",
        "weights",
    }
)
"""Volumes of the controller. Names that begin with one of them and a dash are also reserved."""

OWN_DIRECTORIES: Final = (
    "/dev/shm",  # noqa: S108 - a mount of the pods
    "/mnt/adapter",
    "/mnt/adapter-list",
    "/mnt/adapter-store",
    "/mnt/config",
    "/mnt/data",
    "/mnt/registry",
    "/mnt/results",
    "/workspace",
)
"""Directories of the controller: neither they nor what is below or above them can be mounted over."""

LEAST_MEMORY: Final = Quantity("1Gi")
"""Memory without which no program of the images starts: the modules of PyTorch alone need about that much."""

_WITHOUT_UNIT: Final = Quantity("1Mi")
"""Memory below this was written without a unit, as `memory: 64`."""

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_GPU_PREFIXES: Final = ("nvidia.com/", "amd.com/", "aws.amazon.com/neuron", "gpu.intel.com/")


def pod_options_valid(workspace: Workspace) -> Iterator[Violation]:
    """Checks `podOptions` of the Workspace's preset."""
    if workspace.inference and workspace.inference.preset:
        yield from check_pod_options(workspace.inference.preset.pod_options, "inference.preset.podOptions")
    if workspace.tuning:
        yield from check_pod_options(workspace.tuning.preset.pod_options, "tuning.preset.podOptions")


def check_pod_options(options: PodOptions, path: str) -> Iterator[Violation]:
    """Checks one set of options.

    Args:
        options: the options of a Workspace or of the installation.
        path: path of their field, or the flag that names their file.
    """
    for index, name in enumerate(options.image_pull_secrets):
        if problem := object_name_problem(name, "Secret"):
            yield Violation(f"{path}.imagePullSecrets[{index}]", problem)
    yield from _resources(options.resources, f"{path}.resources")
    yield from _variables(options, f"{path}.env")
    for field, name, kind in (
        ("serviceAccountName", options.service_account_name, "ServiceAccount"),
        ("priorityClassName", options.priority_class_name, "PriorityClass"),
        ("runtimeClassName", options.runtime_class_name, "RuntimeClass"),
    ):
        if name and (problem := object_name_problem(name, kind)):
            yield Violation(f"{path}.{field}", problem)
    yield from _tolerations(options, f"{path}.tolerations")
    yield from _security(options, path)
    yield from _volumes(options.volumes, f"{path}.volumes")
    yield from _mounts(options.volume_mounts, f"{path}.volumeMounts")
    for key in options.labels:
        if labels.is_reserved(key) or labels.is_own(key):
            yield Violation(f"{path}.labels[{key}]", "is set by the controller: remove it")
    for key in options.annotations:
        if labels.is_own(key):
            yield Violation(f"{path}.annotations[{key}]", "is set by the controller: remove it")


def _resources(resources: PodResources, path: str) -> Iterator[Violation]:
    for part, amounts in (("requests", resources.requests), ("limits", resources.limits)):
        for name, amount in amounts.items():
            if name.startswith(_GPU_PREFIXES):
                message = "is set by the controller, which plans the GPUs of the model: remove it"
                yield Violation(f"{path}.{part}[{name}]", message)
            elif amount < Quantity(0):
                yield Violation(f"{path}.{part}[{name}]", f"is {amount}: an amount cannot be negative")
            elif name == "memory" and amount < _WITHOUT_UNIT:
                message = f"is {float(amount):g} bytes: write a unit, for example 64Gi"
                yield Violation(f"{path}.{part}[{name}]", message)
    memory = resources.limits.get("memory")
    if memory is not None and _WITHOUT_UNIT <= memory < LEAST_MEMORY:
        message = f"is {memory}, and a server needs at least {LEAST_MEMORY} to start: raise it, or remove it"
        yield Violation(f"{path}.limits[memory]", message)
    for name, requested in resources.requests.items():
        limit = resources.limits.get(name)
        if limit is not None and requested > limit:
            message = f"is {requested}, more than the limit {limit}: lower it, or raise the limit"
            yield Violation(f"{path}.requests[{name}]", message)


def _variables(options: PodOptions, path: str) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, variable in enumerate(options.env):
        name, where = variable.name, f"{path}[{index}].name"
        if not name or "=" in name:
            yield Violation(where, f"{name!r} is not the name of an environment variable")
        elif name in OWN_VARIABLES or name.startswith(OWN_VARIABLE_PREFIX):
            hint = ": name the Secret in presetOptions.modelAccessSecret" if name == "HF_TOKEN" else ": remove it"
            yield Violation(where, f"{name!r} is set by the controller{hint}")
        elif name in seen:
            yield Violation(where, f"{name!r} is set twice: remove one")
        if variable.value is not None and variable.value_from is not None:
            yield Violation(f"{path}[{index}].valueFrom", "has value and valueFrom: remove one")
        seen.add(name)


def _tolerations(options: PodOptions, path: str) -> Iterator[Violation]:
    for index, toleration in enumerate(options.tolerations):
        if not toleration.key and toleration.operator != "Exists":
            yield Violation(f"{path}[{index}].key", "is empty: name the taint, or set operator to Exists")
        if toleration.operator == "Exists" and toleration.value:
            yield Violation(f"{path}[{index}].value", "has no effect with operator Exists: remove it")


def _security(options: PodOptions, path: str) -> Iterator[Violation]:
    """Checks that root is allowed where it is requested: the kubelet rejects the pod otherwise."""
    for field, context in (
        ("podSecurityContext", json_object(options.pod_security_context)),
        ("securityContext", json_object(options.security_context)),
    ):
        both = {**json_object(options.pod_security_context), **context}
        if context.get("runAsUser") == 0 and both.get("runAsNonRoot") is not False:
            yield Violation(f"{path}.{field}.runAsUser", "is 0: set runAsNonRoot to false there, or use another user")


def _volumes(volumes: Sequence[Mapping[str, Any]], path: str) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        name = volume.get("name")
        where = f"{path}[{index}].name"
        if not isinstance(name, str) or not _DNS_LABEL.fullmatch(name):
            yield Violation(where, f"{name!r} is not a name: use at most 63 lower-case letters, digits and '-'")
        elif name in OWN_VOLUMES or name.startswith(tuple(f"{own}-" for own in OWN_VOLUMES)):
            yield Violation(where, f"{name!r} is a volume of the controller: use another name")
        elif name in seen:
            yield Violation(where, f"{name!r} is used twice: give each its own name")
        else:
            seen.add(name)
            if set(volume) == {"name"}:
                yield Violation(f"{path}[{index}]", "has no source: set one, for example persistentVolumeClaim")


def _mounts(mounts: Sequence[Mapping[str, Any]], path: str) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        directory = mount.get("mountPath")
        where = f"{path}[{index}].mountPath"
        if not isinstance(directory, str) or not directory.startswith("/"):
            yield Violation(where, f"{directory!r} is not an absolute path in the container")
            continue
        directory = "/" + "/".join(part for part in directory.split("/") if part)
        own = next((own for own in OWN_DIRECTORIES if _overlap(directory, own)), "")
        if own or directory == "/tmp":  # noqa: S108 - a mount of the pods
            message = f"{directory} hides {own or directory}, which the controller mounts: use another directory"
            yield Violation(where, message)
        elif directory in seen:
            yield Violation(where, f"{directory} is mounted twice: remove one")
        seen.add(directory)


def _overlap(one: str, other: str) -> bool:
    """Whether one directory is the other, or below it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one.rstrip('/')}/")


RULES: Final = (Rule.always("pod-options-valid", pod_options_valid),)
