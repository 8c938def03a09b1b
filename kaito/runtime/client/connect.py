"""Finds the cluster configuration, and connects scripts and tools without a manager."""

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
    """Opens a client, which is closed at the end of the scope.

    Args:
        kubeconfig: Cluster and credentials; by default `$KUBECONFIG`, the pod's service account, or `~/.kube/config`.
        context: Context of the kubeconfig; by default its current one.
        field_manager: The name under which the server records changes.
        user_agent: User-Agent of the requests; by default the field manager.

    Raises:
        ConfigurationError: No cluster configuration was found; the message lists the places.
    """
    from kaito.runtime.client.http import HttpTransport  # imported here to keep the import time of the data types low

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
    """Returns the configuration from the given kubeconfig, `$KUBECONFIG`, the pod, or `~/.kube/config`, in this order.

    `$POD_NAMESPACE`, which manifests set through the downward API, overrides the namespace of any of them.

    Raises:
        ConfigurationError: No configuration exists, or the first one found is not valid.
    """
    config = await _find_cluster_config(kubeconfig, context, environment, strict_x509=strict_x509)
    namespace = environment.get("POD_NAMESPACE", "").strip()
    return replace(config, namespace=namespace) if namespace else config


async def _find_cluster_config(
    kubeconfig: Path | None, context: str, environment: Mapping[str, str], *, strict_x509: bool
) -> ClusterConfig:
    # Imported here: pods do not need the kubeconfig library.
    from kaito.runtime.client.kubeconfig import load_kubeconfig

    named = str(kubeconfig) if kubeconfig is not None else environment.get("KUBECONFIG", "")
    if named:
        return await load_kubeconfig(named, context, environment=environment, strict_x509=strict_x509)
    if not context and (config := in_cluster_config(environment, strict_x509=strict_x509)) is not None:
        return config
    if home := await asyncio.to_thread(_home_kubeconfig):
        return await load_kubeconfig(home, context, environment=environment, strict_x509=strict_x509)
    message = "no cluster configuration found: not in a pod, KUBECONFIG unset, ~/.kube/config missing"
    raise ConfigurationError(message)


def _home_kubeconfig() -> str:
    path = Path("~/.kube/config").expanduser()
    return str(path) if path.is_file() else ""
