"""Reads the settings of the workspace-controller that runs in a cluster, from its Deployment.

The settings change the plan: kind of claims, images, sources of weights, defaults of pods.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from kaito.planning.documents import InputError
from kaito.runtime.client import Client
from kaito.runtime.errors import Forbidden
from kaito.runtime.kinds import Deployment
from kaito.workspace.flags import Invocation, parse

SELECTOR: Final = "app.kubernetes.io/name=workspace-controller"

_FILES: Final = ("--pod-defaults", "--price-table")
"""Flags that name files of the controller's pod."""


@final
@dataclass(frozen=True, slots=True)
class Installed:
    """The controller's command line, and what is not known about it."""

    invocation: Invocation
    notes: tuple[str, ...] = ()


async def installed_settings(client: Client) -> Installed:
    """Returns the settings of the controller of the cluster; the defaults with a note if it is not found.

    Raises:
        InputError: its flags are not those of this version.
        ApiError: the cluster cannot be read.
    """
    try:
        found = await client.list(Deployment, labels=SELECTOR)
    except Forbidden as error:
        return _defaults(f"the controller's Deployment cannot be read: {error.message}")
    return settings_of(found)


def settings_of(found: Sequence[Deployment]) -> Installed:
    """Returns the settings in the Deployment of the controller; the defaults with a note if there is not one.

    Raises:
        InputError: its flags are not those of this version.
    """
    if len(found) != 1:
        return _defaults(f"{len(found) or 'no'} Deployments have the label {SELECTOR}")
    deployment = found[0]
    containers = deployment.spec.template.spec.containers
    if not containers:
        return _defaults(f"Deployment {deployment.key} has no container")
    container = containers[0]
    flags, notes = _without_files(container.args or [])
    environment = {variable.name: variable.value for variable in container.env or [] if variable.value}
    environment["POD_NAMESPACE"] = deployment.namespace
    try:
        return Installed(parse(flags, environment), tuple(notes))
    except SystemExit as error:
        message = f"the flags of Deployment {deployment.key} are not those of this version: pass flags after --"
        raise InputError(message) from error


def _defaults(why: str) -> Installed:
    note = f"the defaults of the controller's settings are assumed, because {why}: pass its flags after --"
    return Installed(parse([], {}), (note,))


def _without_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the flags without those that name files, and a note for each of these."""
    flags: list[str] = []
    notes: list[str] = []
    is_value = False
    for argument in arguments:
        name, separator, _ = argument.partition("=")
        if is_value:
            is_value = False
        elif name in _FILES:
            is_value = not separator
            notes.append(f"{name} of the controller names a file of its pod, which was not read")
        else:
            flags.append(argument)
    return flags, notes
