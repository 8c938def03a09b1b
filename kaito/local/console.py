"""Serves the console of the local cluster, with trouble buttons."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

from kaito.console.console import Console, LocalParts, running_console
from kaito.console.settings import ConsoleSettings
from kaito.local.cluster import LocalCluster, controller_flags
from kaito.local.trouble import LocalTrouble
from kaito.runtime.client import HttpTransport, find_cluster_config
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import ObjectKey
from kaito.workspace.flags import parse


@contextlib.asynccontextmanager
async def local_console(cluster: LocalCluster) -> AsyncGenerator[Console]:
    """Serves the console for the length of the body, on the port of the options or, if it is in use, on a free one."""

    def direct_url(service: ObjectKey) -> str | None:
        endpoints = (each for each in cluster.proxy.endpoints if each.service == service and each.port == 80)
        return next((each.url for each in endpoints), None)

    controller = parse(controller_flags(cluster.options), {}).workspace
    trouble = LocalTrouble(cluster.arm_url, cluster.kubelet, cluster.api)
    parts = LocalParts(
        trouble=trouble,
        read_quota=trouble.read_quota,
        direct_url=direct_url,
        controller=controller,
    )
    settings = ConsoleSettings(mode="local", cluster="kaito up", port=cluster.options.console_port, allow_writes=True)
    transport = HttpTransport(await find_cluster_config(cluster.kubeconfig))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(transport.close)
        try:
            console = await stack.enter_async_context(running_console(settings, transport, local=parts))
        except ConfigurationError:
            settings = replace(settings, port=0)
            console = await stack.enter_async_context(running_console(settings, transport, local=parts))
        yield console
