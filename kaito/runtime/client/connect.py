"""Finds the cluster configuration of this process, and connects scripts and tools that are not a manager."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from pathlib import Path

from kaito.runtime.client.client import Client
from kaito.runtime.client.config import ClusterConfig, in_cluster_config
from kaito.runtime.errors import ConfigurationError


@contextlib.asynccontextmanager
async def connect(
    kubeconfig: Path | None = None, *, context: str = "", field_manager: str, user_agent: str = ""
) -> AsyncGenerator[Client]:
    """A client for the length of the body.

    Args:
        kubeconfig: cluster and credentials; without it `$KUBECONFIG`, `~/.kube/config`, or the pod's service account.
        context: context of the kubeconfig; its current one by default.
        field_manager: the name under which the server records changes.
        user_agent: as the server logs it; the field manager by default.

    Raises:
        ConfigurationError: there is no cluster to talk to; the message names the places looked at.
    """
    from kaito.runtime.client.http import HttpTransport  # only who connects pays for the network

    transport = HttpTransport(await find_cluster_config(kubeconfig, context))
    try:
        yield Client(transport, field_manager=field_manager, user_agent=user_agent)
    finally:
        await transport.close()


async def find_cluster_config(
    kubeconfig: Path | None = None,
    context: str = "",
    *,
    environment: Mapping[str, str] = os.environ,
    strict_x509: bool = False,
) -> ClusterConfig:
    """The access to use: the given kubeconfig, `$KUBECONFIG`, the pod's own, `~/.kube/config`, in this order.

    `$POD_NAMESPACE`, which manifests set by the downward API, names the namespace of this process whichever it is.

    Raises:
        ConfigurationError: none exists, or the one found is not usable.
    """
    access = await _find_cluster_config(kubeconfig, context, environment, strict_x509=strict_x509)
    namespace = environment.get("POD_NAMESPACE", "").strip()
    return replace(access, namespace=namespace) if namespace else access


async def _find_cluster_config(
    kubeconfig: Path | None, context: str, environment: Mapping[str, str], *, strict_x509: bool
) -> ClusterConfig:
    # Imported here: only outside of pods is there a kubeconfig to read.
    from kaito.runtime.client.kubeconfig import load_kubeconfig

    named = str(kubeconfig) if kubeconfig is not None else environment.get("KUBECONFIG", "")
    if named:
        return await load_kubeconfig(named, context, environment=environment, strict_x509=strict_x509)
    if not context and (access := in_cluster_config(environment, strict_x509=strict_x509)) is not None:
        return access
    if home := await asyncio.to_thread(_home_kubeconfig):
        return await load_kubeconfig(home, context, environment=environment, strict_x509=strict_x509)
    message = "no way to a cluster: not inside a pod, KUBECONFIG is not set, and ~/.kube/config does not exist"
    raise ConfigurationError(message)


def _home_kubeconfig() -> str:
    path = Path("~/.kube/config").expanduser()
    return str(path) if path.is_file() else ""
