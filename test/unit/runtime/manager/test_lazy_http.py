"""A manager with probes and metrics, without paths of the program and without a proxy, does not import aiohttp."""

import subprocess
import sys

PROGRAM = """
import asyncio, sys
from kaito.runtime import Controller, Manager, Settings
from kaito.runtime.client.config import ClusterConfig, NoCredentials
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import ConfigMap

async def reconcile(request): ...

async def main():
    transport = HttpTransport(ClusterConfig(server="http://127.0.0.1:1", credentials=NoCredentials()))
    address = "127.0.0.1:0"
    settings = Settings(
        metrics_bind_address=address, health_probe_bind_address=address, leader_elect=False, cache_sync_seconds=0.2
    )
    manager = Manager(settings, controllers=[Controller(ConfigMap, reconcile)], transport=transport, name="x")
    try:
        await manager.start()
    except KaitoRuntimeError:
        pass
    print(sorted({"aiohttp", "yarl", "multidict"} & set(sys.modules)))

asyncio.run(main())
"""


def test_nothing_of_aiohttp_is_imported() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert found.stdout.splitlines()[-1:] == ["[]"], found.stderr
