"""How the gpu-provisioner reaches the simulated cloud, and when that cloud is there."""

import asyncio
from pathlib import Path

from kaito.local.processes import ChildEnded

START_SECONDS = 30.0

CLOUD_ENVIRONMENT = {
    "ARM_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
    "ARM_RESOURCE_GROUP": "kaito",
    "AZURE_CLUSTER_NAME": "kaito",
    "LOCATION": "eastus",
}
"""The one cluster of the simulator's subscription, under the gpu-provisioner's environment names."""


async def wait_until_listening(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    """Wait until something accepts connections on a loopback port.

    Raises:
        ChildEnded: the process ended instead.
        TimeoutError: it did not listen within 30 seconds.
    """
    async with asyncio.timeout(START_SECONDS):
        while True:
            if process.returncode is not None:
                raise ChildEnded("arm-simulator", process.returncode, log)
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
