"""Installs Kaito's kinds on the control plane of a benchmark."""

import asyncio

from hack.envtest import ControlPlane
from kaito.api import crds
from kaito.runtime.client import connect
from kaito.runtime.kinds import CustomResourceDefinition


async def install_definitions(control_plane: ControlPlane) -> None:
    """Installs the CustomResourceDefinitions, and waits until their kinds are served."""
    async with connect(control_plane.kubeconfig, field_manager="bench", user_agent="bench/1") as client:
        for definition in crds.manifests():
            await client.apply(CustomResourceDefinition.model_validate(definition))
    await asyncio.sleep(1.0)  # the API server publishes new types within a second
